"""DataLoader workers that are killed, and workers left over when a run ends."""

import multiprocessing
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from isometry.errors import UserError


class WorkerDied(BaseException):
    """A DataLoader worker was killed; carries torch's message.

    Not an ``Exception``: like KeyboardInterrupt it can be raised anywhere, even in a save, where an ``except`` meant
    for that code's own errors must not catch it.
    """


@contextmanager
def worker_deaths(advice: Callable[[], str]) -> Iterator[None]:
    """Turns the death of a worker inside the block into a one-line UserError that ends with ``advice()``."""
    _Watch.raised = False
    try:
        yield
    except (WorkerDied, RuntimeError) as error:
        message = str(error)
        # torch's wording for a dead worker; for an exception in a live one it is "worker process".
        if not isinstance(error, WorkerDied) and "DataLoader worker (pid" not in message:
            raise
        name = re.search(r"killed by signal: ([\w ]+)", message)
        by = f" by a signal ({name[1]})" if name else ""
        memory, remedy = "memory", "fewer --workers"
        if "shared memory" in message:
            memory, remedy = "shared memory (/dev/shm)", "a container's --shm-size 2g, or --workers 0"
        raise UserError(
            f"a data loading process was killed{by}, most often because {memory} ran out; {advice()}, "
            f"perhaps with {remedy}"
        ) from error


def watch_workers() -> None:
    """Makes torch's SIGCHLD handler, installed with the first worker, raise :class:`WorkerDied`."""
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _Watch) and _in_main_thread():
        signal.signal(signal.SIGCHLD, _Watch(handler))


class _Watch:
    """torch's signal handler, raising WorkerDied instead of RuntimeError, once in a block of :func:`worker_deaths`.

    Where memory runs out, several workers die. The run ends with the first; an error from the next would come while
    the message is printed.
    """

    raised = False

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handler(number, frame)
        except RuntimeError as error:
            if not _Watch.raised:
                _Watch.raised = True
                raise WorkerDied(str(error)) from None


def end_workers() -> None:
    """Kills workers that an error left behind; called just before the process exits.

    Otherwise Python would send them SIGTERM at exit and wait the half minute that they survive it (see
    :mod:`isometry.data.map_loader`), and torch would report their end as an error.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers and _in_main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
        worker.join()


def _in_main_thread() -> bool:
    """Only the main thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()
