"""Valid values of the data options, checked before anything is opened."""

from collections.abc import Callable
from typing import Any

from isometry.config import DataConfig
from isometry.data.image_modes import grey_range
from isometry.errors import UserError

INTERPOLATIONS = ("random", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")

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

RANGES: dict[tuple[str, ...], tuple[Callable[[Any], bool], str]] = {
    ("batch_size", "validation_batch_size", "recount"): (lambda value: value >= 1, "at least 1"),
    ("workers", "aug_repeats", "color_jitter", "mixup", "cutmix"): (lambda value: value >= 0, "0 or more"),
    ("hflip", "vflip", "reprob", "mixup_prob", "mixup_switch_prob"): (
        lambda value: 0 <= value <= 1,
        "between 0 and 1",
    ),
    ("val_fraction",): (lambda value: 0 < value < 1, "between 0 and 1"),
    ("smoothing",): (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    ("crop_pct",): (
        lambda value: CROP_SHARES[0] <= value <= 1,
        f"between {CROP_SHARES[0]} and 1: images are scaled by its inverse",
    ),
    ("pixel_range",): (
        lambda value: value == AUTO or _is_range(value),
        "auto or LOW,HIGH, two numbers, the smaller first",
    ),
    ("scale", "ratio"): (
        lambda value: len(value) == 2 and 0 < value[0] <= value[1],
        "two positive numbers, the smaller first",
    ),
}


def check_options(config: DataConfig) -> None:
    """Raises UserError for the first option with an invalid value."""
    for names, (holds, wanted) in RANGES.items():
        for name in names:
            _check(config, name, holds, wanted)
    for name, choices in CHOICES.items():
        _check(config, name, choices.__contains__, f"one of {', '.join(choices)}")
    if config.dataset == "digits" or config.dataset.startswith("torch/"):
        _check(config, "class_map", lambda value: False, f"left out: {config.dataset} has its own classes")
    if config.dataset.startswith("tfds/"):
        _check(config, "pixel_range", lambda value: False, "left out: tfds/ converts images to 8 bits itself")


def _is_range(text: str) -> bool:
    try:
        return grey_range(text) is not None
    except ValueError:
        return False


def _check(config: DataConfig, name: str, holds: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(config, name)
    if value is not None and not holds(value):
        raise UserError(f"--{name.replace('_', '-')} is {value}: it must be {wanted}")
