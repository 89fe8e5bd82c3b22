"""The cache folder: read by later runs, refused for other runs, limited in size, tolerant of disk errors."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import as_rank, in_two_processes
from helpers.teacher_outputs import (
    FIRST,
    GRIDS,
    IDENTITY,
    Teacher,
    ask,
    cache_in,
    check_same,
    entries,
    images,
)
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.teacher import BatchPosition, TeacherOutput
from isometry.training.teacher_cache import TeacherCache
from isometry.training.teacher_cache import cache as cache_module

PLACES = [BatchPosition(epoch, 6 * batch) for epoch in range(2) for batch in range(3)]


def told(
    cache: TeacherCache, places: list[BatchPosition] = PLACES, classes: int = 10
) -> tuple[list[TeacherOutput], int]:
    """A cache's answers at some places, and how often the teacher was asked for them."""
    teacher = Teacher(classes)
    return [ask(cache, teacher, place) for place in places], teacher.asked


# --- what is read


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_later_run_reads_the_outputs_of_the_first(tmp_path: Path, dtype: torch.dtype):
    first, teacher = cache_in(tmp_path / "cache"), Teacher(dtype=dtype)
    uncached = [teacher(images(place), GRIDS) for place in PLACES]
    written = [ask(first, teacher, place) for place in PLACES]
    assert (first.hits, first.misses) == (0, 6)
    later, nobody = cache_in(tmp_path / "cache"), Teacher(dtype=dtype)
    read = [ask(later, nobody, place) for place in reversed(PLACES)][::-1]
    assert (later.hits, later.misses, nobody.asked) == (6, 0, 0)
    for before, then, now in zip(uncached, written, read, strict=True):
        check_same(then, before)
        check_same(now, before)
    assert first.notes == later.notes == []


def test_with_a_thousand_classes_computed_and_read_outputs_are_equal(tmp_path: Path):
    asked, _ = told(cache_in(tmp_path / "cache"), classes=1000)
    read, count = told(cache_in(tmp_path / "cache"), classes=1000)
    unstored, _ = told(cache_in(tmp_path / "full", limit=0), classes=1000)
    assert count == 0
    for each in zip(asked, read, unstored, strict=True):
        check_same(each[1], each[0])
        check_same(each[2], each[0])


def test_read_tensors_are_laid_out_as_new_ones(tmp_path: Path):
    """Sums over memory that is aligned otherwise may be rounded otherwise."""
    told(cache_in(tmp_path / "cache"))
    (read, *_), _ = told(cache_in(tmp_path / "cache"))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (read.logits, *read.tokens.values()))


def test_terms_without_tokens_store_logits_alone(tmp_path: Path):
    cache, teacher = cache_in(tmp_path / "cache"), Teacher()
    assert ask(cache, teacher, grids={}).tokens == {}
    check_same(ask(cache, teacher, grids={}), teacher(images(FIRST), {}))
    assert cache.hits == 1


def test_blocks_that_an_entry_lacks_are_computed_and_added(tmp_path: Path):
    cache, teacher = cache_in(tmp_path / "cache"), Teacher()
    for number, grids in enumerate(({}, {1: (2, 3)}, {5: (1, 2)}, {1: (3, 2)}), start=1):
        check_same(ask(cache, teacher, grids=grids), teacher(images(FIRST), grids))
        assert cache.misses == number, "another block, and the same block on another grid, are not there"
    for grids in ({}, {1: (2, 3)}, {5: (1, 2)}, {1: (3, 2)}, GRIDS):
        check_same(ask(cache, teacher, grids=grids), teacher(images(FIRST), grids))
    assert (cache.misses, cache.hits) == (4, 5)
    assert len(entries(tmp_path / "cache")) == 1
    assert cache.notes == []


def test_processes_have_separate_entries_in_one_folder(tmp_path: Path):
    worlds = [World(rank, 2, torch.device("cpu")) for rank in range(2)]
    for world in worlds:
        assert told(cache_in(tmp_path / "cache", world=world))[1] == 6
    for world in worlds:
        assert told(cache_in(tmp_path / "cache", world=world))[1] == 0
    assert len(entries(tmp_path / "cache")) == 12


@dataclass(frozen=True)
class OtherLacksIt(World):
    """A world in which another process has to ask."""

    def any(self, flag: bool) -> bool:
        return True


def test_a_sharded_teacher_is_run_by_all_processes_or_by_none(tmp_path: Path):
    told(cache_in(tmp_path / "cache"))
    world = OtherLacksIt(0, 1, torch.device("cpu"))
    for together, count in ((True, 6), (False, 0)):
        cache = TeacherCache(tmp_path / "cache", IDENTITY, limit_bytes=2**30, world=world, together=together)
        assert told(cache)[1] == count


