"""The same scenes in every format that people have are the same data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isometry.config import DataConfig
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.digit_scenes import DIGIT_NAMES, MASK_NAMES, open_scenes
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError

COUNT = 12


def pictures(root: Path, task: str) -> dict[str, list[object]]:
    """The first scenes of training and validation as PNGs in images/train and images/val, and their annotations."""
    found: dict[str, list[object]] = {}
    for split, scenes in zip(("train", "val"), open_scenes(task)[0], strict=False):
        (root / "images" / split).mkdir(parents=True)
        for index in range(COUNT):
            image, annotation = scenes.load(index)
            image.save(root / "images" / split / f"{index}.png")
            found.setdefault(split, []).append(annotation)
    return found


def write_coco(root: Path) -> None:
    for split, all_boxes in pictures(root, "detect").items():
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 96} for n in range(COUNT)],
            "annotations": [
                {
                    "image_id": n,
                    "category_id": 10 * int(label) + 1,
                    "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])],
                }
                for n, boxes in enumerate(all_boxes)
                for box, label in zip(boxes.xyxy, boxes.labels, strict=True)
            ],
            "categories": [{"id": 10 * digit + 1, "name": str(digit)} for digit in range(10)],
        }
        (root / f"instances_{split}.json").write_text(json.dumps(content))


def write_yolo(root: Path) -> None:
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {DIGIT_NAMES}\n")
    for split, all_boxes in pictures(root, "detect").items():
        (root / "labels" / split).mkdir(parents=True)
        for n, boxes in enumerate(all_boxes):
            middle, sides = (
                (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 192,
                (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) / 96,
            )
            lines = [
                f"{label} {x:.8f} {y:.8f} {width:.8f} {height:.8f}"
                for label, (x, y), (width, height) in zip(boxes.labels, middle, sides, strict=True)
            ]
            (root / "labels" / split / f"{n}.txt").write_text("\n".join(lines))


def write_masks(root: Path) -> None:
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(MASK_NAMES))
    for split, masks in pictures(root, "segment").items():
        (root / "masks" / split).mkdir(parents=True)
        for n, mask in enumerate(masks):
            Image.fromarray(mask).save(root / "masks" / split / f"{n}.png")


def truths(sources: DenseSources) -> list[tuple[np.ndarray, object]]:
    parts = (sources.train, sources.val)
    loaded = [part.load(index) for part in parts for index in range(COUNT)]
    return [(np.array(image), annotation) for image, annotation in loaded]


FORMATS = {"coco": (write_coco, "detect"), "yolo": (write_yolo, "detect"), "masks": (write_masks, "segment")}


@pytest.mark.parametrize("kind", FORMATS)
def test_scenes_come_back_from_every_format(tmp_path, kind):
    write, task = FORMATS[kind]
    write(tmp_path)
    sources = find_dense_sources(DataConfig(data_dir=str(tmp_path)), task)
    embedded = find_dense_sources(DataConfig(dataset="digit-scenes"), task)
    assert sources.class_names == embedded.class_names
    assert (len(sources.train), len(sources.val), sources.test) == (COUNT, COUNT, None)
    for (image, annotation), (pixels, truth) in zip(truths(sources), truths(embedded), strict=True):
        np.testing.assert_array_equal(image, pixels)
        if isinstance(truth, Boxes):
            np.testing.assert_allclose(annotation.xyxy, truth.xyxy, atol=1e-4)
            np.testing.assert_allclose(annotation.areas, truth.areas, rtol=1e-4)
            np.testing.assert_array_equal(annotation.labels, truth.labels)
        else:
            np.testing.assert_array_equal(annotation, truth)


def test_masks_and_boxes_are_not_taken_for_each_other(tmp_path):
    write_coco(tmp_path / "boxes")
    write_masks(tmp_path / "masks")
    with pytest.raises(UserError, match="has no masks; give a folder"):
        find_dense_sources(DataConfig(data_dir=str(tmp_path / "boxes")), "segment")
    with pytest.raises(UserError, match="has no boxes; give a folder with COCO's"):
        find_dense_sources(DataConfig(data_dir=str(tmp_path / "masks")), "detect")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_no_data_and_no_such_folder_are_said(tmp_path, task):
    with pytest.raises(UserError, match="--data-dir: not given; give the folder of images"):
        find_dense_sources(DataConfig(), task)
    with pytest.raises(UserError, match="does not exist: check the path"):
        find_dense_sources(DataConfig(data_dir=str(tmp_path / "gone")), task)
    (tmp_path / "list.csv").write_text("path\n")
    with pytest.raises(UserError, match=r"boxes are in a .json file|has no masks"):
        find_dense_sources(DataConfig(data_dir=str(tmp_path / "list.csv")), task)


def test_other_names_of_splits_are_obeyed(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "instances_train.json").rename(tmp_path / "instances_mine.json")
    config = DataConfig(data_dir=str(tmp_path))
    with pytest.raises(UserError, match="has no train part; add the training images"):
        find_dense_sources(config, "detect")
    (tmp_path / "images/train").rename(tmp_path / "images/mine")
    sources = find_dense_sources(replace(config, train_split="mine"), "detect")
    assert (len(sources.train), len(sources.val)) == (COUNT, COUNT)
