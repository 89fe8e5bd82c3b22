"""A pruned network as it was before that."""

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


class Before(NamedTuple):
    """A network as it was before it was pruned, and what is to be said of its weights where they are random."""

    network: nn.Module
    note: str = ""


def before_pruning(network: nn.Module, student: Path, config: RunConfig | None) -> Before | None:
    """A pruned network as it was before that; None for one that is as its architecture has it, so was not pruned.

    It has the weights that it had, where they are still found, else random ones, which a note says.

    Args:
        network: with gates, or with channels cut, or neither.
        student: the folder that it is saved in, whose config.json names its architecture.
        config: of the run that pruned it, if there is one.
    """
    plain, _ = build_model(ModelSpec(f"local-dir:{student}"), flag="bench")
    if not gated_convs(network) and widths(network) == widths(plain):
        return None
    if config is None:
        return Before(plain, _random("no config.yaml says what it was"))
    if config.prune.from_scratch:
        return Before(plain, _random("the network was pruned from scratch"))
    try:
        trained, _ = build_model(replace(student_spec(config), num_classes=None), flag="--model")
    except UserError as error:
        return Before(plain, _random(str(error)))
    if trained.num_classes != network.num_classes:
        return Before(plain, _random(f"{config.model} has {trained.num_classes} classes"))
    return Before(trained)


def _random(why: str) -> str:
    return f"dense: random weights, so no top-1 ({why})"
