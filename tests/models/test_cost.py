"""What a model costs: MACs against counts by hand."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from helpers.small_transformers import cait, vit
from isometry.evaluation.timing import (
    ROUNDS,
    WARM_UP_ROUNDS,
    TimedNetwork,
    images_per_second,
    taking_turns,
    times_in_turns,
)
from isometry.models.cost import _count, macs, parameter_count


def test_macs_of_a_vit_are_those_of_its_matrix_products():
    tokens, width, depth = 64 + 1, 48, 3
    patches = 64 * width * 3 * 8 * 8
    projections = depth * tokens * (3 + 1 + 4 + 4) * width * width
    attention = depth * 2 * tokens * tokens * width
    assert macs(vit(), (3, 64, 64)) == patches + projections + attention + width * 10


def test_macs_of_a_convolution():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert macs(network, (3, 6, 6)) == 36 * 8 * 27 + 8 * 36 * 5


@pytest.mark.parametrize("build", [vit, cait, lambda: timm.create_model("mobilenetv3_small_050")])
def test_counting_on_shapes_equals_counting_in_earnest(build):
    model, size = build().eval(), (3, 64, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert (
        macs(model, size)
        == _count(model, size, torch.device("meta"))
        == _count(model, size, torch.device("cpu"))
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_counting_leaves_a_training_model_as_it_was():
    model = timm.create_model("resnet18", num_classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, (3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


class LooksAtValues(nn.Module):
    """A network whose forward can't be traced on shapes."""

    def __init__(self, look: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.look = look
        self.linear = nn.Linear(4, 2)

    def forward(self, image):
        assert not self.look(image)
        return self.linear(image.flatten(1))


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda image: image.sum().item(), id="a number"),
        pytest.param(lambda image: image.any(), id="a condition"),
        pytest.param(lambda image: image.nonzero().tolist(), id="places"),
        pytest.param(lambda image: image.numpy().any(), id="an array"),
        pytest.param(lambda image: (image + torch.zeros(2)).any(), id="beside a tensor of its own"),
    ],
)
def test_a_network_that_looks_at_values_is_run_in_earnest(look):
    assert macs(LooksAtValues(look), (1, 2, 2)) == 8


def test_an_image_that_does_not_fit_is_refused_by_the_first_pass():
    """A second one, in earnest, would say the same later."""
    model, calls = vit(), []
    model.patch_embed.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(AssertionError, match="doesn't match model"):
        macs(model, (3, 32, 32))
    assert calls == [1]


def test_parameters():
    assert parameter_count(nn.Linear(4, 3)) == 15


def test_images_per_second_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert images_per_second(model, (3, 2, 2), batch_size=4, seconds=0.01) > 0
    assert model.training


class Noting(nn.Module):
    """Writes down which model saw which batch, and in which mode."""

    def __init__(self, name: str, seen: list[tuple[str, int, bool]]) -> None:
        super().__init__()
        self.name, self.seen = name, seen

    def forward(self, batch):
        self.seen.append((self.name, int(batch[0]), self.training))


def test_models_take_turns_on_the_same_batches():
    seen: list[tuple[str, int, bool]] = []
    models = {name: Noting(name, seen) for name in "abc"}
    models["b"].eval()
    times = taking_turns(models, [torch.tensor([0]), torch.tensor([1])], seconds=1e-9)
    rounds = [seen[at : at + 3] for at in range(0, len(seen), 3)]
    assert len(rounds) == WARM_UP_ROUNDS + ROUNDS
    for number, turn in enumerate(rounds, start=-WARM_UP_ROUNDS):
        assert sorted(name for name, _, _ in turn) == ["a", "b", "c"]
        assert {batch for _, batch, _ in turn} == {number % 2}
    assert len({tuple(name for name, _, _ in turn) for turn in rounds}) > 1
    assert not any(training for _, _, training in seen)
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abc", ROUNDS)
    assert [models[name].training for name in "abc"] == [True, False, True]


def test_turns_go_on_for_as_long_as_is_asked(monkeypatch):
    """With a clock on which every pass takes a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("isometry.models.cost.time.perf_counter", lambda: next(ticks))
    times = taking_turns({name: Noting(name, []) for name in "ab"}, [torch.zeros(1)], seconds=40)
    assert times == {name: [1] * 40 for name in "ab"}


def test_contenders_have_batches_of_their_own():
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def noting(name):
        return lambda batch: seen[name].append(int(batch[0])) or batch

    contenders = {
        "a": TimedNetwork(noting("a"), [torch.tensor([1]), torch.tensor([2])]),
        "b": TimedNetwork(noting("b"), [torch.tensor([7])]),
    }
    times = times_in_turns(contenders, seconds=1e-9)
    assert set(seen["a"]) == {1, 2}
    assert set(seen["b"]) == {7}
    assert {name: len(taken) for name, taken in times.items()} == {"a": ROUNDS, "b": ROUNDS}
