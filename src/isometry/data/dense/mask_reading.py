"""Reads a mask: a picture of one channel with the class of each pixel, indexed (the index in the palette is the class)
or grey.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from isometry.data.decoding import decode_errors
from isometry.data.dense.annotations import IGNORED
from isometry.data.image_formats import open_picture, read_bytes
from isometry.data.image_modes import check_size
from isometry.data.orientation import Turn

INDEXED = ("P", "L", "1", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of masks; all have one channel."""
LOSSY = ("JPEG", "MPO")
"""Formats of one channel whose greys are not those that were saved."""
CHUNK = 2**20
"""Pixels of a mask that are counted at a time."""


def check_mask(image: Image.Image) -> None:
    """Checks the header of a mask.

    Raises:
        ValueError: too many pixels, a JPEG, or more than one channel.
    """
    check_size(image)
    if image.format in LOSSY or image.info.get("compression") == "jpeg":
        raise ValueError("is a JPEG, which changes the values; save the masks as PNG, from their source")
    if image.mode not in INDEXED:
        raise ValueError(
            f"is of mode {image.mode}, not of one channel; write the class of each pixel as a grey or an index, as "
            "docs/transfer.md shows"
        )


def read_mask(path: str, turn: Turn | None = None) -> np.ndarray:
    """The class of each pixel, uint8 (H,W), perhaps turned.

    Raises:
        DecodeError: no file or no picture that can be decoded, as :func:`check_mask`, or a value above 255.
    """
    with decode_errors(), open_picture(read_bytes(path)) as image:
        check_mask(image)
        image.load()
        turned = image if turn is None else image.transpose(turn)
        values = np.asarray(turned)
        if values.max(initial=0) > IGNORED or values.min(initial=0) < 0:
            raise ValueError(f"has values of {values.min()} to {values.max()}, not all in 0 to {IGNORED}")
        return values.astype(np.uint8)


def values_in(mask: np.ndarray) -> set[int]:
    """The values of a mask, uint8 (H,W); counted by rows, since the counts of a pixel take eight bytes."""
    counts = np.zeros(256, np.int64)
    rows = max(1, CHUNK // max(1, mask.shape[1]))
    for start in range(0, len(mask), rows):
        counts += np.bincount(mask[start : start + rows].ravel(), minlength=256)
    return set(np.flatnonzero(counts).tolist())


def ranges(values: Sequence[int]) -> str:
    """Increasing numbers as text: ``0, 2-5 and 9``."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    texts = [
        str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)
    ]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
