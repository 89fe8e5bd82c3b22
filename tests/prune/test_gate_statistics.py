"""An epoch's means: every image once, with the same bits for any order, number of processes and stops."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.saliencies import IMAGES, LAYERS, epoch
from isometry.distributed import World
from isometry.prune.gate_statistics import GateStatistics

ALONE = World(0, 1, torch.device("cpu"))


def add(statistics: GateStatistics, rows: Tensor | slice) -> None:
    saliencies, entropies = epoch()
    statistics.add([layer[rows] for layer in saliencies], entropies[rows])


def message(statistics: GateStatistics) -> list[Any]:
    means, entropy = statistics.means()
    assert list(means) == list(LAYERS)
    return [mean.tolist() for mean in means.values()] + [entropy]


def in_one_go() -> GateStatistics:
    statistics = GateStatistics(LAYERS, ALONE)
    add(statistics, slice(None))
    statistics.settle()
    return statistics


def test_means_are_those_of_the_images():
    means, entropy = in_one_go().means()
    saliencies, entropies = epoch()
    for mean, layer in zip(means.values(), saliencies, strict=True):
        assert mean.dtype == torch.float64
        torch.testing.assert_close(mean, layer.double().mean(0), rtol=0, atol=1e-9)
    assert entropy == pytest.approx(entropies.double().mean().item(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_any_steps_and_any_moments_of_settling_give_the_same_bits(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(IMAGES, generator=generator)
    statistics = GateStatistics(LAYERS, ALONE)
    ends = sorted({*torch.randint(1, IMAGES, (7,), generator=generator).tolist(), IMAGES})
    for number, (start, end) in enumerate(pairwise([0, *ends])):
        add(statistics, order[start:end])
        if number % 3 == seed:
            statistics.settle()
    statistics.settle()
    assert message(statistics) == message(in_one_go())
    statistics.settle()
    assert message(statistics) == message(in_one_go()), "settling once more counts nothing twice"


def test_images_count_once_they_are_settled():
    statistics = in_one_go()
    add(statistics, slice(0, 10))
    assert message(statistics) == message(in_one_go())
    statistics.settle()
    assert message(statistics) != message(in_one_go())


def test_what_an_autocast_step_gives_counts_the_same():
    """Cross-entropy may come in another type than saliencies."""
    saliencies, _ = epoch()
    halves = torch.full((IMAGES,), 0.5)
    found = []
    for entropies in (halves, halves.bfloat16(), halves.double()):
        statistics = GateStatistics(LAYERS, ALONE)
        statistics.add(saliencies, entropies)
        statistics.settle()
        found.append(message(statistics))
    assert found[0] == found[1] == found[2]
    assert found[0][-1] == 0.5


def test_no_graph_is_kept():
    statistics = GateStatistics({"0": 2}, ALONE)
    statistics.add([torch.ones(3, 2, requires_grad=True) * 2], torch.ones(3, requires_grad=True))
    statistics.settle()
    assert not statistics.means()[0]["0"].requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_do_not_poison_the_rest(value):
    saliencies, entropies = epoch()
    saliencies[1][7, 3] = value
    entropies[9] = value
    statistics = GateStatistics(LAYERS, ALONE)
    statistics.add(saliencies, entropies)
    statistics.settle()
    means, entropy = statistics.means()
    saliencies[1][7, 3], entropies[9] = 0, 0
    torch.testing.assert_close(means["1"], saliencies[1].double().mean(0), rtol=0, atol=1e-9)
    assert entropy == pytest.approx(entropies.double().mean().item(), abs=1e-9)


def test_a_million_images_of_large_saliencies_fit():
    statistics = GateStatistics({"0": 1}, ALONE)
    for _ in range(10):
        statistics.add([torch.full((100_000, 1), 1000.0)], torch.full((100_000,), 1000.0))
    statistics.settle()
    means, entropy = statistics.means()
    assert (means["0"].item(), entropy) == (1000.0, 1000.0)


def test_another_epoch_begins_at_nothing():
    statistics = GateStatistics(LAYERS, ALONE)
    add(statistics, slice(0, 10))
    statistics.settle()
    add(statistics, slice(10, 20))
    statistics.clear()
    add(statistics, slice(None))
    statistics.settle()
    assert message(statistics) == message(in_one_go())


def test_state_goes_round_through_a_file(tmp_path):
    first = GateStatistics(LAYERS, ALONE)
    add(first, slice(0, 23))
    first.settle()
    save_file(first.state_dict(), tmp_path / "gates.safetensors")
    second = GateStatistics(LAYERS, ALONE)
    add(second, slice(0, 50))
    second.load_state_dict(load_file(tmp_path / "gates.safetensors"))
    add(second, slice(23, None))
    second.settle()
    assert message(second) == message(in_one_go())


def test_a_network_without_gates_has_nothing_to_save():
    statistics = GateStatistics({}, ALONE)
    assert statistics.state_dict() == {}
    statistics.load_state_dict({})
