"""Loaders of map-style parts: bitwise the same batches for any number of workers, from any batch on."""

import gc
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from isometry.data.batch_reader import Batch, BatchReader, Request
from isometry.data.image_modes import quiet_decoders
from isometry.data.sampler import EvalRequests, TrainRequests
from isometry.data.worker_failures import watch_workers
from isometry.errors import UserError


class TrainLoader:
    """Epochs of augmented batches; each a pure function of (seed, epoch, batch number).

    Workers start at the first epoch and stay. One epoch is read at a time: another ends the one before.
    """

    def __init__(
        self, reader: BatchReader, requests: TrainRequests, *, workers: int = 0, pin_mem: bool = False
    ) -> None:
        self._requests = requests
        self._batches = Batches(reader, requests, workers=workers, pin_mem=pin_mem)

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._requests.batches_per_epoch

    @property
    def global_batch_size(self) -> int:
        """Images of a batch of all processes together."""
        return self._requests.global_batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch, from image ``start`` of the global order on; none before is decoded.

        Raises:
            UserError: an unreadable image (without ``skip_bad_images``), or none that is readable.
        """
        self._requests.epoch = epoch
        self._requests.start = start
        yield from self._batches

    def close(self) -> None:
        """Ends the workers; the next epoch starts new ones."""
        self._batches.close()


class EvalLoader:
    """All images once, in order, without randomness; the last batch may be smaller."""

    def __init__(
        self, reader: BatchReader, requests: EvalRequests, *, workers: int = 0, pin_mem: bool = False
    ) -> None:
        self._requests = requests
        self._batches = Batches(reader, requests, workers=workers, pin_mem=pin_mem)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._requests)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def close(self) -> None:
        """Ends the workers; the next iteration starts new ones."""
        self._batches.close()


class Batches:
    """The batches with which ``dataset`` answers ``requests`` (None: a stream, whose workers never stay).

    The workers of a map-style data set start at the first iteration and stay until ``close`` or an error.
    No global generator is drawn from.
    """

    def __init__(
        self,
        dataset: Dataset[Batch | UserError],
        requests: Iterable[Request] | None,
        *,
        workers: int,
        pin_mem: bool,
        seed: int = 0,
    ) -> None:
        self._options: dict[str, Any] = {
            "dataset": dataset,
            "sampler": requests,
            "batch_size": None,
            "collate_fn": _unchanged,
            "num_workers": workers,
            "persistent_workers": requests is not None and workers > 0,
            "pin_memory": pin_mem and torch.cuda.is_available(),
            "worker_init_fn": _settle_in,
        }
        self._seed = seed
        self._loader: DataLoader[Batch | UserError] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Raises the first answer that is an error; and WorkerDied, at any point, once a worker was killed."""
        if self._loader is None:
            generator = torch.Generator().manual_seed(self._seed)
            self._loader = DataLoader(**self._options, generator=generator)
        for answer in self._loader:
            watch_workers()
            if isinstance(answer, UserError):
                # whoever keeps the exception keeps this frame, and DataLoader takes seconds to end workers
                # that the garbage collector finds: let them go here
                self.close()
                raise UserError(*answer.args)
            yield answer

    def close(self) -> None:
        """Ends the workers."""
        self._loader = None


def _unchanged(batch: Any) -> Any:
    return batch


SECONDS_TO_LIVE_ON = 30
"""As long as batch systems wait between SIGTERM and SIGKILL."""


def _settle_in(worker: int) -> None:
    quiet_decoders()
    # What was inherited stays shared with the parent: a garbage collection here would write into all of it.
    gc.freeze()
    # Ctrl-C reaches all processes of the terminal, and batch systems send SIGTERM to all: the run finishes its
    # step, saves and ends its workers itself. Torch would end them at once, and the run with them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_TO_LIVE_ON))
