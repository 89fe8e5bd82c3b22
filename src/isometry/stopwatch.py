"""Where the time of training goes: seconds by phase, without waiting for a device while it works."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("data", "teacher", "student", "terms", "backward", "optimizer")
"""The phases of a training step, in the order in which they are shown."""


class Stopwatch:
    """``with watch("teacher"): ...`` adds to the phase's seconds; :meth:`read` gives them all and starts anew.

    On a GPU, whose work is only queued when a block is left, a phase is measured between two events in its queue.

    Args:
        device: where the timed work is done.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._queued = device is not None and device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block, as work on the device."""
        if not self._queued:
            with self.waiting(phase):
                yield
            return
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        try:
            yield
        finally:
            ended.record()
            self._events.append((phase, begun, ended))

    @contextmanager
    def waiting(self, phase: str) -> Iterator[None]:
        """Times the block by this process's clock: what the host waits for."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - begun

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last reading; waits for the device."""
        for phase, begun, ended in self._events:
            ended.synchronize()
            self._seconds[phase] += begun.elapsed_time(ended) / 1000
        self._events.clear()
        read, self._seconds = dict(self._seconds), defaultdict(float)
        return read
