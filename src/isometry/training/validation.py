"""Validation metrics of an epoch, and its score."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracies
from isometry.models.sharding import in_step, is_sharded
from isometry.training.moving_average import averaged_weights
from isometry.training.objective import Objective
from isometry.training.parallelize import uncompiled


def validate(
    objective: Objective,
    batches: Iterable[Batch],
    labelled: bool,
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    """Metrics of an epoch: ``val/...`` of the student and ``val_ema/...`` of its moving average, if there is one.

    Without labels: the objective's loss. The images are read once.
    """
    prefixes = ["val", "val_ema"] if objective.has_ema() else ["val"]
    if labelled:
        models = [objective.get_eval_model(ema=prefix == "val_ema") for prefix in prefixes]
        figures = accuracies(models, batches, preprocess, world, autocast)
    else:
        figures = objective_losses(objective, batches, preprocess, world, autocast)
    return {
        f"{prefix}/{name}": value
        for prefix, found in zip(prefixes, figures, strict=True)
        for name, value in found.items()
    }


def score_of(row: Mapping[str, float], prefers_average: bool) -> tuple[float, bool]:
    """Score of an epoch, larger is better: top-1, else minus the loss, else the epoch; and whose score it is.

    That of the better of the student and its moving average: True if it is the average. If they are equal, or if
    nothing was validated, it is the average with ``prefers_average``, else the student.
    """
    for name, sign in (("top1", 1), ("loss", -1)):
        scores = [(sign * row[key], "ema" in key) for key in (f"val/{name}", f"val_ema/{name}") if key in row]
        if scores:
            return max(scores, key=lambda score: (score[0], score[1] == prefers_average))
    return float(row["epoch"]), prefers_average


@torch.no_grad()
def objective_losses(
    objective: Objective,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
) -> list[dict[str, float]]:
    """``loss`` of the objective on data without labels, as a mean over images; then the moving average's, if any."""
    was_training = objective.training
    objective.eval()
    networks: list[Callable[[], AbstractContextManager[None]]] = [nullcontext]
    if objective.has_ema():
        networks.append(partial(averaged_weights, objective.student, objective.get_eval_model(ema=True)))
    teacher = objective.teacher
    if teacher is not None and is_sharded(teacher.model):
        blank = teacher.adapter.blank(world.device)
        batches = in_step(batches, world, lambda: [objective.teacher_output(blank) for _ in networks])
    totals, images_seen = [0.0] * len(networks), 0
    with uncompiled():
        for batch in batches:
            images, labels = preprocess.normalise(batch)
            for number, network in enumerate(networks):
                with network(), autocast():
                    totals[number] += float(objective(images, labels)["loss"]) * len(batch)
            images_seen += len(batch)
    objective.train(was_training)
    *totals, count = world.sum([*totals, float(images_seen)])
    return [{"loss": total / max(1.0, count)} for total in totals]
