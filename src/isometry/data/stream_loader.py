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

from isometry.data.batch_reader import Batch, stack
from isometry.data.decoding import DecodeError, Reading, read_pixels
from isometry.data.image_formats import these_formats_only
from isometry.data.map_loader import Batches
from isometry.data.splits import DECODE_ERRORS, UNLABELLED, StreamPart
from isometry.data.transforms import Transform
from isometry.errors import UserError, first_line
from isometry.seeding import derive_seed, seed_cpu_generators


class StreamReader(IterableDataset[Batch | UserError]):
    """A worker's share of a stream, in batches; each sample has its own augmentation seed."""

    def __init__(
        self,
        part: StreamPart,
        transform: Transform,
        reading: Reading,
        batch_size: int,
        *,
        seed: int,
        rank: int,
        ranks: int,
        workers: int,
    ) -> None:
        self.dataset = part.open_for(batch_size=batch_size, seed=derive_seed(seed, "stream") % 2**31)
        self.dataset.set_loader_cfg(num_workers=workers)
        self.transform, self.reading, self.batch_size = transform, reading, batch_size
        self.seed, self.rank, self.ranks, self.workers = seed, rank, ranks, workers
        self.epoch = 0

    def __iter__(self) -> Iterator[Batch | UserError]:
        samples = enumerate(self.dataset)
        try:
            with these_formats_only():
                while chunk := list(islice(samples, self.batch_size)):
                    yield self._batch(chunk)
        except (*DECODE_ERRORS, DecodeError) as error:
            yield UserError(f"the stream can't be read further ({first_line(error)}): check its shards")

    def _batch(self, chunk: list[tuple[int, tuple[Image.Image, int]]]) -> Batch:
        worker = get_worker_info()
        worker_id = worker.id if worker else 0
        images, targets = [], []
        for number, (image, target) in chunk:
            seed_cpu_generators(derive_seed(self.seed, "augment", self.epoch, self.rank, worker_id, number))
            images.append(self.transform(read_pixels(image, self.reading)))
            targets.append(UNLABELLED if target is None else int(target))
        return Batch(stack(images), torch.tensor(targets), torch.full((len(images),), -1), [])


class _Stream:
    """A loader whose workers end with each iteration."""

    def __init__(self, reader: StreamReader, *, pin_mem: bool) -> None:
        self._reader, self._pin_mem = reader, pin_mem

    @property
    def workers(self) -> int:
        """Worker processes that read."""
        return self._reader.workers

    def close(self) -> None:
        """Nothing to do: the workers end with the iteration."""

    def _batches(self, epoch: int) -> Iterator[Batch]:
        reader = self._reader
        # Before the workers start, which copy the reader.
        reader.epoch = epoch
        reader.dataset.set_epoch(epoch)
        seed = derive_seed(reader.seed, "stream", epoch, reader.rank)
        return iter(Batches(reader, None, workers=reader.workers, pin_mem=self._pin_mem, seed=seed))


class TrainStream(_Stream):
    """``TrainLoader`` for streams; see the module's docstring for determinism and the cost of resuming."""

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, len(self._reader.dataset) // self._reader.batch_size)

    @property
    def batch_size(self) -> int:
        """Images of a batch of this process; a worker's last one may be smaller."""
        return self._reader.batch_size

    @property
    def global_batch_size(self) -> int:
        """Images of a batch of all processes together."""
        return self._reader.batch_size * self._reader.ranks

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch, starting after the first ``start`` images of all processes.

        Raises:
            UserError: the stream ends early, or cannot be read.
        """
        count, done = 0, start // self.global_batch_size
        for count, batch in enumerate(islice(self._batches(epoch), len(self)), start=1):
            if count > done:
                yield batch
        if count < len(self):
            raise UserError(
                f"the training stream ended after {count} of {len(self)} batches: "
                f"use fewer than --workers {self._reader.workers}, or as many shards as workers at least"
            )


class EvalStream(_Stream):
    """``EvalLoader`` for streams: workers take turns; the last batch of each may be smaller."""

    def __len__(self) -> int:
        """Batches of this rank, by the stream's nominal length."""
        return -(-len(self._reader.dataset) // self._reader.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            UserError: there are none; timm's readers skip shards that they can't open.
        """
        batch = None
        for batch in self._batches(0):
            yield batch
        # One of several processes may have no shard.
        if batch is None and self._reader.ranks == 1:
            raise UserError("the stream has no images that can be read: check its shards")

    def prefetch(self) -> None:
        """Does nothing: each iteration starts new workers."""
