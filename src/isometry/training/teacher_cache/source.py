"""What the teacher says about training images: read from ``--teacher-cache`` where there is one, else asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from isometry.distributed import World
from isometry.models.teacher import TeacherOutput
from isometry.training.assemble import Run
from isometry.training.microbatches import MicroBatches
from isometry.training.objective import Objective
from isometry.training.progress import tell
from isometry.training.teacher_cache import Estimate, Place, TeacherCache, estimate, identity_of


class Teaching:
    """The teacher of a run, with the cache that the config names; what it will take is added to the run's notes.

    Raises:
        UserError: the cache is of another teacher, data or seed, or can't be used.
    """

    def __init__(
        self,
        run: Run,
        world: World,
        feed: MicroBatches,
        autocast: Callable[[], AbstractContextManager[None]],
        console: Console | None,
    ) -> None:
        self.run, self.world, self.feed, self.autocast, self.console = run, world, feed, autocast, console
        self.cache: TeacherCache | None = None
        config = run.config
        if config.teacher_cache:
            self.cache = TeacherCache.open(
                Path(config.teacher_cache),
                identity_of(run, world),
                limit_bytes=int(config.teacher_cache_size * 2**30),
                world=world,
                together=config.teacher_shard,
            )
            run.notes.append(self.cache.forecast(self._estimate()))

    def taught(self, objective: Objective, input: Tensor, epoch: int, seen: int) -> TeacherOutput | None:
        """What the teacher says about a batch of the epoch, before which ``seen`` images were; None without a cache.

        Without one the objective asks, if any of its terms does.
        """
        if self.cache is None:
            return None
        grids = {pair.teacher.block: pair.grid for pair in objective.pairs}
        with objective.watch("teacher"):
            return self.cache.taught(Place(epoch, seen), input, grids, partial(_asked, objective, input))

    def say(self) -> None:
        """Tells the person, and the report, what the cache has to say since the last time."""
        if self.cache is None:
            return
        self.run.notes.extend(self.cache.notes)
        if self.console is not None:
            tell(self.console, self.cache.notes)
        self.cache.notes.clear()

    def _estimate(self) -> Estimate:
        objective, config = self.run.objective, self.run.config
        image = torch.zeros(1, *self.run.spec.input_size, device=self.world.device)
        with self.autocast():
            probe = _asked(objective, image)
        return estimate(
            probe,
            {pair.teacher.block: pair.grid for pair in objective.pairs},
            batch_size=config.batch_size,
            batches=len(self.feed.loader),
            epochs=config.epochs,
        )


def _asked(objective: Objective, input: Tensor) -> TeacherOutput:
    answer = objective.ask_teacher(input)
    assert answer is not None
    return answer
