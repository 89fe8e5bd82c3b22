"""From whatever Pillow decodes to 8 bits a channel, grey or RGB, and nothing on the console on the way."""

import logging
import warnings

import numpy as np
from PIL import Image

DEEP_GREYS = ("I", "F")
"""How the names of the modes begin that have more than 8 bits a pixel, all of them grey."""

MOST_ELONGATED = 1000
"""Long side over short side. Evaluation scales the short side to the network's: a line of 60,000 pixels, a file of a
few hundred bytes, would become a picture of gigabytes."""


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """A decoded image in ``mode``, L or RGB, of 8 bits a channel.

    Greys of more bits are scaled by the range of their type, not of the image: 16 bits by 255/65535 (Pillow's mode I,
    which also holds 32 bits, is read as 16), floats (mode F) by 255, each rounded to the nearest. Pillow's own
    conversion would cut all of them off at 255. CMYK and palettes become the colours that they stand for. Alpha and
    transparent colours are left out, as timm does: a pixel is the colour that is stored for it. A rotation in EXIF
    data is not carried out, as in timm.

    Raises:
        ValueError: a mode that Pillow can't convert, values outside the range, or an image that is more than
            ``MOST_ELONGATED`` times as long as wide.
    """
    short, long = sorted(image.size)
    if long > MOST_ELONGATED * short:
        raise ValueError(f"of {image.width}×{image.height} pixels, too elongated to be scaled")
    if image.mode.startswith(DEEP_GREYS):
        image = _eight_bits(image)
    # Pillow would warn of it, or look for its place in the new mode.
    image.info.pop("transparency", None)
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    white = 1.0 if image.mode == "F" else 65535.0
    if not ((values >= 0) & (values <= white)).all():  # NaN is not either
        raise ValueError(f"its grey values leave 0 to {white:g}, which white is taken to be")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def quiet_decoders() -> None:
    """Keeps what Pillow has to say of metadata, and of large images below its limit, off this process's console."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
