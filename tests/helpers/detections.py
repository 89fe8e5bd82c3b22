"""Random detections and truths of pictures, and what pycocotools makes of them."""

import contextlib
import io

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ["zero", "one", "two", "never"]


def random_boxes(generator, count):
    corners = generator.uniform(0, 150, (count, 2))
    sides = generator.choice([8, 20, 60, 130], (count, 1)) * generator.uniform(0.8, 1.25, (count, 2))
    return torch.tensor(np.concatenate([corners, corners + sides], 1), dtype=torch.float32)


def random_truth(generator, count):
    boxes = random_boxes(generator, count)
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "boxes": boxes,
        "labels": torch.tensor(generator.integers(0, 3, count)),
        "crowd": torch.tensor(generator.random(count) < 0.2),
        # A mask's area, smaller than its box's: some objects count as small that their boxes would not.
        "area": sides.prod(1) * 0.7,
    }


def random_detections(generator, truth):
    """Boxes near those of the truth, some with another class, and some of nothing."""
    moved = truth["boxes"] + torch.tensor(generator.normal(0, 3, truth["boxes"].shape), dtype=torch.float32)
    boxes = torch.cat([moved, moved[::2] + 2, random_boxes(generator, int(generator.integers(0, 4)))])
    labels = torch.cat([truth["labels"], truth["labels"][::2]])
    labels = torch.cat([labels, torch.zeros(len(boxes) - len(labels), dtype=torch.int64)])
    changed = torch.tensor(generator.random(len(boxes)) < 0.2)
    labels = torch.where(changed, (labels + 1) % 3, labels)
    return {"boxes": boxes, "labels": labels, "scores": torch.tensor(generator.random(len(boxes))).float()}


def by_pycocotools(detections, truths):
    """The twelve figures of COCOeval; and AP, AP50 and AR@100 of each class; -1 without objects."""
    entries, results = [], []
    for image, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for box, label, crowd, area in zip(
            *(truth[k] for k in ("boxes", "labels", "crowd", "area")), strict=True
        ):
            x, y, right, bottom = box.tolist()
            entries.append({"id": len(entries) + 1, "image_id": image, "category_id": int(label), "area": float(area),
                            "bbox": [x, y, right - x, bottom - y], "iscrowd": int(crowd)})  # fmt: skip
        for box, label, score in zip(*(found[key] for key in ("boxes", "labels", "scores")), strict=True):
            x, y, right, bottom = box.tolist()
            results.append({"image_id": image, "category_id": int(label), "score": float(score),
                            "bbox": [x, y, right - x, bottom - y]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "annotations": entries,
            "categories": [{"id": index, "name": name} for index, name in enumerate(NAMES)],
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    precision, recall = judged.eval["precision"][:, :, :, 0, 2], judged.eval["recall"][:, :, 0, 2]
    by_class = [
        tuple(map(_mean, (precision[:, :, index], precision[0, :, index], recall[:, index])))
        for index in range(len(NAMES))
    ]
    return judged.stats, by_class


def _mean(values):
    return float(values[values > -1].mean()) if (values > -1).any() else -1
