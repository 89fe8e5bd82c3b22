"""The images that a network expects: size, normalisation, interpolation and crop."""

from dataclasses import dataclass
from typing import Any, Self

from timm.data import resolve_data_config

from isometry.data.option_checks import CROP_SHARES, INTERPOLATIONS
from isometry.errors import UserError

CROP_MODES = ("center", "squash", "border")
LARGEST = 1e6
"""Most of mean, std and 1 / std, whose images are in 0..1."""


@dataclass(frozen=True)
class ImageSpec:
    """The images that a network expects, named as in timm's ``pretrained_cfg``; ``mean`` and ``std`` in 0..1."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    @classmethod
    def from_pretrained_cfg(cls, cfg: dict[str, Any], img_size: int | None = None) -> Self:
        """The spec in a model's ``pretrained_cfg``, at ``img_size`` where it is given.

        timm keeps three values of mean and std even for a network of another number of channels: their average is used.

        Raises:
            UserError: an invalid value; the config.json of a saved network may hold anything.
        """
        channels, height, width = cfg.get("input_size") or (3, 224, 224)
        size = (channels, img_size or height, img_size or width)
        resolved = resolve_data_config({"input_size": size}, pretrained_cfg=cfg)
        # timm replaces an empty or zero value by its default, as if there were none.
        _check(resolved | {name: cfg[name] for name in resolved if cfg.get(name) is not None}, channels)
        return cls(
            input_size=size,
            mean=_per_channel(resolved["mean"], channels),
            std=_per_channel(resolved["std"], channels),
            interpolation=resolved["interpolation"],
            crop_pct=resolved["crop_pct"],
            crop_mode=resolved["crop_mode"],
        )


def _check(values: dict[str, Any], channels: int) -> None:
    least, most = CROP_SHARES
    rules = {
        "mean": _are_numbers(values["mean"], channels, -LARGEST, LARGEST),
        "std": _are_numbers(values["std"], channels, 1 / LARGEST, LARGEST),
        "crop_pct": _is_number(values["crop_pct"], least, most),
        "crop_mode": values["crop_mode"] in CROP_MODES,
        "interpolation": values["interpolation"] in INTERPOLATIONS,
    }
    for name, holds in rules.items():
        if not holds:
            raise UserError(
                f"the model's config.json has the invalid {name} {values[name]!r:.60}: correct it there"
            )


def _are_numbers(values: Any, channels: int, least: float, most: float) -> bool:
    """Whether there is a number for each channel, or for each of timm's three."""
    if not isinstance(values, list | tuple) or len(values) not in (channels, 3):
        return False
    return all(_is_number(value, least, most) for value in values)


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value <= most


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
