"""SIGTERM and Ctrl-C as a stop request that the loop checks between steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The run was stopped by the signal ``signal_number``; ``saved``: after a save.

    No Exception, as KeyboardInterrupt is none: a library's failure is told from it wherever all of them are caught.
    """

    def __init__(self, message: str, signal_number: int, saved: bool = False) -> None:
        super().__init__(message)
        self.signal_number, self.saved = signal_number, saved

    @property
    def exit_code(self) -> int:
        """128 + signal, as in a shell; 0 for SIGTERM after a save, so that schedulers see no failure."""
        return 0 if self.saved and self.signal_number == signal.SIGTERM else 128 + self.signal_number


@contextmanager
def sigterm_interrupts(advice: Callable[[], str]) -> Iterator[None]:
    """SIGTERM raises Interrupted at once, outside the loop, where nothing needs saving; ``advice`` ends its message."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped; {advice()}", number)

    with _handled_by(interrupt, signal.SIGTERM):
        yield


class StopRequest:
    """``signal_number`` is None until SIGTERM or Ctrl-C arrives in a :meth:`listening` block."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def received(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal_number is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are recorded inside the block; a second Ctrl-C raises KeyboardInterrupt."""
        with _handled_by(self._record, signal.SIGTERM, signal.SIGINT):
            yield

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        # Only the main thread may set handlers.
        before = {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
