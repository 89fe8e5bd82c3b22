"""Valid values of the data options, checked before anything is opened."""

from collections.abc import Callable
from typing import Any

from isometry.config import DataConfig, out_of_range
from isometry.data.image_modes import grey_range
from isometry.errors import UserError

INTERPOLATIONS = ("random", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")

EMBEDDED = ("digits", "digit-scenes")
"""Data sets that need no download."""

AUTO = "auto"
"""The ``--pixel-range`` that a run finds in a sample of its images."""

CROP_SHARES = (0.1, 2)
"""Smallest and largest crop_pct. timm's lie between 0.875 and 1.15; images are scaled by its inverse."""

CHOICES = {
    "train_crop_mode": ("rrc", "rkrc", "rkrr", "pad"),
    "remode": ("const", "rand", "pixel"),
    "mixup_mode": ("batch", "pair", "elem"),
    "train_interpolation": INTERPOLATIONS,
}

PAIRS = ("scale", "ratio")
"""Options of two numbers, the smaller first."""


def check_options(config: DataConfig) -> None:
    """Raises UserError for the first option with an invalid value."""
    if fault := out_of_range(config, DataConfig):
        raise UserError(fault)
    for name in PAIRS:
        _check(config, name, _is_pair, "two numbers, the smaller first")
    _check(config, "pixel_range", _is_range, "auto or LOW,HIGH, two numbers, the smaller first")
    for name, choices in CHOICES.items():
        _check(config, name, choices.__contains__, f"one of {', '.join(choices)}")
    if config.dataset in EMBEDDED or config.dataset.startswith("torch/"):
        _check(config, "class_map", lambda value: False, f"left out: {config.dataset} has its own classes")
    if config.dataset.startswith("tfds/"):
        _check(config, "pixel_range", lambda value: False, "left out: tfds/ converts images to 8 bits itself")


def _is_range(text: str) -> bool:
    try:
        return text == AUTO or grey_range(text) is not None
    except ValueError:
        return False


def _is_pair(values: list[float]) -> bool:
    return len(values) == 2 and values[0] <= values[1]


def _check(config: DataConfig, name: str, holds: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(config, name)
    if value is not None and not holds(value):
        raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")
