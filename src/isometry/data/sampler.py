"""The order of an epoch's images and each rank's share: pure functions of seed and epoch."""

from collections.abc import Iterator

import torch

from isometry.data.batch_reader import Request
from isometry.errors import UserError
from isometry.seeding import derive_seed


def epoch_order(count: int, *, seed: int, epoch: int, repeats: int) -> torch.Tensor:
    """The global order of an epoch, int64 (count,): a permutation, or with repeats its first images several times.

    Repeated augmentation (Hoffer et al. 2020, "Augment your batch"; as DeiT uses it): copies of an image are adjacent,
    so that they share a global batch. The epoch keeps its length and so has count/repeats different images.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(count, generator=generator)
    return order.repeat_interleave(repeats)[:count] if repeats > 1 else order


class TrainRequests:
    """One rank's requests for the batches of ``epoch``, starting at image ``start``; set both, then iterate.

    After them come those of the whole epochs that follow, of ``epochs`` in all; without ``epochs`` there are none.

    The global order is cut into global batches of ``world_size * batch_size`` images, and rank r takes the
    r-th slice of each: the global batches are the same for any number of ranks with the same product;
    if it changes on resume, the rest of the order is cut anew. The last, partial global batch is dropped,
    unless it is the only one: then each rank takes an equal, smaller share.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        repeats: int,
        rank: int = 0,
        world_size: int = 1,
        epochs: int = 0,
    ) -> None:
        if count < world_size:
            raise UserError(
                f"{count} training images are too few for {world_size} processes: use fewer processes"
            )
        self.count = count
        self.batch_size = min(batch_size, count // world_size)
        self.seed, self.repeats = seed, repeats
        self.rank, self.world_size = rank, world_size
        self.epochs = epochs
        self.epoch = self.start = 0

    @property
    def global_batch_size(self) -> int:
        """Images of a batch of all ranks together."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches in a whole epoch; at least 1."""
        return self.batches_from(0)

    def batches_from(self, start: int) -> int:
        """Batches of an epoch from image ``start`` of the global order on."""
        return max(0, self.count - start) // self.global_batch_size

    def __iter__(self) -> Iterator[Request]:
        yield from self._requests(self.epoch, self.start)
        for epoch in range(self.epoch + 1, self.epochs):
            yield from self._requests(epoch, 0)

    def _requests(self, epoch: int, start: int) -> Iterator[Request]:
        order = epoch_order(self.count, seed=self.seed, epoch=epoch, repeats=self.repeats)
        for begin in range(start, self.count - self.global_batch_size + 1, self.global_batch_size):
            first = begin + self.rank * self.batch_size
            yield Request(epoch, first, order[first : first + self.batch_size].tolist())


class EvalRequests:
    """All images in order, each once: rank r takes those whose index is r modulo ``world_size``."""

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, count, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        for first in range(0, len(self.indices), self.batch_size):
            yield Request(0, first, list(self.indices[first : first + self.batch_size]))
