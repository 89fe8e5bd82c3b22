"""The dense network from which a pruned one was made."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec, student_spec
from isometry.prune.cutting import widths
from isometry.prune.gates import gated_convs


class Unpruned(NamedTuple):
    """A network before pruning, and a note if its weights are random."""

    network: nn.Module
    note: str = ""


def before_pruning(network: nn.Module, student: Path, config: RunConfig | None) -> Unpruned | None:
    """The network before pruning; None for a network that was not pruned.

    It has its former weights if they are still available, else random ones, with a note.

    Args:
        network: with gates, or with channels cut, or neither.
        student: the folder that it is saved in, whose config.json names its architecture.
        config: of the run that pruned it, if known.
    """
    plain, _ = build_model(ModelSpec(f"local-dir:{student}"), flag="bench")
    if not gated_convs(network) and widths(network) == widths(plain):
        return None
    if config is None:
        return Unpruned(plain, _random("there is no config.yaml of the run that pruned it"))
    if config.prune.from_scratch:
        return Unpruned(plain, _random("the network was pruned from scratch"))
    try:
        trained, _ = build_model(
            replace(student_spec(config, config.prune), num_classes=None), flag="--model"
        )
    except UserError as error:
        return Unpruned(plain, _random(str(error)))
    if trained.num_classes != network.num_classes:
        return Unpruned(plain, _random(f"{config.model} has {trained.num_classes} classes"))
    return Unpruned(trained)


def _random(why: str) -> str:
    return f"dense: random weights, so no top-1 ({why})"
