"""Options of growth and pruning."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class GrowConfig:
    """Growth: training starts with a smaller network that grows to the model's full size."""

    depth: str | list[Any] | None = None
    """Depth at each stage, up to the model's own: 6,12; for models with several stages 2-2-2-2,2-2-6-2."""
    width: str | list[Any] | None = None
    """Width at each stage, likewise: 384,768; channels of a ResNet: 32-64-128-256,64-128-256-512."""
    at: str | list[int] | None = None
    """First epoch of each stage, e.g. 0,150; stages of equal length if not given."""
    depth_operator: str = "insert"
    """How blocks are added; `isometry list operators` describes the choices."""
    width_operator: str = "duplicate"
    """How units are added, likewise."""
    optimizer: Literal["carry", "reset"] = "carry"
    """Carry the optimizer's state over with the weights, or reset it (as published)."""
    lr: Literal["continue", "restart"] = "continue"
    """Continue one learning rate schedule over the run, or restart it, with warm-up, at each stage."""
    weight_decay: Literal["constant", "depth"] = "constant"
    """Constant weight decay, or scaled by each stage's fraction of the full depth."""
    ema: Literal["restart", "grow"] = "restart"
    """Restart the EMA from the grown model, or grow it too."""

    @property
    def wanted(self) -> bool:
        """Whether the run grows."""
        return self.depth is not None or self.width is not None


@dataclass
class PruneConfig:
    """Channel pruning: by gates for each image, or for all images."""

    keep_rate: float | None = None
    """Fraction of each layer's channels kept for the average image at the end, above 0 and at most 1."""
    settle: float = 0.25
    """Final fraction of the epochs that trains at that keep rate; 0 as published."""
    method: Literal["gates", "l1"] = "gates"
    """Gates for each image (ManiDP), or the baseline: remove filters of small L1 norm before training."""
    group: int = 1
    """Number of neighbouring channels that share a gate."""
    compact: bool = False
    """Remove channels that no training image uses after training."""
    from_scratch: bool = False
    """Allow pruning of an untrained network."""

    @property
    def wanted(self) -> bool:
        """Whether the run prunes."""
        return self.keep_rate is not None
