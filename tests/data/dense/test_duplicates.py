"""Pictures that are in several splits, by their paths and by their content."""

from pathlib import Path

import pytest

from helpers.dense_files import coco, write_coco, write_picture, write_yolo
from isometry.config import DataConfig
from isometry.data.dense.duplicates import equal_pictures
from isometry.data.dense.sources import DenseSources, find_dense_sources


def opened(root: Path) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root)), "detect")


def coco_files(root: Path) -> Path:
    """0.png to 3.png are of training, 0.png and 1.png of validation, too."""
    write_coco(root / "train.json", coco(4), root / "images")
    write_coco(root / "val.json", coco(2), root / "images")
    return root


def yolo_lists(root: Path) -> Path:
    write_yolo(root)
    for split, numbers in (("train", range(4)), ("val", range(2))):
        lines = "".join(f"./images/train/{number}.png\n" for number in numbers)
        (root / f"{split}.txt").write_text(lines)
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    return root


@pytest.mark.parametrize("write", [coco_files, yolo_lists])
def test_files_that_two_splits_list_are_counted(tmp_path, write):
    sources = opened(write(tmp_path))
    (note,) = (note for note in sources.notes if "pictures in" in note)
    assert note.startswith("pictures in training and in validation (which scores too high by them;")
    assert note.partition(": ")[2] in ("2, e.g. images/0.png", "2, e.g. images/train/0.png")


def test_splits_with_files_of_their_own_share_none(tmp_path):
    assert opened(write_yolo(tmp_path)).notes == []
    train = coco_files(tmp_path / "one") / "train.json"
    assert not [note for note in opened(train).notes if "pictures in" in note]


def test_files_of_equal_content_are_found(tmp_path):
    root = write_yolo(tmp_path)
    for number, path in enumerate(sorted(root.glob("images/*/*.png"))):
        write_picture(path, (60, 40 + number))
    copied = root / "images/val/3.png"
    copied.write_bytes((root / "images/train/2.png").read_bytes())
    sources = opened(root)
    assert sources.val is not None
    found = equal_pictures({"train": sources.train, "val": sources.val})
    assert len(found.files) == 8
    ((one, other),) = found.duplicates_across("split")
    assert (Path(one.path), Path(other.path)) == (root / "images/train/2.png", copied)
    # The same file in two splits is no other file.
    assert equal_pictures({"train": sources.train, "val": sources.train}).duplicates == []
