"""Image folders as people have them: with folders that programs make, and files that are no images."""

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from timm.data.readers.reader_image_folder import find_images_and_targets

from helpers.image_files import folder_config, write_classes, write_image
from isometry.config import RunConfig
from isometry.data import Sources, find_sources
from isometry.data.folders import scan
from isometry.errors import UserError
from isometry.training.checkpoint.run_folder import RunFolder

JUNK = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "Thumbs.db", ".Trash-1000", "$RECYCLE.BIN"]
JUNK += ["Lightroom Previews.lrdata", "Smart.LRDATA"]


def note(sources: Sources, part: str) -> str:
    """The one note with these words."""
    (found,) = [note for note in sources.notes if part in note]
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "photos", {"cat": 4, "dog": 4})


@pytest.mark.parametrize("place", ["", "cat"])
@pytest.mark.parametrize("name", JUNK)
def test_folders_that_programs_make_are_no_classes(photos: Path, name: str, place: str):
    clean = find_sources(folder_config(photos))
    write_image(photos / place / name / "thumb.png")
    sources = find_sources(folder_config(photos))
    assert sources.class_names == ["cat", "dog"]
    assert [len(sources.train), len(sources.val)] == [len(clean.train), len(clean.val)]
    assert os.path.join(place, name) in note(sources, "programs make them")


def test_folders_that_programs_make_beside_the_splits(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 10, "dog": 10})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    for junk in ("__MACOSX/train/cat", ".git"):
        write_image(tmp_path / junk / "1.png")
    (tmp_path / "annotations").mkdir()
    sources = find_sources(folder_config(tmp_path))
    assert [len(part) for part in (sources.train, sources.val, sources.test)] == [18, 2, 2]


def test_images_without_classes_beside_such_a_folder(tmp_path: Path):
    for name in ("1.png", "2.png", ".thumbnails/1.png"):
        write_image(tmp_path / name)
    sources = find_sources(folder_config(tmp_path))
    assert not sources.labelled
    assert len(sources.train) + len(sources.val) == 2


def test_empty_folders_are_named(photos: Path):
    (photos / "emu" / "old").mkdir(parents=True)
    (photos / "lion").mkdir()
    (photos / "lion" / "raw.cr2").touch()
    sources = find_sources(folder_config(photos))
    assert sources.class_names == ["cat", "dog"]
    assert note(sources, "without images").endswith(": emu, lion")


def test_files_that_are_not_read_are_counted_by_ending(photos: Path):
    for name in ("1.CR2", "2.cr2", "a.pdf", "noise", "._1.png", "Thumbs.db", ".DS_Store"):
        (photos / "cat" / name).write_bytes(b"x")
    sources = find_sources(folder_config(photos))
    assert len(sources.train) + len(sources.val) == 8
    assert note(sources, "files left out").endswith("2 .cr2, 1 ._*, 1 .pdf, 1 without an ending")


def test_a_folder_of_nothing_else_says_what_it_holds(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.pdf").touch()
    with pytest.raises(UserError, match=r"no images in .*1 \.pdf"):
        find_sources(folder_config(tmp_path))


def test_folders_beside_train_and_val_are_named(tmp_path: Path):
    for part in ("train", "val", "extra"):
        write_classes(tmp_path / part, {"cat": 2, "dog": 2})
    assert "extra" in note(find_sources(folder_config(tmp_path)), "beside train/")


def test_classes_that_a_class_map_lacks_are_named(photos: Path):
    write_classes(photos, {"emu": 3})
    (photos / "classes.txt").write_text("dog\ncat\n")
    sources = find_sources(folder_config(photos, class_map="classes.txt"))
    assert sources.class_names == ["dog", "cat"]
    assert "emu (3)" in note(sources, "not in --class-map")


def test_a_run_inside_the_images_is_left_out(photos: Path):
    before = find_sources(folder_config(photos))
    config = RunConfig(data_dir=str(photos), out=str(photos / "runs" / "first"))
    with RunFolder(config) as folder:
        folder.begin(config)
        write_image(folder.path / "media" / "map.png")
    comparison = photos / "compared"
    write_image(comparison / "comparison.png")
    for name in ("plan.yaml", "comparison.json"):
        (comparison / name).touch()
    sources = find_sources(folder_config(photos))
    assert sources.class_names == ["cat", "dog"]
    assert len(sources.train) == len(before.train)
    assert note(sources, "results of isometry").endswith(": compared, runs/first")
    # and beside train/ alone, where another folder would make it a class
    train = shutil.copytree(photos, photos.parent / "split" / "train")
    shutil.move(train / "runs", train.parent / "runs")
    assert find_sources(folder_config(train.parent)).class_names == ["cat", "dog"]


def test_a_run_that_is_just_beginning_is_not_worth_a_word(photos: Path):
    before = find_sources(folder_config(photos))
    with RunFolder(RunConfig(data_dir=str(photos), out=str(photos / "runs" / "first"))):
        sources = find_sources(folder_config(photos))
    assert len(sources.train) == len(before.train)
    assert sources.notes == before.notes == []


def test_a_link_to_a_folder_above_is_followed_once(photos: Path):
    (photos / "cat" / "all").symlink_to(photos)
    sources = find_sources(folder_config(photos))
    assert sources.class_names == ["cat", "dog"]
    assert len(sources.train) + len(sources.val) == 8


def test_links_to_folders_are_followed(photos: Path, tmp_path: Path):
    write_image(tmp_path / "elsewhere" / "1.png")
    (photos / "emu").symlink_to(tmp_path / "elsewhere")
    assert find_sources(folder_config(photos)).class_names == ["cat", "dog", "emu"]


def test_images_and_classes_are_in_the_order_of_timm(tmp_path: Path):
    random.seed(0)
    for number in range(60):
        folder = random.choice(["a10", "a9", "B/x2", "B/x11", "c", "é1"])
        path = tmp_path / folder / f"{random.choice('abAB')}{number}.{random.choice(['png', 'JPG', 'txt'])}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    files, class_to_idx = find_images_and_targets(str(tmp_path), types=[".png", ".jpg"])
    found = scan(tmp_path, None, [])
    assert found.files == files
    assert list(found.class_to_idx.items()) == list(class_to_idx.items())


def test_classes_that_differ_in_case_or_zeros_have_one_order(tmp_path: Path):
    """timm sorts a set by a key that is the same for these, so labels would change from process to process."""
    names = ["Cat", "cat", "CAT", "n1", "n01", "n001"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    code = f"from isometry.data.folders import *; print(list(scan(Path({str(tmp_path)!r}), None, []).class_to_idx))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert seen == {"['CAT', 'Cat', 'cat', 'n001', 'n01', 'n1']\n"}


def forbid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the right to list a folder away; from root, who lists everything, in this process alone."""
    folder.chmod(0)
    scandir = os.scandir

    def refused(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    if not os.geteuid():
        monkeypatch.setattr(os, "scandir", refused)


def test_a_folder_that_must_not_be_read_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch):
    write_classes(photos, {"emu": 1})
    forbid(photos / "emu", monkeypatch)
    assert "emu (permission denied)" in note(find_sources(folder_config(photos)), "can't be read")
