"""Folders of pictures with masks, whose classes can be told by their colours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from isometry.data.dense.annotations import IGNORED

COLOURS = np.array([[30, 30, 30], [220, 60, 60], [60, 60, 220]], dtype=np.uint8)
SIDE = 40


def write_masks(folder: Path, images: Mapping[str, int], squares: int = 4) -> None:
    """Pictures in ``squares`` × ``squares`` squares, whose class, 0 to 2, is their colour; a corner is ignored."""
    random, size = np.random.default_rng(3), SIDE // squares
    for split, count in images.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            mask = (
                random.integers(0, 3, size=(squares, squares))
                .astype(np.uint8)
                .repeat(size, 0)
                .repeat(size, 1)
            )
            picture = COLOURS[mask] + random.integers(-20, 20, size=(SIDE, SIDE, 3))
            mask[-10:, -10:] = IGNORED
            pixels = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
            pixels.save(folder / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number}.png")
