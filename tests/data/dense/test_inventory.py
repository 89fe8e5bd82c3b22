"""Other annotations are other images, in every format; the same ones elsewhere are not."""

import shutil
from pathlib import Path

import pytest

from helpers.dense_files import coco, quarter_mask, write_coco, write_mask, write_masks, write_yolo
from isometry.config import DataConfig
from isometry.data.dense.inventory import dense_inventory
from isometry.data.dense.sources import find_dense_sources
from isometry.data.inventory import other_images


def taken(root: Path, task: str):
    return dense_inventory(find_dense_sources(DataConfig(data_dir=str(root)), task), str(root))


def write_both(root: Path, content) -> Path:
    for split in ("train", "val"):
        write_coco(root / f"{split}.json", content, root / "images")
    return root


def moved_box(root: Path) -> None:
    content = coco(4)
    content["annotations"][1]["bbox"] = [1, 0, 30, 20]
    write_coco(root / "val.json", content, root / "images")


def moved_line(root: Path) -> None:
    (root / "labels" / "val" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")


def another_mask(root: Path) -> None:
    mask = quarter_mask(value=1)
    mask[::3, ::2] = 2
    write_mask(root / "masks" / "val" / "0.png", mask)


@pytest.mark.parametrize(
    ("task", "write", "change"),
    [
        ("detect", lambda root: write_both(root, coco(4)), moved_box),
        ("detect", write_yolo, moved_line),
        ("segment", write_masks, another_mask),
    ],
    ids=["coco", "yolo", "masks"],
)
def test_changed_annotations_are_found(task, write, change, tmp_path):
    write(tmp_path / "data")
    before = taken(tmp_path / "data", task)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert other_images(before["images"], taken(tmp_path / "copy", task)["images"]) == {}
    change(tmp_path / "data")
    after = taken(tmp_path / "data", task)
    assert after["classes"] == before["classes"]
    assert set(other_images(before["images"], after["images"])) == {"validation"}


def test_scenes_have_an_inventory_too():
    sources = find_dense_sources(DataConfig(dataset="digit-scenes"), "detect")
    assert set(dense_inventory(sources, None)["images"]) == {"training", "validation", "test"}
