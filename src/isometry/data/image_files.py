"""Images that are files of their own, with their classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from isometry.data.decoding import open_image
from isometry.data.image_formats import read_bytes
from isometry.errors import printable


class ImageFiles:
    """Image files by number; ``files`` are (path, label), and ``class_to_idx`` is empty without classes."""

    def __init__(self, files: Sequence[tuple[str, int]], class_to_idx: Mapping[str, int]) -> None:
        self.files, self.class_to_idx = files, class_to_idx

    def __len__(self) -> int:
        return len(self.files)

    def load(self, number: int) -> tuple[Image.Image, int]:
        """Image and label; raises one of ``splits.DECODE_ERRORS``."""
        path, label = self.files[number]
        return open_image(read_bytes(path)), label

    def where(self, number: int) -> str:
        """The image's path, printable."""
        return printable(self.files[number][0])

    def labels(self) -> list[int]:
        """The labels of all images."""
        return [label for _, label in self.files]


def natural_order(name: str) -> tuple[Any, ...]:
    """Sorts as timm does, by words and numbers without regard to case; names that differ in case or in zeros only have
    an order too, the same in every process."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Class name -> index, in natural order."""
    return {name: index for index, name in enumerate(sorted(set(names), key=natural_order))}