def one_lacks_it(rank: int, rendezvous: str, folder: str) -> None:
    world = as_rank(rank, rendezvous)

    def asked(place: BatchPosition) -> int:
        cache = TeacherCache(Path(folder), IDENTITY, limit_bytes=2**30, world=world, together=True)
        return told(cache, [place])[1]

    assert [asked(FIRST), asked(FIRST)] == [1, 0]
    world.barrier()
    if rank == 0:
        for path in entries(Path(folder)):
            path.unlink() if "rank-1" in path.name else None
    world.barrier()
    assert [asked(FIRST), asked(FIRST)] == [1, 0]
    world.close()


def test_two_processes_agree_on_when_to_run_the_teacher(tmp_path: Path):
    in_two_processes(one_lacks_it, tmp_path, str(tmp_path / "cache"))


# --- whose cache it is


def test_opening_writes_nothing(tmp_path: Path):
    cache_in(tmp_path / "deep" / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("the teacher", "deit", "the teacher was cait and is deit"),
        (
            "the SHA-256 of its weights",
            "b" * 64,
            "the SHA-256 of its weights was aaaaaaaaaaaa… and is bbbbbbbbbbbb…",
        ),
        ("--seed", 43, "--seed was 42 and is 43"),
        ("--scale", (0.5, 1.0), "--scale was [0.08, 1.0] and is [0.5, 1.0]"),
        ("--new", 1, "--new was not given and is 1"),
        ("--teacher-pixels", "original", "--teacher-pixels was student and is original"),
        ("--exif", "upright", "--exif was ignore and is upright"),
        ("--pixel-range", "0,4095", "--pixel-range was not given and is 0,4095"),
        ("--channels-last", True, "--channels-last was False and is True"),
    ],
)
def test_a_cache_of_something_else_is_refused(tmp_path: Path, name: str, value: Any, words: str):
    folder = tmp_path / "cache"
    told(cache_in(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as refused:
        cache_in(folder, **{name: value})
    (line,) = str(refused.value).splitlines()
    assert line == (f"--teacher-cache {folder}: is of another run: {words}; give another --teacher-cache DIR")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_all_that_differs_is_named(tmp_path: Path):
    told(cache_in(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"teacher .*cait .*deit.*--seed .*42 .*1"):
        cache_in(tmp_path / "cache", **{"the teacher": "deit", "--seed": 1})


def test_another_run_that_claimed_the_folder_since_is_noticed(tmp_path: Path):
    ours, theirs = cache_in(tmp_path / "cache"), cache_in(tmp_path / "cache", **{"--seed": 1})
    told(theirs)
    with pytest.raises(UserError, match=r"--seed .*1 .*42"):
        told(ours)


@pytest.mark.parametrize(("text", "words"), [("{", "damaged"), ("[]", "damaged"), ("\udcff", "damaged")])
def test_a_damaged_identity_is_refused(tmp_path: Path, text: str, words: str):
    (tmp_path / "identity.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words):
        cache_in(tmp_path)


def test_a_folder_of_other_things_is_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex .*identity\.json"):
        cache_in(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_its_way_is_refused(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--teacher-cache|cache"):
        cache_in(tmp_path / place)


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match="written"):
        cache_in(tmp_path / "cache")


def test_partial_files_of_killed_runs_are_deleted_after_a_while(tmp_path: Path):
    told(cache_in(tmp_path / "cache"), PLACES[:1])
    folder = tmp_path / "cache" / "epoch-00000"
    old, fresh, theirs = (folder / name for name in ("from-0.old.new", "from-0.fresh.new", "photo.new"))
    for path in (old, fresh, theirs):
        path.touch()
    for path in (old, theirs):
        os.utime(path, (0, 0))
    told(cache_in(tmp_path / "cache"))
    assert (old.exists(), fresh.exists(), theirs.exists()) == (False, True, True)


# --- damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 16
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "other text": lambda path: path.write_text("hello"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_noted_once_and_computed_again(tmp_path: Path, damage: str):
    wanted, _ = told(cache_in(tmp_path / "cache"))
    for path in entries(tmp_path / "cache")[1:3]:
        DAMAGES[damage](path)
    cache = cache_in(tmp_path / "cache")
    found, asked = told(cache)
    assert asked == 2
    for ours, theirs in zip(found, wanted, strict=True):
        check_same(ours, theirs)
    (note,) = cache.notes
    assert "from-000000006-rank-0.safetensors is damaged" in note
    assert len(note.splitlines()) == 1
    mended = cache_in(tmp_path / "cache")
    assert told(mended)[1] == 0
    assert mended.notes == []


def test_an_entry_moved_to_another_position_is_of_other_images(tmp_path: Path):
    wanted, _ = told(cache_in(tmp_path / "cache"))
    first, second, *_ = entries(tmp_path / "cache")
    shutil.copy(first, second)
    cache = cache_in(tmp_path / "cache")
    found, asked = told(cache)
    assert asked == 1
    check_same(found[1], wanted[1])
    (note,) = cache.notes
    assert "is of other images" in note
    assert told(cache_in(tmp_path / "cache"))[1] == 0


# --- bounds


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


def test_no_more_is_written_than_the_limit(tmp_path: Path):
    told(cache_in(tmp_path / "whole"))
    one = taken(tmp_path / "whole") // 6
    limit = int(2.5 * one)
    cache = cache_in(tmp_path / "cache", limit)
    assert told(cache)[1] == 6
    assert len(entries(tmp_path / "cache")) == 2
    assert taken(tmp_path / "cache") <= limit
    assert told(cache)[1] == 4, "the two that fit are read, the others asked every time"
    later = cache_in(tmp_path / "cache", limit)
    assert told(later)[1] == 4, "a later run counts what is there"
    assert len(entries(tmp_path / "cache")) == 2
    more = cache_in(tmp_path / "cache", int(3.5 * one))
    assert told(more)[1] == 4
    assert len(entries(tmp_path / "cache")) == 3
    assert cache.notes == later.notes == []


def test_a_later_run_counts_the_entries_of_every_epoch(tmp_path: Path):
    told(cache_in(tmp_path / "cache"))
    limit = taken(tmp_path / "cache")
    assert told(cache_in(tmp_path / "cache", limit), [BatchPosition(2, 0)])[1] == 1
    assert taken(tmp_path / "cache") == limit


def test_an_entry_does_not_grow_past_the_limit(tmp_path: Path):
    cache, teacher = cache_in(tmp_path / "cache", 1000), Teacher()
    ask(cache, teacher, grids={})
    ask(cache, teacher, grids=GRIDS)
    ask(cache, teacher, grids={})
    assert (cache.misses, cache.hits) == (2, 1)
    assert taken(tmp_path / "cache") <= 1000


def test_entries_that_are_written_anew_count_once(tmp_path: Path):
    told(cache_in(tmp_path / "cache"))
    limit = taken(tmp_path / "cache")
    for path in entries(tmp_path / "cache"):
        flip(path)
    told(cache_in(tmp_path / "cache", limit))
    assert told(cache_in(tmp_path / "cache", limit))[1] == 0


def test_processes_share_the_limit(tmp_path: Path):
    told(cache_in(tmp_path / "whole"))
    limit = taken(tmp_path / "whole")
    for rank in range(2):
        told(cache_in(tmp_path / "cache", limit, World(rank, 2, torch.device("cpu"))))
    names = [path.name for path in entries(tmp_path / "cache")]
    assert [sum(f"rank-{rank}" in name for name in names) for rank in range(2)] == [3, 3]


def test_some_of_the_disk_is_left_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class Usage:
        free: int

    told(cache_in(tmp_path / "whole"))
    room = taken(tmp_path / "whole") // 2 + 10
    folder = tmp_path / "cache"
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(cache_module.LEFT_FREE + room - taken(folder))
    )
    assert told(cache_in(folder))[1] == 6
    assert len(entries(folder)) == 3


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 500 bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_stops_writing_and_not_the_run(tmp_path: Path):
    cache, teacher = cache_in(tmp_path / "cache"), Teacher()
    for place in PLACES[:3]:
        ask(cache, teacher, place, {})
    found, asked = told(cache, PLACES[3:])
    assert asked == 3
    for place, ours in zip(PLACES[3:], found, strict=True):
        check_same(ours, teacher(images(place), GRIDS))
    (note,) = cache.notes
    assert "can't be written (" in note
    assert len(note.splitlines()) == 1
    assert len(entries(tmp_path / "cache")) == 3, "nothing half written stays"
    ask(cache, teacher, BatchPosition(3, 0), {})
    assert len(entries(tmp_path / "cache")) == 3, "no more is tried"
    read = cache.hits
    ask(cache, teacher, PLACES[0], {})
    assert cache.hits == read + 1, "what is there is read all the same"


def test_a_disk_that_is_full_from_the_start_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(cache_module, "open_own", full)
    cache = cache_in(tmp_path / "cache")
    assert told(cache)[1] == 6
    assert cache.notes == [
        f"teacher cache {tmp_path / 'cache'}: can't be written (no space left on device); "
        "missing outputs are computed by the teacher"
    ]


@pytest.mark.parametrize("name", ["identity.json", "epoch-00001"])
def test_nothing_is_written_or_deleted_through_a_link(tmp_path: Path, name: str):
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    for folder in (outside, cache):
        folder.mkdir()
    stale = outside / "from-0.old.new"
    stale.touch()
    os.utime(stale, (0, 0))
    (cache / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link"):
        told(cache_in(cache))
    assert [path.name for path in outside.iterdir()] == [stale.name]
    (cache / name).unlink()
    # The folder itself may be a link.
    (tmp_path / "linked").symlink_to(cache)
    assert told(cache_in(tmp_path / "linked"))[1] == 6
    assert told(cache_in(cache))[1] == 0


def test_the_folder_has_its_identity(tmp_path: Path):
    told(cache_in(tmp_path / "cache"))
    assert json.loads((tmp_path / "cache" / "identity.json").read_text()) == json.loads(json.dumps(IDENTITY))
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        "identity.json",
        "epoch-00000",
        "epoch-00001",
    }
