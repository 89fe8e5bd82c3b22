"""How well a model does on a part of the data."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.evaluation.accuracy import _blank, accuracy
from isometry.models.sharding import in_step, is_sharded
from isometry.training.objective import Objective


def validate(
    objective: Objective,
    batches: Callable[[], Iterable[Batch]],
    labelled: bool,
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    """An epoch's figures: ``val/...`` of the student and ``val_ema/...`` of its moving average, if there is one.

    Without labels: the objective's own loss.
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
    """Larger is better: top-1 (of the moving average, if any), else minus the loss, else the latest epoch."""
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
    """The objective's own loss on data without labels, averaged over images; ``loss`` alone."""
    was_training = objective.training
    objective.eval()
    if is_sharded(objective.teacher):
        assert objective.teacher_view is not None
        blank = _blank(objective.teacher_view, world)
        batches = in_step(batches, world, partial(objective.ask_teacher, blank))
    total, images_seen = 0.0, 0
    for batch in batches:
        images, labels = preprocess.normalise(batch)
        with autocast():
            total += float(objective(images, labels)["loss"]) * len(batch)
        images_seen += len(batch)
    objective.train(was_training)
    total, count = world.sum([total, float(images_seen)])
    return {"loss": total / count}
