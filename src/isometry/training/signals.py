"""SIGTERM and Ctrl-C as a wish that the loop reads between steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, by the signal ``signal_number``; ``saved``: it has saved where it stood."""

    def __init__(self, message: str, signal_number: int, saved: bool = False) -> None:
        super().__init__(message)
        self.signal_number, self.saved = signal_number, saved

    @property
    def exit_code(self) -> int:
        """128 + signal, as a shell has it; 0 for a scheduler's SIGTERM that cost nothing."""
        return 0 if self.saved and self.signal_number == signal.SIGTERM else 128 + self.signal_number


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Outside the loop nothing needs saving: there SIGTERM raises Interrupted at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped; what was saved before is kept, go on with --resume", number)

    try:
        old = signal.signal(signal.SIGTERM, leave)
    except ValueError:
        # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


class StopRequest:
    """``with StopRequest() as wish``: ``wish.signal_number`` is None until SIGTERM or Ctrl-C comes.

    A second Ctrl-C does not wait for the step. Outside the main thread, which alone may set handlers, it
    stays None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        try:
            self._old = {
                number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:
            self._old = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
