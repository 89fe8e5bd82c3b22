"""Saves that are written behind the next steps."""

from collections.abc import Callable
from threading import Thread

import torch


class Writer:
    """``with Writer(device) as writer``: writes one at a time; all have ended when the block ends.

    If the steps run on a GPU, it writes in a thread. The next :meth:`wait` raises the write's error: at the end of the
    block at the latest, where it replaces any other exception, because that may say that the state was saved.
    """

    def __init__(self, device: torch.device) -> None:
        # On a CPU a thread would take its time from the steps.
        self._behind = device.type != "cpu"
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def begin(self, write: Callable[[], None]) -> None:
        """Calls ``write``, after the write before has ended.

        That one is never dropped for a newer one: where saves are due faster than the disk takes them, none would be
        completed.
        """
        self.wait()
        if not self._behind:
            write()
            return
        # Not a daemon, which the end of the process would cut off.
        self._thread = Thread(target=self._run, args=(write,), name="save")
        self._thread.start()

    def wait(self) -> None:
        """Returns when the write that was begun last has ended; raises its error, if it failed."""
        # An interrupt may have come before the thread was started.
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error
