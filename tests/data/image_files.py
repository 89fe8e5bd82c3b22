"""Real image files, made on the spot."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from isometry.config import DataConfig
from isometry.data import ImageSpec

RGB16 = ImageSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct=1.0)
GREY8 = ImageSpec((1, 8, 8), (0.5,), (0.25,), crop_pct=1.0)

DIGITS = DataConfig(dataset="digits", workers=0, batch_size=100, aa="rand-m9-mstd0.5-inc1")
"""All three global generators are drawn from: Python's, NumPy's, and torch's (the flip)."""


def write_image(path: Path, seed: int = 0) -> Path:
    """A PNG or JPEG of 20×24 random pixels, by the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(folder: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    """One folder per class with so many images."""
    for label, (name, count) in enumerate(classes.items()):
        for number in range(count):
            write_image(folder / name / f"{number}{suffix}", seed=100 * label + number)
    return folder


def truncate(path: Path) -> Path:
    """Cuts a file in half, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def folder_config(data_dir: Path, **overrides: Any) -> DataConfig:
    """The configuration of a small image folder."""
    return DataConfig(**{"data_dir": str(data_dir), "workers": 0, "batch_size": 4, **overrides})
