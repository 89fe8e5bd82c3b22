"""Validation metrics of an epoch."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy
from isometry.models.sharding import in_step, is_sharded
from isometry.training.objective import Objective
from isometry.training.parallelize import uncompiled


def validate(
    objective: Objective,
    batches: Callable[[], Iterable[Batch]],
    labelled: bool,
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    """Metrics of an epoch: ``val/...`` of the student and ``val_ema/...`` of its moving average, if there is one.

    Without labels: the objective's loss.
    """
    if not labelled:
        figures = objective_loss(objective, batches(), preprocess, world, autocast)
        return {f"val/{name}": value for name, value in figures.items()}
    row: dict[str, float] = {}
    for prefix, ema in (("val", False), ("val_ema", True)):
        if ema and not objective.has_ema():
            continue
        model = objective.get_eval_model(ema=ema)
        figures = accuracy(model, batches(), preprocess, world, autocast)
        row |= {f"{prefix}/{name}": value for name, value in figures.items()}
    return row


def score_of(row: Mapping[str, float]) -> float:
    """Score of an epoch, larger is better: top-1 (of the EMA, if any), else minus the loss, else the epoch."""
    for key in ("val_ema/top1", "val/top1"):
        if key in row:
            return row[key]
    return -row["val/loss"] if "val/loss" in row else float(row["epoch"])


@torch.no_grad()
def objective_loss(
    objective: Objective,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    """``loss`` of the objective on data without labels, averaged over images."""
    was_training = objective.training
    objective.eval()
    teacher = objective.teacher
    if teacher is not None and is_sharded(teacher.model):
        batches = in_step(
            batches, world, partial(objective.teacher_output, teacher.adapter.blank(world.device))
        )
    total, images_seen = 0.0, 0
    with uncompiled():
        for batch in batches:
            images, labels = preprocess.normalise(batch)
            with autocast():
                total += float(objective(images, labels)["loss"]) * len(batch)
            images_seen += len(batch)
    objective.train(was_training)
    total, count = world.sum([total, float(images_seen)])
    return {"loss": total / count}
