"""What loading processes take from the system - shared memory, file handles - and what is said where it runs out.

DataLoader shares tensors in a thread of the worker, whose errors are printed while the run waits for ever. Here the
worker shares them itself and returns an error like any other.
"""

import errno
import math
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import get_worker_info

from isometry.config import DataConfig
from isometry.data.batch_reader import Batch
from isometry.data.image_spec import ImageSpec
from isometry.errors import NO_HANDLES, UserError, first_line, lacks_handles, reason
from isometry.files import format_bytes

SHARED_MEMORY = "/dev/shm"
MORE_SHARED_MEMORY = (
    "give a container more, e.g. --shm-size 2g (Docker's default is 64 MB), "
    "or load without processes: --workers 0"
)
"""What helps where shared memory runs out."""
NO_START = (errno.ENOSPC, errno.ENOMEM, errno.EAGAIN)
"""Errors of a system that can't start another process, or make its queues, which are in shared memory."""
READY = 2
"""Batches that a worker reads ahead (DataLoader's ``prefetch_factor``)."""
HANDLES, HANDLES_OF_WORKER = 16, 12
"""File handles that a loader needs, and more for each worker: its process, its queues, three tensors of each batch."""


def shared(batch: Batch | UserError) -> Batch | UserError:
    """In a worker, the batch in shared memory, or the error that says why it can't be; elsewhere the batch."""
    if get_worker_info() is None or isinstance(batch, UserError):
        return batch
    try:
        for tensor in (batch.images, batch.targets, batch.indices):
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        if lacks_handles(error):
            return UserError(NO_HANDLES)
        return UserError(
            f"too little shared memory for the batches of data loading processes ({format_bytes(batch.images.nbytes)} "
            f"each; {_room() or first_line(error)}); {MORE_SHARED_MEMORY}"
        )
    return batch


def small_shared_memory(config: DataConfig, spec: ImageSpec, validates: bool, processes: int) -> list[str]:
    """A note if shared memory has no room for the batches that workers hold ready: they wait, or can't go on.

    Each worker holds two batches of uint8 images, B·C·H·W bytes each; those of validation read their first ones while
    those of training go on. ``processes`` are those of the run on this machine.
    """
    image = math.prod(spec.input_size)
    batches = [config.batch_size, *([config.validation_batch_size or config.batch_size] if validates else [])]
    needed = processes * config.workers * READY * image * sum(batches)
    space = _space()
    if space is None or needed <= space[1]:
        return []
    sizes = " and ".join(format_bytes(image * size) for size in batches)
    return [
        f"{_room()}, and --workers {config.workers} may hold {format_bytes(needed)} of batches ready there ({READY} "
        f"a worker{f' and process, of {processes}' if processes > 1 else ''}, {sizes} each): loading may be slow or "
        f"stop; {MORE_SHARED_MEMORY}"
    ]


@contextmanager
def starting(workers: int) -> Iterator[None]:
    """Raises the limit of file handles to what so many workers need, and turns errors of their start into a UserError.

    Raises:
        UserError: the system allows no more file handles, processes or shared memory.
    """
    if not workers:
        yield
        return
    _have_handles(HANDLES + HANDLES_OF_WORKER * workers)
    try:
        yield
    except OSError as error:
        _drop_quietly(error)
        if error.errno not in NO_START:
            raise
        raise UserError(
            f"data loading processes can't start ({reason(error)}; {_room()}); {MORE_SHARED_MEMORY}"
        ) from error


@contextmanager
def handles() -> Iterator[None]:
    """Turns an error of too few file handles into a UserError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not lacks_handles(error):
            raise
        raise UserError(NO_HANDLES) from error


def _have_handles(needed: int) -> None:
    """Makes sure that so many files can be opened; an ordinary user may raise the limit up to the hard one."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/dev/fd")) + needed
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return
    if most != resource.RLIM_INFINITY and most < wanted:
        raise UserError(
            f"{NO_HANDLES} (the limit is {most}, data loading needs {wanted}), or give fewer --workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _drop_quietly(error: BaseException) -> None:
    """Deletes what a failed start left in its frames: half an iterator, whose end Python would report as an error."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)
    sys.unraisablehook = hook


def _room() -> str:
    if (space := _space()) is None:
        return ""
    total, free = map(format_bytes, space)
    return f"{SHARED_MEMORY} has {total}, {free} free"


def _space() -> tuple[int, int] | None:
    """Bytes of shared memory, and those that are free; None where it is no file system."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
