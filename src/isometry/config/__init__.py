"""The options of a run, with their defaults and help texts; names follow timm.

The command line overrides the YAML file of ``--config``, which overrides these defaults.
"""

from isometry.config.data import DataConfig
from isometry.config.methods import GrowConfig, PruneConfig
from isometry.config.networks import ModelConfig, Reduction, TapsConfig, TeacherConfig
from isometry.config.optim import OptimConfig
from isometry.config.run import (
    ALIASES,
    FORMER_DEFAULTS,
    FREE_ON_RESUME,
    ON_COMMAND_LINE_ONLY,
    RunConfig,
    canonical,
)

__all__ = [
    "ALIASES",
    "FORMER_DEFAULTS",
    "FREE_ON_RESUME",
    "ON_COMMAND_LINE_ONLY",
    "DataConfig",
    "GrowConfig",
    "ModelConfig",
    "OptimConfig",
    "PruneConfig",
    "Reduction",
    "RunConfig",
    "TapsConfig",
    "TeacherConfig",
    "canonical",
]
