"""What a dense task's data hold, counted by hand."""

from pathlib import Path

from helpers.dense_files import coco, write_coco, write_masks
from isometry.config import DataConfig
from isometry.data.dense.sources import find_dense_sources
from isometry.data.dense.summary import summary


def test_boxes_are_counted_by_class_and_size(tmp_path: Path) -> None:
    content = coco(4)
    content["annotations"] = [
        {"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 1024},
        {"id": 3, "image_id": 11, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 9216},
        {"id": 4, "image_id": 11, "category_id": 7, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        {"id": 5, "image_id": 11, "category_id": 3, "bbox": [70, 0, 10, 10]},
    ]
    for split in ("train", "val"):
        write_coco(tmp_path / f"{split}.json", content, tmp_path / "images")
    lines = summary(find_dense_sources(DataConfig(data_dir=str(tmp_path)), "detect"))
    assert dict(lines[1:3]) == {
        "Boxes": "3 in training (1 small, 1 medium, 1 large, by COCO's sizes); 2 images without any",
        "Classes": "smallest class 7 (1), largest class 3 (2), by training boxes",
    }
    assert "4 training, 4 validation images with boxes" in lines[0][1]
    assert [head for head, _ in lines] == ["Data", "Boxes", "Classes"]


def test_masks_are_not_counted(tmp_path: Path) -> None:
    sources = find_dense_sources(DataConfig(data_dir=str(write_masks(tmp_path))), "segment")
    assert [head for head, _ in summary(sources)] == ["Data"]
