"""Top-1 and top-5 accuracy over a split."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from isometry.data import Batch, Preprocess
from isometry.distributed import World
from isometry.models.sharding import in_step, is_sharded
from isometry.models.teacher import InputAdapter


@torch.no_grad()
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
    was_training = model.training
    model.eval()
    if is_sharded(model):
        assert adapter is not None
        batches = in_step(batches, world, partial(model, adapter(adapter.blank(world.device))))
    totals, images_seen, classes = torch.zeros(3, dtype=torch.float64, device=world.device), 0, 0
    for batch in batches:
        images, labels = preprocess.normalise(batch)
        with autocast():
            logits = model(images if adapter is None else adapter(images)).float()
        classes = logits.shape[1]
        ranked = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
        totals += torch.stack(
            [
                F.cross_entropy(logits, labels, reduction="sum").double(),
                ranked[:, 0].sum().double(),
                ranked.sum().double(),
            ]
        )
        images_seen += len(labels)
    model.train(was_training)
    loss, top1, top5, count = world.sum([*totals.tolist(), float(images_seen)])
    # A process without images has no logits to count classes in; the keys must be the same in all.
    known_classes = getattr(model, "num_classes", classes)
    result = {"loss": loss / count, "top1": 100 * top1 / count}
    return result if known_classes < 6 else {**result, "top5": 100 * top5 / count}
