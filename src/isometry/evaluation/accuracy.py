"""Top-1 and top-5 accuracy over a split."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.evaluation.scores import top1_by_class
from isometry.models.sharding import in_step, is_sharded
from isometry.models.teacher import InputAdapter


def accuracy(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
    adapter: InputAdapter | None = None,
) -> dict[str, float]:
    """Cross-entropy (nats), top-1 and top-5 (percent) over all images of all processes.

    Args:
        model: returns logits (B, K); evaluated in eval mode, then restored to its mode.
        batches: this process's share.
        preprocess: normalises for the student.
        world: the processes to sum over.
        autocast: the precision to run in.
        adapter: converts the student's input to the model's, for a teacher.

    Returns:
        ``loss``, ``top1``, ``top5``; top-5 is left out for fewer than six classes. ``top1_by_class``, the mean of the
        classes' accuracies, where some have many more images than others
        (:func:`isometry.evaluation.scores.top1_by_class`).
    """
    if is_sharded(model):
        assert adapter is not None
        batches = in_step(batches, world, partial(model, adapter(adapter.blank(world.device))))
    return accuracies([model], batches, preprocess, world, autocast, adapter)[0]


@torch.no_grad()
def accuracies(
    models: Sequence[nn.Module],
    batches: Iterable[Batch],
    preprocess: Preprocess,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
    adapter: InputAdapter | None = None,
) -> list[dict[str, float]]:
    """:func:`accuracy` of several models, none of them sharded, in one pass over the images."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    tallies = [_Tally(model, world.device) for model in models]
    images_seen = 0
    for batch in batches:
        images, labels = preprocess.normalise(batch)
        for model, tally in zip(models, tallies, strict=True):
            with autocast():
                logits = model(images if adapter is None else adapter(images)).float()
            tally.add(logits, labels)
        images_seen += len(labels)
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    count, *totals = world.sum(
        [float(images_seen), *(value for tally in tallies for value in tally.values())]
    )
    rest = iter(totals)
    return [tally.figures(list(islice(rest, len(tally.values()))), max(1.0, count)) for tally in tallies]


def tabled(found: Mapping[str, float], part: str) -> dict[str, Any]:
    """What a table of networks shows of :func:`accuracy` on the split ``part``: ``top1``, ``top1_by_class``,
    ``top1_part``."""
    return {key: found[key] for key in ("top1", "top1_by_class") if key in found} | {"top1_part": part}


class _Tally:
    """The sums of a model's answers: cross-entropy, top-1 and top-5 hits (3,); hits and images of each class (2, K)."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        # A process without images has no logits to count classes in; the sums and keys must be the same in all.
        self.by_class_2K = self.sums.new_zeros(2, getattr(model, "num_classes", 0))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch."""
        classes = logits.shape[1]
        if self.by_class_2K.shape[1] != classes:
            self.by_class_2K = self.sums.new_zeros(2, classes)
        ranked = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        self.sums += torch.stack([loss.double(), ranked[:, 0].sum().double(), ranked.sum().double()])
        right_and_all = torch.stack([ranked[:, 0], torch.ones_like(ranked[:, 0])])
        self.by_class_2K.index_add_(1, labels, right_and_all.double())

    def values(self) -> list[float]:
        """All sums of this process."""
        return [*self.sums.tolist(), *self.by_class_2K.flatten().tolist()]

    def figures(self, values: list[float], count: float) -> dict[str, float]:
        """The figures of ``accuracy``, from the values of all processes, summed, and the number of images."""
        (loss, top1, top5), by_class, classes = values[:3], values[3:], self.by_class_2K.shape[1]
        found = {"loss": loss / count, "top1": 100 * top1 / count}
        if (mean := top1_by_class(by_class[:classes], by_class[classes:])) is not None:
            found["top1_by_class"] = mean
        return found if classes < 6 else {**found, "top5": 100 * top5 / count}
