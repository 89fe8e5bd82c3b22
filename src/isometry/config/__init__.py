"""The options of a run, with their defaults and help texts; names follow timm.

The command line overrides the YAML file of ``--config``, which overrides these defaults.
"""

from isometry.config.data import DataConfig
from isometry.config.methods import GrowConfig, PruneConfig
from isometry.config.networks import ModelConfig, Reduction, TapsConfig, TeacherConfig
from isometry.config.optim import OptimConfig
from isometry.config.ranges import RANGES, Range, out_of_range
from isometry.config.run import (
    ALIASES,
    FORMER_DEFAULTS,
    FREE_ON_RESUME,
    NOT_KEPT_ON_RESUME,
    ON_COMMAND_LINE_ONLY,
    RunConfig,
    canonical,
)

__all__ = [
    "ALIASES",
    "FORMER_DEFAULTS",
    "FREE_ON_RESUME",
    "NOT_KEPT_ON_RESUME",
    "ON_COMMAND_LINE_ONLY",
    "RANGES",
    "DataConfig",
    "GrowConfig",
    "ModelConfig",
    "OptimConfig",
    "PruneConfig",
    "Range",
    "Reduction",
    "RunConfig",
    "TapsConfig",
    "TeacherConfig",
    "canonical",
    "out_of_range",
]
