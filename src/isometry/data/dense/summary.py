"""What a dense task's data hold, in a few lines: images by split, boxes by class and by size."""

from collections import Counter

import numpy as np

from isometry.data.dense.sources import DenseSources
from isometry.errors import printable

SMALL, LARGE = 32**2, 96**2
"""Areas in pixels below which COCO calls an object small, and from which on large; medium lies between."""


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
