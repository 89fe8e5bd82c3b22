"""The run that transfers a finished network to a task: its network, and options that differ from other training."""

from collections.abc import Mapping, Set
from dataclasses import fields
from typing import Any

from isometry.config import RunConfig, canonical
from isometry.data.dense.transforms import AREAS
from isometry.errors import UserError
from isometry.evaluation.saved_network import SavedNetwork, names_folder, open_folder
from isometry.models.dense.build import backbone_arguments
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
    "epochs": 12,
    "warmup_epochs": 1,
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.05,
    "clip_grad": 1.0,
    "color_jitter": 0.2,
    "scale": list(AREAS),
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
    | {"batch_size", "validation_batch_size", "workers", "pin_mem", "amp", "channels_last"}
    | {"no_aug", "scale", "ratio", "hflip", "vflip", "color_jitter"}
    | {"epochs", "warmup_epochs", "opt", "opt_eps", "opt_betas", "momentum", "weight_decay", "clip_grad"}
    | {"lr", "lr_base", "lr_base_size", "sched", "min_lr", "warmup_lr"}
)
"""Options of a run that training for boxes and masks has; any other is refused."""


def transfer_config(
    network: Mapping[str, Any],
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    where: str = "--overrides",
) -> RunConfig:
    """The run that transfers a network.

    Args:
        network: options of a run that name it, see :func:`saved_network` and :func:`named_network`.
        given: options of a run by name, with ``task`` among them if it is not to classify.
        overrides: more of them, as on a command line.
        where: those come from, for messages.

    Raises:
        UserError: an unknown option or a value of another type; an option that the task lacks.
    """
    task = given.get("task", "classify")
    defaults = dict(FINE_TUNING if task == "classify" else DENSE_TRAINING)
    if given.get("dataset") in WRITING:
        defaults["hflip"] = 0.0
    config = with_overrides(RunConfig(**{**defaults, **network, **given}), overrides, where)
    if config.task != "classify":
        _refuse_others(config, {canonical(str(name)).partition(".")[0] for name in overrides}, where)
    return config


def named_network(name: str, *, random_weights: bool = False) -> dict[str, Any]:
    """Options of a run that name the network in a folder, or timm's of that name.

    Args:
        name: as on the command line.
        random_weights: start from random weights of its architecture instead of its own.

    Raises:
        UserError: no such folder, or no whole network in it; as :func:`saved_network`.
    """
    if not names_folder(name):
        return {"model": name, "pretrained": not random_weights}
    saved = open_folder(name, command="transfer")
    found = saved_network(saved)
    if not random_weights:
        return found
    arguments = backbone_arguments(saved.network)
    arguments.pop("num_classes", None)
    return {"model": architecture(saved.network), "model_kwargs": arguments}


def saved_network(saved: SavedNetwork) -> dict[str, Any]:
    """Options of a run that name a network.

    Raises:
        UserError: it has gates.
    """
    if gated_convs(saved.network):
        raise UserError(
            f"{saved.name} has gates, which can't be fine-tuned; give the network from before pruning"
        )
    if saved.folder is None:
        return {"model": saved.name, "pretrained": True}
    return {"model": f"local-dir:{saved.folder}"}


def _refuse_others(config: RunConfig, overrides: Set[str], where: str) -> None:
    default = RunConfig()
    for name in (field.name for field in fields(RunConfig)):
        if name not in DENSE_OPTIONS and getattr(config, name) != getattr(default, name):
            option = f"{where}: {name}" if name in overrides else f"--{name.replace('_', '-')}"
            raise UserError(f"{option}: --task {config.task} has no such option; leave it out")
