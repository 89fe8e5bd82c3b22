"""Files: written whole or not at all, and validated when they are read."""

import hashlib
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from isometry.errors import UserError
from isometry.files import (
    OUTPUTS,
    check_replaceable,
    format_bytes,
    free_bytes,
    inside,
    nearest,
    open_own,
    sha256_of,
    write_atomically,
    write_output,
)
from isometry.models.build import save_model
from isometry.parsing import closed, read_json, validate
from isometry.training.checkpoint.files import save_checkpoint
from isometry.training.teacher_cache.entry import write_entry


@closed
@dataclass
class Point:
    name: str
    at: list[float]
    more: "dict[str, int | float | list[int]] | None" = None


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more than ``size`` bytes to a file fails, as on a full disk."""
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(("old", "new"), [("old", "new"), (b"\x00", b"\xff")])
def test_a_file_is_replaced(tmp_path: Path, old: str | bytes, new: str | bytes):
    path = tmp_path / "file"
    for content in (old, new):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with files_of_at_most(1000), pytest.raises(UserError, match=r"file: could not save \(file too large\)"):
        write_atomically(path, b"new" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path):
    outside, path = tmp_path / "outside", tmp_path / "file"
    outside.write_text("kept")
    (tmp_path / "file.new").symlink_to(outside)
    write_atomically(path, "new")
    assert (outside.read_text(), path.read_text()) == ("kept", "new")
    assert not path.is_symlink()


def test_a_file_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path):
    outside, path = tmp_path / "outside", tmp_path / "file"
    for content in (None, "theirs"):
        if content is not None:
            outside.write_text(content)
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
        with pytest.raises(UserError, match="file: is a link, and nothing is written"):
            write_atomically(path, "ours")
        for mode in ("a", "w", "x", "r+b"):
            with pytest.raises(UserError, match="file: is a link"):
                open_own(path, mode)
        assert outside.exists() == (content is not None)
    assert outside.read_text() == "theirs"
    assert path.is_symlink()


def test_a_link_that_comes_in_between_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(tmp_path / "file", "a")
    assert not (tmp_path / "outside").exists()


def test_a_folder_may_be_a_link_and_what_is_inside_may_not(tmp_path: Path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "b").symlink_to(tmp_path)
    assert inside(tmp_path / "linked", "a", "new") == tmp_path / "linked" / "a" / "new"
    with pytest.raises(UserError, match="linked/b: is a link"):
        inside(tmp_path / "linked", "b", "new")


def test_an_output_replaces_what_isometry_wrote_alone(tmp_path: Path):
    path = tmp_path / "a.csv"
    write_output(path, "1")
    write_output(path, "2")
    write_output(tmp_path / "b.csv", "3")
    assert json.loads((tmp_path / OUTPUTS).read_text()).keys() == {"a.csv", "b.csv"}
    path.write_text("2\nmine")
    with pytest.raises(UserError, match=r"a\.csv: was changed since isometry wrote it"):
        write_output(path, "4")
    path.unlink()
    write_output(path, "4")
    assert path.read_text() == "4"


def test_without_a_record_nothing_is_replaced(tmp_path: Path):
    path = tmp_path / "a.csv"
    write_output(path, "1")
    path.write_text("1, mine")
    (tmp_path / OUTPUTS).unlink()
    with pytest.raises(UserError, match=r"a\.csv: isometry has no record of writing this file.*or delete it"):
        write_output(path, "2")
    assert path.read_text() == "1, mine"


def test_the_record_of_an_older_version_is_read(tmp_path: Path):
    """It had the last checksum alone."""
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / OUTPUTS).write_text(json.dumps({"a.csv": hashlib.sha256(b"1").hexdigest()}))
    write_output(tmp_path / "a.csv", "2")
    assert (tmp_path / "a.csv").read_text() == "2"


def test_a_process_killed_at_any_moment_leaves_a_file_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, replace = tmp_path / "a.csv", Path.replace
    write_output(path, "1")
    for after in (0, 1, 2):
        moves = 0

        def killed(old: Path, new: Path, after: int = after) -> Path:
            nonlocal moves
            moves += 1
            if moves > after:
                raise KeyboardInterrupt
            return replace(old, new)

        monkeypatch.setattr(Path, "replace", killed)
        with suppress(KeyboardInterrupt):
            write_output(path, f"2{after}")
        check_replaceable(path)
        monkeypatch.undo()
        write_output(path, "1")
    assert path.read_text() == "1"


@pytest.mark.parametrize(
    "record", ["", "[1, 2]", '{"b.csv": 1}', '{"b.csv": null}', "[" * 100_000, "NaN", "my text"]
)
def test_a_damaged_record_of_outputs_is_refused_and_stays(tmp_path: Path, record: str):
    (tmp_path / OUTPUTS).write_text(record)
    with pytest.raises(UserError, match=r"outputs\.json: is not the record of what isometry wrote here"):
        write_output(tmp_path / "a.csv", "1")
    assert (tmp_path / OUTPUTS).read_text() == record
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_neither_a_record_nor_an_output(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / OUTPUTS)
    with pytest.raises(UserError, match=r"outputs\.json: is not the record .*not a regular file"):
        write_output(tmp_path / "a.csv", "1")
    assert [path.name for path in tmp_path.iterdir()] == [OUTPUTS]
    (tmp_path / OUTPUTS).rmdir() if make is os.mkdir else (tmp_path / OUTPUTS).unlink()
    make(tmp_path / "a.csv")
    told = (
        "is a folder, and a file would" if make is os.mkdir else "isometry has no record of writing this file"
    )
    with pytest.raises(UserError, match=rf"a\.csv: {told}"):
        check_replaceable(tmp_path / "a.csv")


def test_a_record_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / OUTPUTS).symlink_to(tmp_path / "theirs.json")
    with pytest.raises(UserError, match="is a link"):
        write_output(tmp_path / "b.csv", "1")
    assert [path.name for path in tmp_path.iterdir()] == [OUTPUTS]


@pytest.mark.parametrize("name", ["n" * 300, "../outside", "", "a\0b", "/etc/hostname"])
def test_names_in_a_record_that_no_file_here_can_have_are_dropped(tmp_path: Path, name: str):
    (tmp_path / OUTPUTS).write_text(json.dumps({name: "x"}))
    write_output(tmp_path / "a.csv", "1")
    assert json.loads((tmp_path / OUTPUTS).read_text()).keys() == {"a.csv"}


def test_a_name_that_is_too_long_is_told(tmp_path: Path):
    for act in (check_replaceable, lambda path: write_output(path, "1")):
        with pytest.raises(UserError, match=r"can't be written \(file name too long\); give another --out"):
            act(tmp_path / ("n" * 300))


def test_outputs_written_at_once_are_all_in_the_record(tmp_path: Path):
    def write(name: str) -> None:
        for number in range(20):
            write_output(tmp_path / name, f"{name}{number}")

    names = ["a", "b", "c", "d"]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(write, names))
    assert sorted(json.loads((tmp_path / OUTPUTS).read_text())) == names
    for name in names:
        check_replaceable(tmp_path / name)
        assert (tmp_path / name).read_text() == f"{name}19"


def test_a_folder_in_the_way_stays(tmp_path: Path):
    (tmp_path / "file.new").mkdir()
    (tmp_path / "file.new" / "theirs").touch()
    write_atomically(tmp_path / "file", "ours")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file.new", "theirs"]


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path):
    assert nearest(tmp_path / "a" / "b") == tmp_path
    assert (
        0 < free_bytes(tmp_path / "a" / "b") <= os.statvfs(tmp_path).f_frsize * os.statvfs(tmp_path).f_blocks
    )


def test_a_checksum_is_of_all_bytes_however_they_come(tmp_path: Path):
    content = bytes(range(256)) * 100
    (tmp_path / "file").write_bytes(content)
    wanted = hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "file") == wanted
    assert sha256_of([content[:7], memoryview(content)[7:]]) == wanted
    assert sha256_of([]) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (11_141_120, "10.6 MiB"), (2**40, "1 TiB")]
)
def test_sizes_have_three_digits(size: int, text: str):
    assert format_bytes(size) == text


def test_what_fits_is_built_and_keeps_its_numbers(tmp_path: Path):
    path = tmp_path / "point.json"
    path.write_text(json.dumps({"name": "caf\udce9", "at": [1, 2.5, float("nan")], "more": {"a": 3}}))
    point = read_json(path, Point)
    assert (point.name, point.at[:2], point.more) == ("caf\udce9", [1.0, 2.5], {"a": 3})
    assert point.at[2] != point.at[2]
    assert isinstance(point.more["a"], int)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"name": "a", "at": [1, "x"]}, "at.1: "),
        ({"name": 3, "at": []}, "name: "),
        ({"at": []}, "name: "),
        ({"name": "a", "at": [], "evil": 1}, "evil: "),
        ({"name": "a", "at": [], "more": {"b": "x"}}, "more.b"),
        ([], ""),
    ],
)
def test_what_does_not_fit_is_located_in_one_line(value: Any, place: str):
    with pytest.raises(ValueError, match=r"input|field|unexpected") as caught:
        validate(value, Point)
    assert str(caught.value).startswith(place)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "9" * 10_000, "\ufffe", b"\xff\xfe\x00"])
def test_what_is_not_json_is_a_value_error(tmp_path: Path, content: str | bytes):
    path = tmp_path / "file.json"
    write_atomically(path, content)
    with pytest.raises(ValueError):  # noqa: PT011 - by Python's parser, in its words
        read_json(path, Point)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o007])
def test_files_of_safetensors_have_the_permissions_of_the_others(tmp_path: Path, umask: int):
    """Saved networks, checkpoints and entries of the teacher cache."""
    network = timm.create_model("test_vit", num_classes=2)
    before = os.umask(umask)
    try:
        save_model(network, tmp_path / "network", None, {"input_size": (3, 160, 160)})
        save_checkpoint(tmp_path / "last", {"model": network.state_dict()}, {}, "step1")
        write_entry(tmp_path / "cache" / "entry", {"logits": torch.zeros(2)}, "images", 7)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert {"model.safetensors", "model-step1.safetensors", "entry", "config.json"} <= modes.keys()
    assert set(modes.values()) == {0o666 & ~umask}
