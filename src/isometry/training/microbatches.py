"""The batches of an epoch, in the groups that optimizer steps take, from any image on."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from isometry.data import Batch, TrainLoader, TrainStream, copied_ahead
from isometry.training.phase_timer import PhaseTimer


class MicroBatches:
    """The training batches of this process.

    Args:
        loader: of the batches.
        accumulate: batches of one optimizer step; the last group of an epoch may have fewer.
        timer: of the time that the loop waits for data.
        device: that images are copied to.

    ``unreadable`` has the names of images that could not be read.
    """

    def __init__(
        self, loader: TrainLoader | TrainStream, accumulate: int, timer: PhaseTimer, device: torch.device
    ) -> None:
        self.loader, self.accumulate, self.timer, self.device = loader, accumulate, timer, device
        self.unreadable: list[str] = []
        self.steps_per_epoch = math.ceil(len(loader) / accumulate)

    def groups(self, epoch: int, seen: int) -> Iterator[list[Batch]]:
        """The epoch's batches from image ``seen`` of the global order on, grouped by optimizer step."""
        batches = self.read(self.loader.epoch(epoch, seen))
        while True:
            with self.timer("data"):
                group = list(islice(batches, self.accumulate))
            if not group:
                return
            yield group

    def steps_before(self, seen: int) -> int:
        """Optimizer steps for so many images of an epoch, over all processes."""
        return math.ceil(seen / (self.loader.global_batch_size * self.accumulate))

    def steps_left(self, seen: int) -> int:
        """Optimizer steps of the epoch after so many images."""
        return self.steps_per_epoch - self.steps_before(seen)

    def read(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches with images on the device; images that could not be read are added to ``unreadable``."""
        for batch in copied_ahead(batches, self.device):
            self.unreadable += [name for name in batch.unreadable if name not in self.unreadable]
            yield batch
