"""Loading processes that end before their run, and runs that end before their loading processes."""

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
    """A loading process was killed; what torch says of it.

    No Exception, for like KeyboardInterrupt it comes from outside, amid whatever the run is doing, even a save: an
    ``except`` there, which answers for that work's own errors, would take it for one of them and go on.
    """


@contextmanager
def worker_deaths(advice: Callable[[], str]) -> Iterator[None]:
    """A loading process that is killed while the block runs becomes a UserError of one line, with ``advice``."""
    try:
        yield
    except (WorkerDied, RuntimeError) as error:
        told = str(error)
        # What torch raises where it waits for a dead one. Of an error in a living one it says "worker process".
        if not isinstance(error, WorkerDied) and "DataLoader worker (pid" not in told:
            raise
        name = re.search(r"killed by signal: ([\w ]+)", told)
        by = f" by a signal ({name[1]})" if name else ""
        memory = "shared memory (/dev/shm)" if "shared memory" in told else "memory"
        raise UserError(
            f"a data loading process was killed{by}, most often because {memory} ran out; {advice()}, "
            "perhaps with fewer --workers"
        ) from error


def watch_workers() -> None:
    """Lets torch's handler of SIGCHLD, which is there once loading processes are, raise :class:`WorkerDied`."""
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _Watch) and _in_main_thread():
        signal.signal(signal.SIGCHLD, _Watch(handler))


class _Watch:
    """A handler of a signal: torch's, with another error."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handler(number, frame)
        except RuntimeError as error:
            raise WorkerDied(str(error)) from None


def end_workers() -> None:
    """Ends the loading processes that an error has left behind in this process; for the last thing that it does.

    At its exit Python would send them SIGTERM, which they outlive by half a minute (see :mod:`isometry.data.map_loader`),
    and wait; and torch would then call their end an error.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers and _in_main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
        worker.join()


def _in_main_thread() -> bool:
    """The only one that may set handlers."""
    return threading.current_thread() is threading.main_thread()
