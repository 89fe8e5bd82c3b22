"""Seconds of training by phase, measured without waiting for the device."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

PHASES = ("data", "teacher", "student", "terms", "backward", "optimizer")
"""The phases of a training step, in the order of tables; "data" is the time that it waits for images."""


_Event = Any
"""``torch.cuda.Event`` or :class:`_HostEvent`."""


class PhaseTimer:
    """``with timer("teacher"): ...`` adds to the phase's seconds; :meth:`read` returns them and starts anew.

    Time in a nested phase does not count for the outer one. On a GPU, the time is that between events in its queue, so
    waiting for data counts only while the device has nothing to do.

    Args:
        device: that does the timed work; by default the host.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        on_gpu = device is not None and device.type == "cuda"
        self._event: Any = partial(torch.cuda.Event, enable_timing=True) if on_gpu else _HostEvent
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._spans: deque[tuple[str, _Event, _Event]] = deque()
        self._phase: str | None = None
        self._began: _Event = self._event()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block, as work on the device."""
        outer = self._phase
        self._switch_to(phase)
        try:
            yield
        finally:
            self._switch_to(outer)

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last reading; waits for the device."""
        self._switch_to(self._phase)
        while self._spans:
            self._spans[0][-1].synchronize()
            self._add(*self._spans.popleft())
        read, self._seconds = dict(self._seconds), defaultdict(float)
        return read

    def _switch_to(self, phase: str | None) -> None:
        now = self._event()
        now.record()
        if self._phase is not None:
            self._spans.append((self._phase, self._began, now))
        self._phase, self._began = phase, now
        # Finished spans are summed at once, so that events do not pile up over a long epoch.
        while self._spans and self._spans[0][-1].query():
            self._add(*self._spans.popleft())

    def _add(self, phase: str, began: _Event, ended: _Event) -> None:
        self._seconds[phase] += began.elapsed_time(ended) / 1000


class _HostEvent:
    """The same methods as ``torch.cuda.Event``, for the host, whose work is done when a phase ends."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Nothing is queued."""

    def elapsed_time(self, end_event: "_HostEvent") -> float:
        return 1000 * (end_event.seconds - self.seconds)
