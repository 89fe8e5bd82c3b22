"""The list of a run's classes and images: equal for the same data wherever it is, and for no other."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.image_files import folder_config, write_classes
from isometry.data import find_sources
from isometry.data.inventory import (
    Inventory,
    fingerprint,
    other_classes,
    other_dates,
    other_images,
    take_inventory,
)
from isometry.parsing import validate


def taken(data_dir: Path) -> Inventory:
    return take_inventory(find_sources(folder_config(data_dir)), str(data_dir))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder, and a list of its images beside them."""
    folder = write_classes(tmp_path / "photos", {"ant": 6, "bee": 6})
    rows = [f"{name}/{number}.png,{name}" for name in ("ant", "bee") for number in range(6)]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]))
    return folder


@pytest.mark.parametrize("place", ["", "list.csv"])
def test_the_same_data_elsewhere_is_the_same(photos: Path, tmp_path: Path, place: str):
    before = taken(photos / place)
    shutil.copytree(photos, tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (0, 0))
    now = taken(tmp_path / "moved" / place)
    assert (now["classes"], now["images"]) == (before["classes"], before["images"])
    assert fingerprint(now) == fingerprint(before)
    assert {name: sum(count for count, _ in now["images"][name].values()) for name in now["images"]} == {
        "training": 10,
        "validation": 2,
    }


def swap_labels(photos: Path) -> None:
    path = photos / "list.csv"
    path.write_text(
        path.read_text().replace("ant/0.png,ant", "ant/0.png,bee").replace("bee/0.png,bee", "bee/0.png,ant")
    )


@pytest.mark.parametrize(
    "change",
    [
        swap_labels,
        lambda photos: (photos / "ant" / "0.png").write_bytes((photos / "bee" / "0.png").read_bytes() + b"x"),
        lambda photos: (photos / "list.csv").write_text(
            (photos / "list.csv").read_text().replace("ant/5.png,ant\n", "")
        ),
    ],
    ids=["labels", "a size", "one less"],
)
def test_other_images_and_labels_are_told_by_split_and_folder(photos: Path, change: Callable[[Path], object]):
    before = taken(photos / "list.csv")
    change(photos)
    changes = other_images(before["images"], taken(photos / "list.csv")["images"])
    assert "ant/ " in " ".join(changes.values())
    assert changes.keys() <= {"training", "validation"}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["a", "b"], ["a", "b"], ""),
        (None, None, ""),
        (["a", "b"], ["b", "a"], "are in another order: class 0 was 'a' and is 'b'"),
        (["a", "b"], ["a", "c"], "lack 'b' and have the new 'c'"),
        (list("abcde"), ["x"], "lack 'a', 'b', 'c' and 2 more and have the new 'x'"),
        (["a", "b"], None, "lack 'a', 'b'"),
    ],
)
def test_other_classes_are_named(before: list[str] | None, now: list[str] | None, said: str):
    assert other_classes(before, now) == said


def test_a_file_of_equal_size_is_told_by_its_time_of_change(photos: Path):
    before = taken(photos)
    path = photos / "ant" / "0.png"
    content, earlier = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(earlier + 1, earlier + 1))
    now = taken(photos)
    assert other_images(before["images"], now["images"]) == {}
    assert fingerprint(now) == fingerprint(before)
    found = [
        split for split in ("training (ant/ 5)", "validation (ant/ 1)") if split == other_dates(before, now)
    ]
    assert len(found) == 1
    assert other_dates(now, now) == ""


def test_a_list_of_an_older_version_has_no_times_and_still_compares(photos: Path):
    now = taken(photos)
    older: Inventory = {"classes": now["classes"], "images": now["images"]}
    (photos / "ant" / "0.png").touch()
    assert other_dates(older, taken(photos)) == ""
    assert fingerprint(older) == fingerprint(now)
    assert validate(json.loads(json.dumps(older)), Inventory)["images"]["training"].keys() == {"ant", "bee"}
