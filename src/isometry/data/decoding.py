"""Opens image files; JPEGs much larger than needed are decoded at a reduced scale, after the crop was drawn."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from isometry.data.image_formats import open_picture, readable
from isometry.data.image_modes import check_size, to_mode
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


class DecodeError(Exception):
    """An image can't be decoded; the message says why, without the image's path."""


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


def in_mode(image: Image.Image, mode: str, *, full: bool) -> Image.Image:
    """The image in ``mode`` (see :func:`isometry.data.image_modes.to_mode`), ready for a transform.

    Without ``full``, a JPEG that is not decoded yet becomes a :class:`JpegRegion`.

    Raises:
        DecodeError: the image can't be decoded or converted.
    """
    with decode_errors():
        check_size(image)
        if full or not isinstance(image, JpegImageFile) or not image.tile:  # no tile: it is decoded
            return to_mode(image, mode)
        return JpegRegion(_JpegFile(image), mode, (0, 0, *image.size))


class JpegRegion(Image.Image):
    """Part of a JPEG file that is decoded when it is resized, at the smallest DCT scale that is large enough.

    A transform crops and resizes it like any other image, so it draws the same crop. The scales are 1/8, 1/4, 1/2 and
    1; the reduced region has at least ``MARGIN`` times the result's width and height. The box is divided by the scale
    and not rounded: over crops of photographs, pixels differ from full decoding by less than 1 of 255 in the mean.
    At scale 1, and if anything else is done with the image first, they are the same.
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
        corners = [corner / scale for corner in self._box]
        with decode_errors():
            image = self._file.decode(scale)
            left, top = math.floor(corners[0]), math.floor(corners[1])
            right, bottom = (min(math.ceil(corners[2 + axis]), image.size[axis]) for axis in range(2))
            image = to_mode(image.crop((left, top, right, bottom)), self.mode)
        if scale == 1:
            return image.resize(size, resample, None, reducing_gap)
        inner = (
            corners[0] - left,
            corners[1] - top,
            min(corners[2], right) - left,
            min(corners[3], bottom) - top,
        )
        return image.resize(size, resample, inner, reducing_gap)

    def load(self) -> Any:
        """Decodes the whole region at scale 1."""
        if not self._decoded:
            with decode_errors():
                self.im = to_mode(self._file.decode(1).crop(self._box), self.mode).im
            self._decoded = True
        return super().load()


class _JpegFile:
    """An opened JPEG that can be decoded more than once, though Pillow's own file objects can't."""

    def __init__(self, image: JpegImageFile) -> None:
        self._opened: ImageFile | None = image
        self._stream: Any = image.fp

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


def _inside(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box of whole pixels lies inside an image; outside of it, crops are padded."""
    whole = all(isinstance(corner, int) for corner in box)
    return whole and 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def _scale(region: tuple[int, int], result: tuple[int, int]) -> int:
    enough = min(have / (MARGIN * wanted) for have, wanted in zip(region, result, strict=True))
    return next((scale for scale in (8, 4, 2) if scale <= enough), 1)
