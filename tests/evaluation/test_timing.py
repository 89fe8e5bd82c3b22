"""Interleaved timing: order, batches, duration."""

import torch
from torch import nn

from isometry.evaluation.timing import (
    ROUNDS,
    WARM_UP_ROUNDS,
    TimedNetwork,
    images_per_second,
    interleaved_model_times,
    interleaved_times,
)


def test_images_per_second_restores_the_mode():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert images_per_second(model, (3, 2, 2), batch_size=4, seconds=0.01) > 0
    assert model.training


class Recording(nn.Module):
    """Records the order of models, their batches and modes."""

    def __init__(self, name: str, seen: list[tuple[str, int, bool]]) -> None:
        super().__init__()
        self.name, self.seen = name, seen

    def forward(self, batch):
        self.seen.append((self.name, int(batch[0]), self.training))


def test_models_are_interleaved_on_the_same_batches():
    seen: list[tuple[str, int, bool]] = []
    models = {name: Recording(name, seen) for name in "abc"}
    models["b"].eval()
    times = interleaved_model_times(models, [torch.tensor([0]), torch.tensor([1])], seconds=1e-9)
    rounds = [seen[at : at + 3] for at in range(0, len(seen), 3)]
    assert len(rounds) == WARM_UP_ROUNDS + ROUNDS
    for number, turn in enumerate(rounds, start=-WARM_UP_ROUNDS):
        assert sorted(name for name, _, _ in turn) == ["a", "b", "c"]
        assert {batch for _, batch, _ in turn} == {number % 2}
    assert len({tuple(name for name, _, _ in turn) for turn in rounds}) > 1
    assert not any(training for _, _, training in seen)
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abc", ROUNDS)
    assert [models[name].training for name in "abc"] == [True, False, True]


def test_timing_lasts_as_long_as_given(monkeypatch):
    """With a clock by which every pass takes a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("isometry.evaluation.timing.time.perf_counter", lambda: next(ticks))
    times = interleaved_model_times(
        {name: Recording(name, []) for name in "ab"}, [torch.zeros(1)], seconds=40
    )
    assert times == {name: [1] * 40 for name in "ab"}


def test_networks_have_their_own_batches():
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def recording(name):
        return lambda batch: seen[name].append(int(batch[0])) or batch

    networks = {
        "a": TimedNetwork(recording("a"), [torch.tensor([1]), torch.tensor([2])]),
        "b": TimedNetwork(recording("b"), [torch.tensor([7])]),
    }
    times = interleaved_times(networks, seconds=1e-9)
    assert set(seen["a"]) == {1, 2}
    assert set(seen["b"]) == {7}
    assert {name: len(taken) for name, taken in times.items()} == {"a": ROUNDS, "b": ROUNDS}
