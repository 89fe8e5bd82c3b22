"""Top-1 and top-5 accuracy over a split."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data import Batch, Preprocess
from isometry.distributed import World
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
        ``loss``, ``top1``, ``top5``; top-5 is left out for fewer than six classes.
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
    sums = torch.zeros(len(models), 3, dtype=torch.float64, device=world.device)
    images_seen, classes = 0, [0] * len(models)
    for batch in batches:
        images, labels = preprocess.normalise(batch)
        for number, model in enumerate(models):
            with autocast():
                logits = model(images if adapter is None else adapter(images)).float()
            classes[number] = logits.shape[1]
            sums[number] += _sums(logits, labels)
        images_seen += len(labels)
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    *totals, count = world.sum([*sums.flatten().tolist(), float(images_seen)])
    count, results = max(1.0, count), []
    for number, model in enumerate(models):
        loss, top1, top5 = totals[3 * number : 3 * number + 3]
        result = {"loss": loss / count, "top1": 100 * top1 / count}
        # A process without images has no logits to count classes in; the keys must be the same in all.
        if getattr(model, "num_classes", classes[number]) >= 6:
            result["top5"] = 100 * top5 / count
        results.append(result)
    return results


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, top-1 and top-5 hits of a batch, (3,)."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([loss.double(), ranked[:, 0].sum().double(), ranked.sum().double()])
