"""Loaders of streams (wds/, tfds/, hfids/), which are read sequentially.

An epoch is a function of (seed, epoch, number of workers and ranks): timm's readers assign
shards to workers, so another number of workers gives another order. Each epoch starts new worker processes
(one even for ``--workers 0``), because the readers keep generator state across epochs, which a resumed run
could not repeat. Resuming inside an epoch reads and discards the earlier batches. Images that can't be
decoded are handled by the readers (wds/ logs and skips them); ``skip_bad_images`` has no effect.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from isometry.data.batch_reader import Batch, reseed, stack
from isometry.data.image_modes import to_mode
from isometry.data.map_loader import Batches
from isometry.data.splits import DECODE_ERRORS, UNLABELLED, StreamPart
from isometry.data.transforms import Transform
from isometry.errors import UserError, first_line
from isometry.seeding import derive_seed


class StreamReader(IterableDataset[Batch | UserError]):
    """A worker's share of a stream, in batches; each sample has its own augmentation seed."""

    def __init__(
        self,
        part: StreamPart,
        transform: Transform,
        mode: str,
        batch_size: int,
        *,
        seed: int,
        rank: int,
        ranks: int,
        workers: int,
    ) -> None:
        self.dataset = part.open_for(batch_size, derive_seed(seed, "stream") % 2**31)
        self.dataset.set_loader_cfg(num_workers=workers)
        self.transform = transform
        self.mode = mode
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; call it before the workers start."""
        self.epoch = epoch
        self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch | UserError]:
        samples = enumerate(self.dataset)
        try:
            while chunk := list(islice(samples, self.batch_size)):
                yield self._batch(chunk)
        except DECODE_ERRORS as error:
            yield UserError(f"the stream can't be read further ({first_line(error)}): check its shards")

    def _batch(self, chunk: list[tuple[int, tuple[Image.Image, int]]]) -> Batch:
        worker = get_worker_info()
        worker_id = worker.id if worker else 0
        images, targets = [], []
        for number, (image, target) in chunk:
            reseed(derive_seed(self.seed, "augment", self.epoch, self.rank, worker_id, number))
            images.append(self.transform(to_mode(image, self.mode)))
            targets.append(UNLABELLED if target is None else int(target))
        return Batch(stack(images), torch.tensor(targets), torch.full((len(images),), -1), [])


class TrainStream:
    """``TrainLoader`` for streams; see the module's docstring for determinism and the cost of resuming."""

    def __init__(self, reader: StreamReader, *, workers: int, pin_mem: bool) -> None:
        self._reader = reader
        self._batches = max(1, len(reader.dataset) // reader.batch_size)
        self._workers = workers
        self._pin_mem = pin_mem

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._batches

    @property
    def global_batch_size(self) -> int:
        """Images of a batch of all processes together."""
        return self._reader.batch_size * self._reader.ranks

    def close(self) -> None:
        """Nothing to do: the workers end with their epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch, starting after the first ``start`` images of all processes.

        Raises:
            UserError: the stream ends early, or cannot be read.
        """
        batches = _fresh_batches(self._reader, epoch, self._workers, self._pin_mem)
        count, done = 0, start // self.global_batch_size
        for count, batch in enumerate(islice(batches, len(self)), start=1):
            if count > done:
                yield batch
        if count < len(self):
            raise UserError(
                f"the training stream ended after {count} of {len(self)} batches: "
                f"use fewer than --workers {self._workers}, or as many shards as workers at least"
            )


class EvalStream:
    """``EvalLoader`` for streams: workers take turns; the last batch of each may be smaller."""

    def __init__(self, reader: StreamReader, *, workers: int, pin_mem: bool) -> None:
        self._reader = reader
        self._workers = workers
        self._pin_mem = pin_mem

    def close(self) -> None:
        """Nothing to do: the workers end with the iteration."""

    def __len__(self) -> int:
        """Batches of this rank, by the stream's nominal length."""
        return -(-len(self._reader.dataset) // self._reader.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return _fresh_batches(self._reader, 0, self._workers, self._pin_mem)


def _fresh_batches(reader: StreamReader, epoch: int, workers: int, pin_mem: bool) -> Iterator[Batch]:
    reader.set_epoch(epoch)
    seed = derive_seed(reader.seed, "stream", epoch, reader.rank)
    return iter(Batches(reader, None, workers=workers, pin_mem=pin_mem, seed=seed))
