"""The run that transfers a finished network to a task: its network, and options that differ from other training."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from timm.models import get_model_args
from torch import nn

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.evaluation.saved_network import SavedNetwork
from isometry.models.spec import architecture
from isometry.prune.gates import gated_convs
from isometry.recipes import with_overrides

FINE_TUNING: dict[str, Any] = {
    "losses": {"ce": 1},
    "epochs": 30,
    "warmup_epochs": 3,
    "batch_size": 64,
    "lr": 3e-4,
    "weight_decay": 0.05,
    "smoothing": 0.1,
    "scale": [0.4, 1.0],
}
"""For classes: short, with a small rate and crops that keep most of the image."""

DENSE_TRAINING: dict[str, Any] = {
    "epochs": 30,
    "warmup_epochs": 2,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.05,
    "clip_grad": 1.0,
    "color_jitter": 0.2,
}
"""For boxes and masks, whose pyramid and head are new: a larger rate, and gradients that are clipped."""

WRITING = frozenset({"digits", "digit-scenes"})
"""Data sets whose images must not be mirrored."""

DENSE_OPTIONS = frozenset(
    {"task", "freeze", "out", "seed", "device", "log", "log_interval", "resume"}
    | {
        "model",
        "model_kwargs",
        "pretrained",
        "initial_checkpoint",
        "img_size",
        "in_chans",
        "drop",
        "drop_path",
    }
    | {
        "data_dir",
        "dataset",
        "val_fraction",
        "decode",
        "exif",
        "pixel_range",
        "skip_bad_images",
        "allow_commands",
    }
    | {"train_split", "val_split", "class_map", "dataset_download"}
    | {"batch_size", "validation_batch_size", "workers", "pin_mem"}
    | {"no_aug", "scale", "ratio", "hflip", "vflip", "color_jitter"}
    | {"epochs", "warmup_epochs", "opt", "opt_eps", "opt_betas", "momentum", "weight_decay", "clip_grad"}
    | {"lr", "lr_base", "lr_base_size", "sched", "min_lr", "warmup_lr"}
)
"""Options of a run that training for boxes and masks has; any other is refused."""


def transfer_config(
    saved: SavedNetwork,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    random_weights: bool = False,
) -> RunConfig:
    """The run that transfers a network.

    Args:
        saved: the network.
        given: options of a run by name, with ``task`` among them.
        overrides: more of them, as on a command line.
        random_weights: start from random weights of the network's architecture instead of its own.

    Raises:
        UserError: a network with gates; an unknown option or a value of another type; an option that the task lacks.
    """
    if gated_convs(saved.network):
        raise UserError(
            f"{saved.name} has gates, which can't be fine-tuned; give the network from before pruning"
        )
    task = given.get("task", "classify")
    defaults = dict(FINE_TUNING if task == "classify" else DENSE_TRAINING)
    if given.get("dataset") in WRITING:
        defaults["hflip"] = 0.0
    network = _random(saved.network) if random_weights else _trained(saved)
    config = with_overrides(RunConfig(**{**defaults, **network, **given}), overrides, "--overrides")
    if config.task != "classify":
        _refuse_others(config)
    return config


def _trained(saved: SavedNetwork) -> dict[str, Any]:
    if saved.folder is None:
        return {"model": saved.name, "pretrained": True}
    return {"model": f"local-dir:{saved.folder}"}


def _random(network: nn.Module) -> dict[str, Any]:
    arguments = {name: value for name, value in get_model_args(network).items() if name != "num_classes"}
    return {"model": architecture(network), "model_kwargs": arguments}


def _refuse_others(config: RunConfig) -> None:
    default = RunConfig()
    for name in (field.name for field in fields(RunConfig)):
        if name not in DENSE_OPTIONS and getattr(config, name) != getattr(default, name):
            raise UserError(f"--{name.replace('_', '-')}: is no option of --task {config.task}; leave it out")
