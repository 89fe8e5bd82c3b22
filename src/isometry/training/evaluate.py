"""How well a model does on a part of the data."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.objective import Objective
from isometry.sharding import in_step, is_sharded
from isometry.view import TeacherView


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
def accuracy(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
    view: TeacherView | None = None,
) -> dict[str, float]:
    """Cross-entropy (nats), top-1 and top-5 (percent) over all images of all processes.

    Args:
        model: gives logits (B, K); evaluated in eval mode, left in the mode that it was in.
        batches: this process's share.
        preprocess: normalises for the student.
        world: the processes to sum over.
        autocast: the precision to run in.
        view: turns the student's input into the model's, for a teacher.

    Returns:
        ``loss``, ``top1``, ``top5``; top-5 is left out for fewer than six classes.
    """
    was_training = model.training
    model.eval()
    if is_sharded(model):
        assert view is not None
        batches = in_step(batches, world, partial(model, view(_blank(view, world))))
    totals: Tensor | None = None
    classes = 0
    for batch in batches:
        images, labels = preprocess.normalise(batch)
        with autocast():
            logits = model(images if view is None else view(images)).float()
        classes = logits.shape[1]
        ranked = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
        counts = torch.stack(
            [
                F.cross_entropy(logits, labels, reduction="sum").double(),
                ranked[:, 0].sum().double(),
                ranked.sum().double(),
                torch.tensor(float(len(labels)), dtype=torch.float64, device=logits.device),
            ]
        )
        totals = counts if totals is None else totals + counts
    model.train(was_training)
    loss, top1, top5, images_seen = world.sum(totals.tolist() if totals is not None else [0.0] * 4)
    # A process without images does not know the number of classes; the keys must be the same in all.
    known_classes = getattr(model, "num_classes", classes)
    result = {"loss": loss / images_seen, "top1": 100 * top1 / images_seen}
    return result if known_classes < 6 else {**result, "top5": 100 * top5 / images_seen}


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


def _blank(view: TeacherView, world: World) -> Tensor:
    """An image that a view takes as a student's, on which a sharded teacher is asked for the sake of the others."""
    return torch.zeros(1, 1, *view.size, device=world.device)
