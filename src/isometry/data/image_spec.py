"""The images that a network expects: size, normalisation, interpolation and crop."""

import math
from dataclasses import dataclass
from typing import Any, Self

from timm.data import resolve_data_config

from isometry.data.option_checks import CROP_SHARES, INTERPOLATIONS
from isometry.errors import UserError


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

        timm keeps three values of mean and std even for a one-channel network: their average is used.

        Raises:
            UserError: an invalid value; the config.json of a saved network may hold anything.
        """
        channels, height, width = cfg.get("input_size") or (3, 224, 224)
        size = (channels, img_size or height, img_size or width)
        resolved = resolve_data_config({"input_size": size}, pretrained_cfg=cfg)
        _check(resolved)
        return cls(
            input_size=size,
            mean=_per_channel(resolved["mean"], channels),
            std=_per_channel(resolved["std"], channels),
            interpolation=resolved["interpolation"],
            crop_pct=resolved["crop_pct"],
            crop_mode=resolved["crop_mode"],
        )


def _check(resolved: dict[str, Any]) -> None:
    least, most = CROP_SHARES
    rules = {
        "mean": _are_numbers(resolved["mean"], above=-math.inf),
        "std": _are_numbers(resolved["std"], above=0),
        "crop_pct": _are_numbers([resolved["crop_pct"]], above=0) and least <= resolved["crop_pct"] <= most,
        "interpolation": resolved["interpolation"] in INTERPOLATIONS,
    }
    for name, holds in rules.items():
        if not holds:
            raise UserError(
                f"the model's config.json has the invalid {name} {resolved[name]!r:.60}: correct it there"
            )


def _are_numbers(values: Any, above: float) -> bool:
    if not isinstance(values, list | tuple) or not values:
        return False
    return all(isinstance(value, int | float) and above < value < math.inf for value in values)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
