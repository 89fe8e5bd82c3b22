"""SIGTERM and Ctrl-C as a stop request that the loop checks between steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was stopped by the signal ``signal_number``; ``saved``: after a save."""

    def __init__(self, message: str, signal_number: int, saved: bool = False) -> None:
        super().__init__(message)
        self.signal_number, self.saved = signal_number, saved

    @property
    def exit_code(self) -> int:
        """128 + signal, as in a shell; 0 for SIGTERM after a save, so that schedulers see no failure."""
        return 0 if self.saved and self.signal_number == signal.SIGTERM else 128 + self.signal_number


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises Interrupted at once, outside the loop, where nothing needs saving."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped; the last save is kept, go on with --resume", number)

    try:
        old = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


class StopRequest:
    """``with StopRequest() as stop``: ``stop.signal_number`` is None until SIGTERM or Ctrl-C.

    A second Ctrl-C raises KeyboardInterrupt. Outside the main thread, which alone may set handlers, it stays None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._old: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number is not None

    def __enter__(self) -> "StopRequest":
        try:
            self._old = {
                number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:
            self._old = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
