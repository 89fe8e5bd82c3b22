"""Sizes and orientations of picture files, by their headers, before training begins."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image

from isometry.data.decoding import DecodeError, decode_errors
from isometry.data.image_formats import open_picture
from isometry.data.image_modes import check_size
from isometry.data.orientation import INVERSE, Turn, turn_of, turned_size
from isometry.files import check_regular

Size = tuple[int, int]
"""Width and height."""

TAKEN_AS_UPRIGHT = (
    "pictures with an EXIF orientation (their {} are taken to be of the upright picture, since no size tells; if they "
    "are of the stored one, remove the orientation: exiftool -Orientation= FILE)"
)
"""What is said of boxes or masks where :meth:`Picture.hides_turn`."""


@dataclass(frozen=True)
class Picture:
    """A file: its ``size`` as stored, what turns it ``upright`` (None: nothing), or the ``fault`` for which it can't be
    read."""

    path: str
    size: Size = (0, 0)
    upright: Turn | None = None
    fault: str = ""

    def read_size(self, upright: bool) -> Size:
        """Its size as it is read: turned upright, or as stored."""
        return turned_size(self.size, self.upright) if upright else self.size

    def hides_turn(self, annotated: Size | None) -> bool:
        """Whether the size that an annotation gives, or None, does not tell if it is of the picture as stored or
        upright."""
        return self.upright is not None and (
            annotated is None or turned_size(self.size, self.upright) == self.size
        )

    def turn_for(self, annotated: Size | None, upright: bool) -> Turn | None:
        """What turns an annotation of the picture along with it, None where nothing does.

        Annotations are of the upright picture, as browsers and most viewers show it; unless the size that they give,
        or that of a mask, is that of the picture as stored and no other.
        """
        if self.upright is None:
            return None
        as_stored = annotated == self.size != turned_size(self.size, self.upright)
        if as_stored == (not upright):
            return None
        return self.upright if upright else INVERSE.get(self.upright, self.upright)


def look(paths: Sequence[str], check: Callable[[Image.Image], None] = check_size) -> list[Picture]:
    """The headers of all files, read by threads; of a file that can't be read, or that ``check`` refuses, its fault."""
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(partial(_look, check=check), paths))


def _look(path: str, check: Callable[[Image.Image], None]) -> Picture:
    try:
        with decode_errors():
            check_regular(os.stat(path))
            with open(path, "rb") as stream, open_picture(stream) as image:
                check(image)
                return Picture(path, image.size, turn_of(image))
    except DecodeError as error:
        return Picture(path, fault=str(error))
