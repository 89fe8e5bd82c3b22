"""What a dense task's data hold, in a few lines: images by split, boxes by class and by size."""

from collections import Counter

import numpy as np

from isometry.data.decoding import DecodeError, decode_errors
from isometry.data.dense.annotations import IGNORED, DenseImages
from isometry.data.dense.sources import DenseSources
from isometry.errors import printable

SMALL, LARGE = 32**2, 96**2
"""Areas in pixels below which COCO calls an object small, and from which on large; medium lies between."""


def class_counts(images: DenseImages) -> tuple[Counter[int], int]:
    """Boxes of each class, crowds left out, or pixels of each, those that are ignored left out; and how many images
    can't be read. Decodes every mask."""
    counts, unreadable = Counter[int](), 0
    for number in range(len(images)):
        boxes = images.boxes(number)
        if boxes is not None:
            counts.update(boxes.labels[~boxes.crowd].tolist())
            continue
        try:
            with decode_errors():
                mask = images.load(number)[1]
        except DecodeError:
            unreadable += 1
            continue
        labels, pixels = np.unique(np.asarray(mask), return_counts=True)
        counts.update(dict(zip(labels.tolist(), pixels.tolist(), strict=True)))
    counts.pop(IGNORED, None)
    return counts, unreadable


def summary(sources: DenseSources) -> list[tuple[str, str]]:
    """Lines for the terminal: what each is about, and what it says. Decodes no picture.

    Boxes are those of training, crowds left out, in pixels of the pictures; masks are not counted.
    """
    lines = [("Data", sources.description)]
    known = [sources.train.boxes(number) for number in range(len(sources.train))]
    boxes = [each.chosen(~each.crowd) for each in known if each is not None]
    if boxes:
        areas = np.concatenate([each.areas for each in boxes])
        counts = Counter(np.concatenate([each.labels for each in boxes]).tolist())
        ranked = sorted(range(len(sources.class_names)), key=lambda label: counts[label])
        smallest, largest = (
            f"{printable(sources.class_names[label])} ({counts[label]:,})"
            for label in (ranked[0], ranked[-1])
        )
        sizes = [(areas < SMALL).sum(), ((areas >= SMALL) & (areas < LARGE)).sum(), (areas >= LARGE).sum()]
        per_size = ", ".join(
            f"{count:,} {name}" for count, name in zip(sizes, ("small", "medium", "large"), strict=True)
        )
        empty = sum(not len(each) for each in boxes)
        lines += [
            (
                "Boxes",
                f"{len(areas):,} in training ({per_size}, by COCO's sizes); {empty:,} images without any",
            ),
            ("Classes", f"smallest {smallest}, largest {largest}, by training boxes"),
        ]
    return lines
