"""Accuracy and speed of a teacher, measured as the student's are: on images of its own, and in float32.

In training the teacher sees the student's images, scaled to its size, and may compute in a narrower type. Figures of
that would say less of the teacher than of the run.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from isometry.data import Preprocess, make_loaders
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy, tabled
from isometry.evaluation.saved_network import other_classes_than
from isometry.models.sharding import is_sharded
from isometry.models.spec import image_spec
from isometry.models.teacher import InputAdapter
from isometry.training.assemble import Run
from isometry.training.loop import Trainer


def teacher_accuracy(trainer: Trainer, world: World) -> dict[str, Any]:
    """``top1`` (percent) and ``top1_part`` of the run's teacher, over the images that ``world``'s processes share.

    The images are cut from the original pictures as the teacher expects them. Empty for a teacher that no term needs or
    that knows other classes, and without labelled images to evaluate on.
    """
    run, teacher = trainer.run, trainer.objective.teacher
    if teacher is None or not _has_classes_of_data(run, teacher.model):
        return {}
    spec = image_spec(teacher.model)
    config = replace(run.config, crop_pct=None)
    place: dict[str, Any] = {"rank": world.rank, "world_size": world.size}
    with closing(make_loaders(run.sources, config, spec, seed=config.seed, **place)) as loaders:
        part, name = loaders.evaluation
        if part is None:
            return {}
        found = accuracy(
            teacher.model,
            trainer.batches.read(part),
            Preprocess(config, spec, config.num_classes, world.device),
            world,
            # A narrow teacher computes in its own dtype.
            nullcontext if teacher.narrow else trainer.autocast,
            InputAdapter(spec, spec, teacher.dtype if teacher.narrow else None).to(world.device),
        )
    return tabled(found, name)


def _has_classes_of_data(run: Run, teacher: nn.Module) -> bool:
    same = teacher.num_classes == run.config.num_classes and not other_classes_than(teacher, run.sources)
    # Image files have one channel or three.
    readable = image_spec(teacher).input_size[0] in (1, 3)
    return run.sources.labelled and same and readable


def speed_column(network: nn.Module) -> str:
    """The column of a network's speed: a sharded one's, over several processes and in its own type, has its own."""
    if not is_sharded(network):
        return "images_per_s"
    dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
    return f"images/s ({dtype}, sharded)"


@contextmanager
def in_float32(network: nn.Module) -> Iterator[None]:
    """Casts a network that is not sharded to float32, and back, which restores its bits."""
    dtype = next(network.parameters()).dtype
    wide = dtype if is_sharded(network) else torch.promote_types(dtype, torch.float32)
    network.to(wide)
    try:
        yield
    finally:
        network.to(dtype)
