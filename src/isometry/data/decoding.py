"""Opens image files; JPEGs much larger than needed are decoded at a reduced scale, after the crop was drawn."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Self

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from isometry.config import DataConfig
from isometry.data.image_formats import open_picture, readable
from isometry.data.image_modes import Greys, check_size, grey_range, to_mode
from isometry.data.orientation import INVERSE, Corners, Turn, turn_of, turned_box, turned_size
from isometry.data.splits import DECODE_ERRORS
from isometry.errors import NO_HANDLES, UserError, lacks_handles, reason

MARGIN = 2
"""A reduced image has at least so many pixels, along each side, for each pixel of the result.

With 1 the result would be 1.1 to 1.3 times faster, but lose the finest detail: the resampling filter would have nothing
left to average.
"""

WHOLE_PIXELS = (Image.Resampling.NEAREST, Image.Resampling.BOX)
"""Filters that take pixels as a whole or not at all, for which reduced pixels are too coarse."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True)
class Reading:
    """How the pixels of a file are read.

    ``mode`` is L or RGB; ``upright`` turns images by their EXIF orientation; ``greys`` are black and white in images of
    more than 8 bits (None: the range of their type); ``full`` decodes JPEGs in full.
    """

    mode: str
    upright: bool = True
    greys: Greys | None = None
    full: bool = False

    @classmethod
    def of(cls, config: DataConfig, mode: str) -> Self:
        """What the options ask for."""
        return cls(mode, config.exif == "upright", grey_range(config.pixel_range), config.decode == "full")


class DecodeError(Exception):
    """An image can't be decoded; the message says why, without the image's path.

    ``subject`` names what can't be, such as ``the mask PATH``, where it is not the image itself.
    """

    def __init__(self, why: str, subject: str = "") -> None:
        super().__init__(why)
        self.subject = subject


@contextmanager
def decode_errors() -> Iterator[None]:
    """Turns whatever a decoder raises into a :class:`DecodeError`."""
    try:
        yield
    except DECODE_ERRORS as error:
        if lacks_handles(error):
            # The image may be fine: it must not be skipped.
            raise UserError(NO_HANDLES) from error
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"of no image format that is read ({', '.join(readable())})" if unknown else reason(error)
        raise DecodeError(why) from error


def open_image(file: IO[bytes]) -> Image.Image:
    """Opens an image; a JPEG is left undecoded and holds the file's bytes, so ``file`` may be closed."""
    image = open_picture(io.BytesIO(file.read()))
    if not isinstance(image, JpegImageFile):
        image.load()
    return image


def read_pixels(image: Image.Image, reading: Reading) -> Image.Image:
    """An opened image as ``reading`` asks for, ready for a transform.

    A JPEG that is not decoded yet, and need not be in full, becomes a :class:`JpegRegion`.

    Raises:
        DecodeError: the image can't be decoded or converted.
    """
    with decode_errors():
        check_size(image)
        turn = turn_of(image) if reading.upright else None
        if reading.full or not isinstance(image, JpegImageFile) or not image.tile:  # no tile: it is decoded
            return _turned(to_mode(image, reading.mode, reading.greys), turn)
        file = _JpegFile(image, turn)
        return JpegRegion(file, reading.mode, (0, 0, *turned_size(image.size, turn)))


class JpegRegion(Image.Image):
    """Part of a JPEG file that is decoded when it is resized, at the smallest DCT scale that is large enough.

    A transform crops and resizes it like any other image, so it draws the same crop. The scales are 1/8, 1/4, 1/2 and
    1; the reduced region has at least ``MARGIN`` times the result's width and height. The box is divided by the scale
    and not rounded: over crops of photographs, pixels differ from full decoding by less than 1 of 255 in the mean.
    At scale 1, and if anything else is done with the image first, they are the same. The box is one of the image as it
    is turned; only its pixels are ever turned.
    """

    def __init__(self, file: "_JpegFile", mode: str, box: Box) -> None:
        super().__init__()
        self._file, self._box, self._decoded = file, box, False
        self._mode, self._size = mode, (box[2] - box[0], box[3] - box[1])

    def crop(self, box: Any = None) -> Image.Image:
        """The part of the region inside ``box``, also undecoded."""
        if self._decoded or box is None or not _inside(box, self.size):
            return super().crop(box)
        left, top = self._box[:2]
        return JpegRegion(self._file, self.mode, (left + box[0], top + box[1], left + box[2], top + box[3]))

    def resize(
        self, size: Any, resample: Any = None, box: Any = None, reducing_gap: Any = None
    ) -> Image.Image:
        """Decodes the region at the scale that ``size`` needs, and resizes it."""
        if self._decoded or box is not None:
            return super().resize(size, resample, box, reducing_gap)
        scale = 1 if resample in WHOLE_PIXELS else _scale(self.size, size)
        turn, corners = self._file.turn, [corner / scale for corner in self._file.stored(self._box)]
        with decode_errors():
            image = self._file.decode(scale)
            left, top = math.floor(corners[0]), math.floor(corners[1])
            right, bottom = (min(math.ceil(corners[2 + axis]), image.size[axis]) for axis in range(2))
            image = to_mode(image.crop((left, top, right, bottom)), self.mode)
        if scale == 1:
            return _turned(image, turn).resize(size, resample, None, reducing_gap)
        inner = (
            corners[0] - left,
            corners[1] - top,
            min(corners[2], right) - left,
            min(corners[3], bottom) - top,
        )
        box = turned_box(inner, image.size, turn)
        return _turned(image, turn).resize(size, resample, box, reducing_gap)

    def load(self) -> Any:
        """Decodes the whole region at scale 1."""
        if not self._decoded:
            with decode_errors():
                part = self._file.decode(1).crop(self._file.stored(self._box))
                self.im = _turned(to_mode(part, self.mode), self._file.turn).im
            self._decoded = True
        return super().load()


class _JpegFile:
    """An opened JPEG that can be decoded more than once, though Pillow's own file objects can't."""

    def __init__(self, image: JpegImageFile, turn: Turn | None) -> None:
        self._opened: ImageFile | None = image
        self._stream: Any = image.fp
        self.turn, self._size = turn, turned_size(image.size, turn)

    def stored(self, box: Box) -> Corners:
        """Where a box of the turned image is in the image as it is stored."""
        return turned_box(box, self._size, self.turn and INVERSE.get(self.turn, self.turn))

    def decode(self, scale: int) -> Image.Image:
        """The image with its sides divided by ``scale``, rounded up."""
        image, self._opened = self._opened, None
        if image is None:
            self._stream.seek(0)
            image = open_picture(self._stream)
        if scale > 1:
            # Pillow takes the largest scale that gives so many pixels.
            image.draft(None, (image.width // scale, image.height // scale))
        image.load()
        return image


def _turned(image: Image.Image, turn: Turn | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _inside(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box of whole pixels lies inside an image; outside of it, crops are padded."""
    whole = all(isinstance(corner, int) for corner in box)
    return whole and 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def _scale(region: tuple[int, int], result: tuple[int, int]) -> int:
    enough = min(have / (MARGIN * wanted) for have, wanted in zip(region, result, strict=True))
    return next((scale for scale in (8, 4, 2) if scale <= enough), 1)
