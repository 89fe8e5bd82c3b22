"""What images a network wants: size, normalisation, interpolation and crop."""

from dataclasses import dataclass
from typing import Any, Self

from timm.data import resolve_data_config


@dataclass(frozen=True)
class ImageSpec:
    """The images a network wants, in the words of timm's ``pretrained_cfg``; ``mean`` and ``std`` in 0..1."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    @classmethod
    def from_pretrained_cfg(cls, cfg: dict[str, Any], img_size: int | None = None) -> Self:
        """The spec in a model's ``pretrained_cfg``, at ``img_size`` instead of its own where one is given.

        timm keeps three values of mean and std for a network of one channel too: their average is taken then.
        """
        channels, height, width = cfg.get("input_size") or (3, 224, 224)
        size = (channels, img_size or height, img_size or width)
        resolved = resolve_data_config({"input_size": size}, pretrained_cfg=cfg)
        return cls(
            input_size=size,
            mean=_per_channel(resolved["mean"], channels),
            std=_per_channel(resolved["std"], channels),
            interpolation=resolved["interpolation"],
            crop_pct=resolved["crop_pct"],
            crop_mode=resolved["crop_mode"],
        )


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
