"""Teacher outputs from ``--teacher-cache``, in place of the teacher itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from isometry.distributed import World
from isometry.models.teacher import BatchPosition, Teacher, TeacherOutput
from isometry.training.assemble import Run
from isometry.training.teacher_cache import TeacherCache, estimate, identity_of


class CachedTeacher:
    """A :class:`isometry.models.teacher.TeacherSource` that keeps the outputs for training batches in a cache."""

    def __init__(self, teacher: Teacher, cache: TeacherCache) -> None:
        self.teacher, self.cache = teacher, cache

    def __call__(self, input_BCHW: Tensor, position: BatchPosition | None = None) -> TeacherOutput:
        if position is None:
            return self.teacher(input_BCHW)
        compute = partial(self.teacher, input_BCHW)
        return self.cache.output(position, input_BCHW, self.teacher.grids, compute)


def open_cache(
    run: Run, world: World, batches: int, autocast: Callable[[], AbstractContextManager[None]]
) -> TeacherCache | None:
    """The cache that the run's config names, if any; adds a note on the expected size of so many batches per epoch.

    Raises:
        UserError: the cache is of another teacher, data or seed, or can't be used.
    """
    config, teacher = run.config, run.objective.teacher
    if not config.teacher_cache:
        return None
    cache = TeacherCache(
        Path(config.teacher_cache),
        identity_of(run, world),
        limit_bytes=int(config.teacher_cache_size * 2**30),
        world=world,
        together=config.teacher_shard,
    )
    assert teacher is not None, "refused by its identity"
    with autocast():
        output = teacher(torch.zeros(1, *run.spec.input_size, device=world.device))
    size = estimate(
        output, teacher.grids, batch_size=config.batch_size, batches=batches, epochs=config.epochs
    )
    run.notes.append(cache.forecast(size))
    return cache
