"""What an image of a dense task is annotated with: boxes of objects, or a mask with the class of each pixel.

Shapes: M boxes of an image of H×W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image

Task = Literal["detect", "segment"]
"""Boxes of objects and their classes, or the class of each pixel."""

IGNORED = 255
"""Value of a mask where no class is trained or judged."""


@dataclass(frozen=True)
class Boxes:
    """The M annotated objects of one image.

    ``xyxy`` float32 (M,4): left, top, right, bottom in pixels, where pixel (x, y) covers x..x+1, y..y+1; ``labels``
    int64 (M,), 0..K-1, without a class for the background; ``crowd`` bool (M,): a box around many objects, neither
    trained nor missed (COCO); ``areas`` float32 (M,) in pixels: COCO's ``area`` where given, else that of the box.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")  # numbers beyond float32 are infinite
    def of(
        cls,
        xyxy: object,
        labels: object,
        crowd: object = None,
        areas: object = None,
    ) -> Self:
        """Boxes from any sequences, perhaps empty; no crowds and the areas of the boxes where these are not given."""
        corners = np.asarray(xyxy, dtype=np.float32).reshape(-1, 4)
        classes = np.asarray(labels, dtype=np.int64).reshape(-1)
        crowds = np.zeros(len(corners), bool) if crowd is None else np.asarray(crowd, dtype=bool).reshape(-1)
        sides = corners[:, 2:] - corners[:, :2]
        sizes = sides.prod(1) if areas is None else np.asarray(areas, dtype=np.float32).reshape(-1)
        return cls(corners, classes, crowds, sizes)

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, which: np.ndarray) -> Self:
        """The boxes that a mask bool (M,), or numbers int (N,), choose."""
        return type(self)(self.xyxy[which], self.labels[which], self.crowd[which], self.areas[which])


Annotation = Boxes | np.ndarray
"""Boxes (detect), or a mask uint8 (H,W) with the class of each pixel, IGNORED where there is none (segment)."""


class DenseImages(Protocol):
    """Annotated images that can be decoded by number."""

    def __len__(self) -> int: ...

    def load(self, number: int) -> tuple[Image.Image, Annotation]:
        """An image, perhaps not decoded yet, and its annotation in pixels of the image as it will be read.

        Raises one of ``splits.DECODE_ERRORS``.
        """

    def where(self, number: int) -> str:
        """The image's path, or a description of where it is."""

    def boxes(self, number: int) -> Boxes | None:
        """The boxes of an image that are known without decoding it; None if they are not."""

    def annotation_id(self, number: int) -> str:
        """A text that differs where annotations differ, as far as that is known without decoding."""


@dataclass(frozen=True)
class DensePart:
    """The images ``numbers`` of ``images``."""

    images: DenseImages
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, number: int) -> tuple[Image.Image, Annotation]:
        """The part's ``number``-th image and its annotation; raises one of ``DECODE_ERRORS``."""
        return self.images.load(self.numbers[number])

    def where(self, number: int) -> str:
        """The path of the part's ``number``-th image, or a description of where it is."""
        return self.images.where(self.numbers[number])

    def boxes(self, number: int) -> Boxes | None:
        """The boxes of the part's ``number``-th image that are known without decoding it."""
        return self.images.boxes(self.numbers[number])

    def annotation_id(self, number: int) -> str:
        """The text of the part's ``number``-th image."""
        return self.images.annotation_id(self.numbers[number])
