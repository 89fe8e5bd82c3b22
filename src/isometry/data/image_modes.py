"""Converts any decoded PIL image to 8-bit grey or RGB, without console output."""

import logging
import warnings

import numpy as np
from PIL import Image

DEEP_GREYS = ("I", "F")
"""Prefixes of Pillow's modes with more than 8 bits a channel; all are grey."""

MOST_ELONGATED = 1000
"""Largest allowed aspect ratio. Evaluation scales the short side to the network's size: a line of 60,000 pixels, a
file of a few hundred bytes, would become an image of gigabytes."""


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts a decoded image to ``mode``, L or RGB, 8 bits a channel.

    Grey images of more bits are scaled by the range of their type, not of the image: 16 bits by 255/65535 (mode I,
    which may hold 32 bits, is read as 16), floats (mode F) by 255, rounded to the nearest. Pillow's own conversion
    would clip them at 255. CMYK and palettes are converted to their colours. Alpha is dropped and EXIF rotation is
    ignored, as in timm.

    Raises:
        ValueError: a mode that Pillow can't convert, or values outside the range.
    """
    if image.mode.startswith(DEEP_GREYS):
        image = _eight_bits(image)
    # Pillow would warn about it, or try to convert it to the new mode.
    image.info.pop("transparency", None)
    image.load()
    # convert would copy an image that has the mode.
    return image if image.mode == mode else image.convert(mode)


def check_size(image: Image.Image) -> None:
    """Raises ValueError for an aspect ratio above ``MOST_ELONGATED``."""
    short, long = sorted(image.size)
    if long > MOST_ELONGATED * short:
        raise ValueError(f"of {image.width}×{image.height} pixels, an aspect ratio too large to be resized")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    white = 1.0 if image.mode == "F" else 65535.0
    if not ((values >= 0) & (values <= white)).all():  # NaN is not either
        raise ValueError(f"its grey values are outside 0 to {white:g}, where {white:g} is white")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def quiet_decoders() -> None:
    """Silences Pillow's warnings about metadata and about large images below its limit."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
