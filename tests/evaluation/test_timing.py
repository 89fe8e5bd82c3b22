"""Interleaved timing: order, batches, duration."""

import pytest
import torch
from torch import nn

from isometry.evaluation.timing import (
    ROUNDS,
    WARM_UP_ROUNDS,
    images_per_second,
    interleaved_times,
)


@pytest.mark.parametrize("mode", [True, False])
def test_images_per_second_is_that_of_eval_mode_and_restores_the_mode(mode):
    model, modes = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).train(mode), set()
    model.register_forward_hook(lambda module, *_: modes.add(module.training))
    assert images_per_second(model, (3, 2, 2), batch_size=4, seconds=0.01) > 0
    assert modes == {False}
    assert model.training is mode


class Recording(nn.Module):
    """Records the order of models and their batches."""

    def __init__(self, name: str, seen: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.seen = name, seen

    def forward(self, batch):
        self.seen.append((self.name, int(batch[0])))


def test_models_are_interleaved_on_the_same_batches():
    seen: list[tuple[str, int]] = []
    batches = [torch.tensor([0]), torch.tensor([1])]
    times = interleaved_times({name: (Recording(name, seen), batches) for name in "abc"}, seconds=1e-9)
    rounds = [seen[at : at + 3] for at in range(0, len(seen), 3)]
    assert len(rounds) == WARM_UP_ROUNDS + ROUNDS
    for number, turn in enumerate(rounds, start=-WARM_UP_ROUNDS):
        assert sorted(name for name, _ in turn) == ["a", "b", "c"]
        assert {batch for _, batch in turn} == {number % 2}
    assert len({tuple(name for name, _ in turn) for turn in rounds}) > 1
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abc", ROUNDS)


def test_timing_lasts_as_long_as_given(monkeypatch):
    """With a clock by which every pass takes a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("isometry.evaluation.timing.time.perf_counter", lambda: next(ticks))
    times = interleaved_times({name: (Recording(name, []), [torch.zeros(1)]) for name in "ab"}, seconds=40)
    assert times == {name: [1] * 40 for name in "ab"}


def test_networks_have_their_own_batches():
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def recording(name):
        return lambda batch: seen[name].append(int(batch[0])) or batch

    networks = {
        "a": (recording("a"), [torch.tensor([1]), torch.tensor([2])]),
        "b": (recording("b"), [torch.tensor([7])]),
    }
    times = interleaved_times(networks, seconds=1e-9)
    assert set(seen["a"]) == {1, 2}
    assert set(seen["b"]) == {7}
    assert {name: len(taken) for name, taken in times.items()} == {"a": ROUNDS, "b": ROUNDS}
