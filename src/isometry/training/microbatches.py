"""What the loop is fed: an epoch's batches in the groups that optimizer steps take, from any image of its order on."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

from isometry.data import Batch, TrainLoader, TrainStream
from isometry.training.phase_timer import PhaseTimer


class MicroBatches:
    """The training batches of this process.

    Args:
        loader: reads them.
        accumulate: batches that one optimizer step adds up; the epoch's last group may have fewer.
        watch: counts the time that the loop waits for data.
    """

    def __init__(self, loader: TrainLoader | TrainStream, accumulate: int, watch: PhaseTimer) -> None:
        self.loader, self.accumulate, self.watch = loader, accumulate, watch
        self.unreadable: list[str] = []
        self.steps_an_epoch = math.ceil(len(loader) / accumulate)

    def groups(self, epoch: int, seen: int) -> Iterator[list[Batch]]:
        """The epoch's batches from image ``seen`` of the global order on, as many together as one step takes."""
        batches = self.noting_unreadable(self.loader.epoch(epoch, seen))
        while True:
            with self.watch("data"):
                group = list(islice(batches, self.accumulate))
            if not group:
                return
            yield group

    def steps_before(self, seen: int) -> int:
        """Optimizer steps that it takes to see so many images of an epoch, all processes together."""
        return math.ceil(seen / (self.loader.global_batch_size * self.accumulate))

    def noting_unreadable(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the images that could not be read noted on the way in ``unreadable``."""
        for batch in batches:
            self.unreadable += [name for name in batch.unreadable if name not in self.unreadable]
            yield batch
