"""Loaders of map-style splits: the same batches, bitwise, for any number of workers and any starting batch."""

import gc
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from isometry.data.batch_reader import Batch, Request
from isometry.data.image_modes import quiet_decoders
from isometry.data.shared_memory import handles, shared, starting
from isometry.data.worker_failures import watch_workers
from isometry.errors import UserError


class Batches:
    """The batches that ``dataset`` returns for ``requests`` (None: a stream, without persistent workers).

    Workers of a map-style data set start with the first iteration and persist until ``close`` or an error.
    Does not use the global generators.
    """

    def __init__(
        self,
        dataset: Dataset[Batch | UserError],
        requests: Iterable[Request] | None,
        *,
        workers: int = 0,
        pin_mem: bool = False,
        seed: int = 0,
    ) -> None:
        self._requests: Any = requests
        self._options: dict[str, Any] = {
            "dataset": dataset,
            "sampler": requests,
            "batch_size": None,
            "collate_fn": shared,
            "num_workers": workers,
            "persistent_workers": requests is not None and workers > 0,
            "pin_memory": pin_mem and torch.cuda.is_available(),
            "worker_init_fn": _init_worker,
        }
        self._seed = seed
        self._loader: DataLoader[Batch | UserError] | None = None

    @property
    def workers(self) -> int:
        """Worker processes that read; 0: the process itself."""
        return int(self._options["num_workers"])

    def __iter__(self) -> Iterator[Batch]:
        """Raises the first error that a worker returns, and WorkerDied if a worker is killed."""
        return self._checked(self._start())

    def _start(self) -> Iterator[Batch | UserError]:
        """Starts reading; workers read up to two batches each before the first is taken."""
        if self._loader is None:
            generator = torch.Generator().manual_seed(self._seed)
            self._loader = DataLoader(**self._options, generator=generator)
            with starting(self._options["num_workers"]):
                return iter(self._loader)
        return iter(self._loader)

    def _checked(self, batches: Iterator[Batch | UserError]) -> Iterator[Batch]:
        while True:
            with handles():
                batch = next(batches, None)
            if batch is None:
                return
            watch_workers()
            if isinstance(batch, UserError):
                # A stored exception keeps this frame alive, and DataLoader takes seconds to end workers in the
                # garbage collector: end them here.
                del batches
                self.close()
                raise UserError(*batch.args)
            yield batch

    def close(self) -> None:
        """Ends the workers; the next iteration starts new ones."""
        self._loader = None


class EvalLoader(Batches):
    """All images once, in order, by :class:`isometry.data.sampler.EvalRequests`.

    The last batch may be smaller, and so are those with unreadable images that are left out.
    """

    _ahead: Iterator[Batch | UserError] | None = None

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._requests)

    def __iter__(self) -> Iterator[Batch]:
        """See :class:`Batches`; continues what :meth:`prefetch` started."""
        ahead, self._ahead = self._ahead, None
        return _not_empty(self._checked(self._start() if ahead is None else ahead))

    def read(self, indices: list[int]) -> Batch:
        """Some images of the part, read by this process.

        Raises:
            UserError: an unreadable image, without ``skip_bad_images``.
        """
        batch = self._options["dataset"][Request(0, 0, indices)]
        if isinstance(batch, UserError):
            raise batch
        return batch

    def prefetch(self) -> None:
        """Lets the workers read the first batches of the next iteration now, while something else is computed."""
        if self._ahead is None:
            self._ahead = self._start()

    def close(self) -> None:
        """Ends the workers; the next iteration starts new ones."""
        self._ahead = None
        super().close()


class TrainLoader(Batches):
    """Epochs of augmented batches, by :class:`isometry.data.sampler.TrainRequests`.

    Each is a pure function of (seed, epoch, batch number). Only one epoch can be read at a time. Where the requests go
    on after an epoch, workers read the first batches of the next one while the run evaluates and saves.
    """

    _stream: Iterator[Batch] | None = None
    _position: tuple[int, int] | None = None
    """Epoch and image at which ``_stream`` goes on; None inside an epoch and at the end."""

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._requests)

    @property
    def batch_size(self) -> int:
        """Images of each batch of this process."""
        return self._requests.batch_size

    @property
    def global_batch_size(self) -> int:
        """Images of a batch of all processes together."""
        return self._requests.global_batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch from image ``start`` of the global order; earlier ones are not decoded.

        Raises:
            UserError: an unreadable image (without ``skip_bad_images``), or no readable image.
        """
        if self._stream is None or self._position != (epoch, start):
            self._requests.epoch, self._requests.start = epoch, start
            self._stream = iter(self)
        self._position = None
        yield from islice(self._stream, self._requests.batches_from(start))
        if epoch + 1 < self._requests.epochs:
            self._position = epoch + 1, 0

    def close(self) -> None:
        """Ends the workers; the next epoch starts new ones."""
        self._stream = self._position = None
        super().close()


def _not_empty(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches that have images; the unreadable ones of a batch without any are named by its neighbour."""
    held = next(batches, None)
    if held is None:
        return
    for batch in batches:
        if len(held) and len(batch):
            yield held
            held = batch
        else:
            unreadable = held.unreadable + batch.unreadable
            held = replace(held if len(held) else batch, unreadable=unreadable)
    if len(held):
        yield held


SECONDS_AFTER_SIGTERM = 30
"""How long workers survive SIGTERM: as long as batch systems usually wait before SIGKILL."""


def _init_worker(worker: int) -> None:
    quiet_decoders()
    # Keeps inherited memory shared with the parent: a garbage collection here would write to all of it.
    gc.freeze()
    # Ctrl-C and a batch system's SIGTERM reach all processes. The run finishes its step, saves, and then ends its
    # workers; by default torch would end them, and with them the run, at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_AFTER_SIGTERM))
