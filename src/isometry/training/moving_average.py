"""The moving average of the weights: whether it can follow them, its evaluation, and when it is delivered."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from isometry.config import RunConfig
from isometry.grow.schedule import Stage
from isometry.report import formats

MOST_OF_THE_START = 0.1
"""Share of the first weights in an average above which it can't have followed the weights."""


def can_have_moved(config: RunConfig, steps: int) -> bool:
    """Whether a run has an average that is no longer near the first weights after so many steps: decay^steps ≤ 0.1.

    With ``--model-ema-warmup`` it forgets the first weights within a few steps.
    """
    follows = config.model_ema_warmup or config.model_ema_decay**steps <= MOST_OF_THE_START
    return config.model_ema and follows


def slow_average(config: RunConfig, last: Stage, steps_per_epoch: int) -> list[str]:
    """A note if the average at the end is still near the first weights (:func:`can_have_moved`).

    The steps are those of the last stage of growth, unless the average grows too.
    """
    steps = steps_per_epoch * (config.epochs if config.grow.ema == "grow" else last.epochs)
    if not config.model_ema or can_have_moved(config, steps):
        return []
    share = config.model_ema_decay**steps
    return [
        f"--model-ema-decay {config.model_ema_decay:g}: after {steps} steps the average is still {100 * share:.0f} % "
        "the first weights; give a smaller decay, or --model-ema-warmup"
    ]


@contextmanager
def averaged_weights(student: nn.Module, average: nn.Module) -> Iterator[None]:
    """Inside the block the student has the weights and buffers of its moving average."""
    weights, averages = student.state_dict(), average.state_dict()
    kept = {name: value.clone() for name, value in weights.items()}
    _copy(averages, weights)
    try:
        yield
    finally:
        _copy(kept, weights)


@torch.no_grad()
def _copy(source: Mapping[str, Any], to: Mapping[str, Any]) -> None:
    for name, value in to.items():
        value.copy_(source[name])


def delivered(row: Mapping[str, Any], averaged: bool) -> str:
    """Which weights of the best epoch are delivered, and why; ``row`` are its metrics.

    Of equals, or of what can't be compared, the weights are delivered only if the average can't have moved.
    """
    chosen, other = ("average", "weights") if averaged else ("weights", "average")
    keys = {"weights": "val/", "average": "val_ema/"}
    for name, text in (("top1", formats.top1), ("loss", _loss)):
        if all(key + name in row for key in keys.values()):
            figures = [text(row, keys[which]) for which in (chosen, other)]
            why = f": {figures[0]} on the validation split; the {other} {'have' if averaged else 'has'} {figures[1]}"
            equal = row[f"val/{name}"] == row[f"val_ema/{name}"]
            break
    else:
        why, equal = "; without a validation split they can't be compared", True
    if equal and not averaged:
        why += ", and the average is still near the first weights"
    epoch = f"of epoch {row['epoch']}"
    subject = f"is the moving average of the weights {epoch}"
    if not averaged:
        subject = f"are the weights {epoch}, not their moving average"
    return f"--model-ema: delivered {subject}{why}"


def _loss(row: Mapping[str, Any], split: str) -> str:
    return f"a loss of {row[f'{split}loss']:.4g}"
