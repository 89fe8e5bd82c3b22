"""Converts any decoded PIL image to 8-bit grey or RGB, without console output."""

import logging
import math
import warnings

import numpy as np
from PIL import Image

DEEP_GREYS = ("I", "F")
"""Prefixes of Pillow's modes with more than 8 bits a channel; all are grey."""

Greys = tuple[float, float]
"""The values of black and white."""

MOST_ELONGATED = 1000
"""Largest allowed aspect ratio. Evaluation scales the short side to the network's size: a line of 60,000 pixels, a
file of a few hundred bytes, would become an image of gigabytes."""


def to_mode(image: Image.Image, mode: str, greys: Greys | None = None) -> Image.Image:
    """Converts a decoded image to ``mode``, L or RGB, 8 bits a channel.

    Grey images of more bits are scaled: the values ``greys`` become 0 and 255, and what lies outside is clipped.
    Without them the range is that of the type, not of the image: 0 to 65535 for integers (mode I, which may hold 32
    bits, is read as 16), 0 to 1 for floats (mode F). Pillow's own conversion would clip them at 255. Results are
    rounded to the nearest. CMYK and palettes are converted to their colours. Alpha is dropped, as in timm.

    Raises:
        ValueError: a mode that Pillow can't convert, values outside the type's range, or pixels that are no numbers.
    """
    if is_deep(image):
        image = _eight_bits(image, greys)
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


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels are greys of more than 8 bits."""
    return image.mode.startswith(DEEP_GREYS)


def white_of(image: Image.Image) -> float:
    """The value of white in the type of a deep grey image."""
    return 1.0 if image.mode == "F" else 65535.0


def grey_range(text: str | None) -> Greys | None:
    """``LOW,HIGH`` as two numbers; None without text.

    Raises:
        ValueError: anything else.
    """
    if text is None:
        return None
    low, high = map(float, text.split(","))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(text)
    return low, high


def _eight_bits(image: Image.Image, greys: Greys | None) -> Image.Image:
    values, white = np.asarray(image), white_of(image)
    if broken := values.size - np.count_nonzero(np.isfinite(values)):
        raise ValueError(f"{broken:,} of its {values.size:,} pixels are NaN or infinite")
    if greys is not None:
        low, high = greys
        scaled = (values.astype(np.float64).clip(low, high) - low) * (255 / (high - low))
    elif ((values >= 0) & (values <= white)).all():
        scaled = values * (255 / white)
    else:
        raise ValueError(
            f"its grey values are {values.min():g} to {values.max():g}, outside 0 to {white:g}, where {white:g} is "
            "white; if they are right, give theirs with --pixel-range LOW,HIGH"
        )
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def quiet_decoders() -> None:
    """Silences Pillow's warnings about metadata and about large images below its limit."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
