"""All options of a run, their aliases, and which of them may differ when a run resumes."""

from dataclasses import dataclass, field
from typing import Any, Literal

from isometry.config.data import DataConfig
from isometry.config.methods import GrowConfig, PruneConfig
from isometry.config.networks import ModelConfig, TeacherConfig
from isometry.config.optim import OptimConfig


@dataclass
class RunConfig(ModelConfig, TeacherConfig, DataConfig, OptimConfig):
    """Run; the resolved options are saved as `config.yaml` in its folder."""

    grow: GrowConfig = field(default_factory=GrowConfig)
    """Growth."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """Pruning."""
    task: Literal["classify", "detect", "segment"] = "classify"
    """Classes of images, boxes of objects, or the class of each pixel; `isometry transfer` trains for the last two."""
    out: str = ""
    """Output folder."""
    seed: int = 42
    """Random seed."""
    device: str = ""
    """cpu, cuda, cuda:1, ...; a GPU if available if not given."""
    log_interval: int = 50
    """Steps between logged losses; each logging synchronizes the device."""
    recovery_interval: int = 0
    """Steps between checkpoints within an epoch (0: only at the end of epochs)."""
    log: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    """Log scalars and the report's figures to tensorboard, wandb (Weights & Biases), or both."""
    resume: bool = False
    """Resume the run in --out."""
    data_changed: bool = False
    """With --resume, inside an epoch: go on though image files were added, removed or replaced."""


ALIASES = {
    "student": "model",
    "student_kwargs": "model_kwargs",
    "b": "batch_size",
    "j": "workers",
    "keep_rate": "prune.keep_rate",
    "compact": "prune.compact",
    "from_scratch": "prune.from_scratch",
}
"""Aliases of options, on the command line and in recipes."""

FREE_ON_RESUME = (
    frozenset({"resume", "out", "device", "workers", "pin_mem", "log_interval", "recovery_interval", "log"})
    | {"data_changed", "allow_commands", "trust_remote_code"}
    | {"skip_bad_images"}  # a run that has got so far has met none
    | {"teacher_shard", "teacher_cache", "teacher_cache_size", "grad_checkpointing"}
    | {"validation_batch_size"}
    | {"batch_size"}  # follows from the global batch size, which must not change
)
"""Options that do not change what a run computes, so they may differ when it resumes."""

NOT_KEPT_ON_RESUME = frozenset(
    {"resume", "data_changed", "allow_commands", "trust_remote_code", "out", "batch_size"}
)
"""Those of them that a run's ``config.yaml`` keeps as it began: of one command, or following from others."""

ON_COMMAND_LINE_ONLY = {"allow_commands": "data_dir", "trust_remote_code": "teacher"}
"""Permissions to start programs and to run code, each with the option that names them: no recipe and no saved run gives
one, nor a command line that does not name them itself."""

FORMER_DEFAULTS: dict[str, Any] = {"model_ema_warmup": False, "exif": "ignore"}
"""Defaults of an earlier version, which a run that it began keeps."""


def canonical(name: str) -> str:
    """The canonical name of an option: ``batch-size`` and ``b`` -> ``batch_size``, ``student`` -> ``model``."""
    head, dot, rest = name.partition(".")
    head = head.replace("-", "_")
    return ALIASES.get(head, head) + dot + rest
