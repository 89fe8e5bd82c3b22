"""Copies to a GPU: a batch ahead, on a stream of their own; tried on a stand-in for the device."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from isometry.data import Batch, copied_ahead

GPU = torch.device("cuda", 0)


class Images:
    """Images that record where they are copied and used."""

    def __init__(self, number: int, events: list[tuple[Any, ...]]) -> None:
        self.number, self.events = number, events

    def to(self, device: torch.device, *, non_blocking: bool) -> "Images":
        assert device == GPU
        assert non_blocking
        self.events.append(("copy", self.number, Device.active))
        return Images(self.number, self.events)

    def record_stream(self, stream: str) -> None:
        self.events.append(("used by", self.number, stream))


class Device:
    """The streams of a GPU, by name."""

    active = "main"

    def __init__(self, events: list[tuple[Any, ...]]) -> None:
        self.events, self.copies = events, 0

    def record_event(self) -> int:
        self.copies += 1
        return self.copies

    def wait_event(self, number: int) -> None:
        self.events.append(("wait", number))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    side, main = Device(found), Device(found)

    @contextmanager
    def stream(given: Device):
        assert given is side
        Device.active = "side"
        yield
        Device.active = "main"

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    return found


def batches(count: int, events: list[tuple[Any, ...]]) -> list[Batch]:
    return [
        Batch(Images(number, events), torch.tensor([number]), torch.tensor([0]), [])
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_next_batch_is_copied_before_one_is_handed_out(count: int, events: list[tuple[Any, ...]]):
    seen = []
    for batch in copied_ahead(batches(count, events), GPU):
        number = batch.images.number
        seen.append(number)
        copied = [event[1] for event in events if event[0] == "copy"]
        assert copied == list(range(min(number + 2, count)))
        # The computation waits for its own copy, and for no other.
        assert [event[1] for event in events if event[0] == "wait"] == list(range(1, number + 2))
        assert events[-1][:2] == ("used by", number)
    assert seen == list(range(count))
    assert {event[2] for event in events if event[0] == "copy"} <= {"side"}


def test_on_a_cpu_batches_are_handed_out_one_by_one(events: list[tuple[Any, ...]]):
    taken = []

    def reading():
        for batch in batches(3, events):
            taken.append(batch)
            yield batch

    given = copied_ahead(reading(), torch.device("cpu"))
    assert next(given) is taken[0]
    assert len(taken) == 1
    assert not events
