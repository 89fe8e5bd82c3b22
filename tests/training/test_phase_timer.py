"""The phase timer: sums, nested phases, and events in a GPU's queue, which is simulated."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest
import torch

from isometry.report.records.data import REST
from isometry.training import phase_timer
from isometry.training.phase_timer import PHASES, PhaseTimer


class Clock:
    """Stands still till it is told; what ``time`` and events of the queue go by."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(phase_timer, "time", clock)
    return clock


class Queue:
    """A device that begins a piece of work when it is queued and the one before is done."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.free = clock, 0.0

    def work(self, seconds: float) -> None:
        """Queued; the host does not wait."""
        self.free = max(self.free, self.clock.now) + seconds

    def event(self, *, enable_timing: bool) -> "QueuedEvent":
        """In place of ``torch.cuda.Event``."""
        assert enable_timing
        return QueuedEvent(self)


class QueuedEvent:
    """Passed when all is done that was queued before it."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.at: float | None = None

    def record(self) -> None:
        self.at = max(self.queue.free, self.queue.clock.now)

    def query(self) -> bool:
        assert self.at is not None
        return self.at <= self.queue.clock.now

    def synchronize(self) -> None:
        assert self.at is not None
        self.queue.clock.now = max(self.queue.clock.now, self.at)

    def elapsed_time(self, later: "QueuedEvent") -> float:
        # As CUDA does, which knows no times of events that are not passed.
        assert self.at is not None
        assert later.at is not None
        assert later.query()
        return 1000 * (later.at - self.at)


@pytest.fixture
def queue(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(clock)
    monkeypatch.setattr(torch.cuda, "Event", queue.event)
    return queue


ON_GPU = torch.device("cuda")


def test_seconds_of_a_phase_add_up_and_others_are_none_of_them(clock: Clock) -> None:
    timer = PhaseTimer()
    for seconds in (1.0, 2.0, 4.0):
        with timer("teacher"):
            clock.now += seconds
        clock.now += 100
        with timer("student"):
            clock.now += 10 * seconds
    assert timer.read() == pytest.approx({"teacher": 7.0, "student": 70.0})


def test_reading_starts_anew(clock: Clock) -> None:
    timer = PhaseTimer(torch.device("cpu"))
    assert timer.read() == {}
    with timer("data"):
        clock.now += 1
    assert timer.read() == {"data": 1.0}
    assert timer.read() == {}
    with timer("data"):
        clock.now += 2
    assert timer.read() == {"data": 2.0}


def test_a_phase_inside_another_counts_for_itself_alone(clock: Clock) -> None:
    timer = PhaseTimer()
    with timer(REST):
        clock.now += 1
        for phase, seconds in zip(PHASES, count(10), strict=False):
            with timer(phase):
                clock.now += seconds
        clock.now += 2
    found = timer.read()
    assert found == pytest.approx({**dict(zip(PHASES, count(10), strict=False)), REST: 3.0})
    assert sum(found.values()) == pytest.approx(clock.now)


def test_a_phase_inside_itself_is_not_counted_twice(clock: Clock) -> None:
    timer = PhaseTimer()
    with timer("teacher"):
        clock.now += 1
        with timer("student"), timer("teacher"):
            clock.now += 2
        clock.now += 4
    assert timer.read() == pytest.approx({"teacher": 7.0, "student": 0.0})


def test_what_failed_took_time_too_and_fails_as_before(clock: Clock) -> None:
    timer = PhaseTimer()

    def fail() -> None:
        with timer(REST), timer("backward"):
            clock.now += 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.now += 100
    with timer("student"):
        clock.now += 1
    assert timer.read() == pytest.approx({"backward": 3.0, REST: 0.0, "student": 1.0})


def test_a_generator_that_is_left_early_leaves_no_phase_open(clock: Clock) -> None:
    timer = PhaseTimer()

    def batches() -> Iterator[int]:
        for number in range(3):
            with timer("data"):
                clock.now += 1
            yield number

    with timer(REST):
        for number in batches():
            clock.now += 10
            if number == 1:
                break
    assert timer.read() == pytest.approx({"data": 2.0, REST: 20.0})


def test_reading_inside_a_phase_gives_it_its_part(clock: Clock) -> None:
    timer = PhaseTimer()
    with timer("terms"):
        clock.now += 1
        assert timer.read() == {"terms": 1.0}
        clock.now += 2
    assert timer.read() == {"terms": 2.0}


def test_the_real_clock_is_in_seconds() -> None:
    import time

    timer = PhaseTimer()
    with timer("data"):
        begun = time.perf_counter()
        time.sleep(0.02)
        slept = time.perf_counter() - begun
    (found,) = timer.read().values()
    assert found >= slept


def test_queued_work_counts_for_the_phase_that_queued_it(clock: Clock, queue: Queue) -> None:
    timer = PhaseTimer(ON_GPU)
    for _ in range(3):
        with timer("teacher"):
            queue.work(2)
        with timer("student"):
            queue.work(5)
    assert clock.now == 0
    assert timer.read() == pytest.approx({"teacher": 6.0, "student": 15.0})
    assert clock.now == 21


@pytest.mark.parametrize(("waited", "starved"), [(3.0, 0.0), (7.0, 0.0), (9.0, 2.0)])
def test_waiting_for_data_counts_as_far_as_the_device_has_no_work(
    waited: float, starved: float, clock: Clock, queue: Queue
) -> None:
    timer = PhaseTimer(ON_GPU)
    with timer("backward"):
        queue.work(7)
    with timer("data"):
        clock.now += waited
    with timer("student"):
        queue.work(1)
    assert timer.read() == pytest.approx({"backward": 7.0, "data": starved, "student": 1.0})
    assert clock.now == pytest.approx(8 + starved)


def test_phases_of_a_device_add_up_to_its_time(clock: Clock, queue: Queue) -> None:
    timer = PhaseTimer(ON_GPU)
    with timer(REST):
        for _ in range(4):
            with timer("data"):
                clock.now += 1.5
            with timer("student"):
                queue.work(0.5)
            with suppress(ValueError), timer("terms"):
                queue.work(0.25)
                raise ValueError
            queue.work(0.125)
    assert sum(timer.read().values()) == pytest.approx(clock.now)


def test_events_that_are_passed_are_not_kept(clock: Clock, queue: Queue) -> None:
    """A long epoch, whose losses are read now and then, must not fill the memory."""
    timer = PhaseTimer(ON_GPU)
    kept = []
    for _ in range(200):
        for phase in PHASES:
            with timer(phase):
                queue.work(1)
        kept.append(len(timer._spans))
        clock.now += 5.99
    assert max(kept) <= 3 * len(PHASES)
    assert timer.read() == pytest.approx(dict.fromkeys(PHASES, 200.0))
    assert not timer._spans
