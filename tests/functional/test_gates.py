"""The equations of dynamic pruning against loops that say the same, and the laws that they obey."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.runs import as_rank, in_two_processes
from isometry.functional.gates import (
    adaptive_sparsity,
    adaptive_weight,
    keep_rate_at,
    kept_gates,
    layer_threshold,
    similarity_gap,
)
from isometry.losses import Similarity, Sparsity
from oracles import gates as oracle
from oracles.relations import explicit_gap

B, G, C = 6, 5, 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """As saliencies are: about half of them 0."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).clamp(min=0)


# --- which gates are open


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0, 100.0, float("inf")])
def test_open_gates_are_those_of_the_loops(threshold):
    saliencies = torch.cat([drawn(40, G), torch.zeros(2, G), torch.ones(2, G)])
    found = kept_gates(saliencies, torch.tensor(threshold))
    assert found.dtype == torch.bool
    assert found.tolist() == [oracle.kept(row, threshold) for row in saliencies.tolist()]
    assert found.any(1).all(), "no image may be left without a channel"


def test_a_saliency_of_the_threshold_itself_is_open():
    assert kept_gates(torch.tensor([[0.5, 0.25, 1.0]]), 0.5).tolist() == [[True, False, True]]


def test_a_higher_threshold_never_opens_a_gate():
    saliencies = drawn(50, 12)
    kept = [kept_gates(saliencies, step / 10) for step in range(30)]
    assert all((lower | ~higher).all() for lower, higher in pairwise(kept))
    assert (kept[-1].sum(1) == 1).any()


def test_an_image_is_judged_alone():
    saliencies = drawn(B, G)
    together = kept_gates(saliencies, 0.4)
    assert torch.equal(together, torch.cat([kept_gates(row[None], 0.4) for row in saliencies]))


# --- thresholds


@pytest.mark.parametrize("keep_rate", ["0.001", "0.07", "0.28", "0.55", "0.6", "0.999", "1"])
@pytest.mark.parametrize("gates", [1, 5, 15, 16, 50, 100, 300])
def test_the_threshold_is_the_one_of_the_sorted_list(keep_rate, gates):
    """With sizes and rates such as 0.07·100, a hair above 7 in floating point."""
    means = torch.rand(gates, generator=torch.Generator().manual_seed(gates), dtype=torch.float64)
    assert float(layer_threshold(means, float(keep_rate))) == oracle.threshold(means.tolist(), keep_rate)


def test_every_percentage_of_every_width_keeps_as_many_as_exact_arithmetic_says():
    for gates in (10, 15, 16, 24, 64, 100, 200, 512):
        means = torch.arange(1, gates + 1, dtype=torch.float64)
        for percent in range(1, 101):
            kept = int((means >= layer_threshold(means, percent / 100)).sum())
            assert kept == math.ceil(Fraction(percent, 100) * gates), (gates, percent)


def test_a_larger_keep_rate_never_raises_the_threshold():
    means = drawn(64)
    thresholds = [float(layer_threshold(means, rate / 50)) for rate in range(1, 51)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] == means.min()


def test_order_of_gates_does_not_matter():
    means = drawn(31)
    assert layer_threshold(means.flip(0), 0.4) == layer_threshold(means, 0.4)


@pytest.mark.parametrize("keep_rate", [0, -0.5, 1.01, float("nan")])
def test_keep_rates_that_can_not_be_are_refused(keep_rate):
    with pytest.raises(ValueError, match=r"0 .*1"):
        layer_threshold(torch.ones(4), keep_rate)


# --- the schedule


@pytest.mark.parametrize("last", [0.05, 0.3, 0.55, 0.6, 0.7, 1.0])
@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 400])
def test_the_keep_rate_falls_along_the_cosine_to_its_last_value_exactly(epochs, last):
    rates = [keep_rate_at(epoch, epochs, last) for epoch in range(epochs)]
    assert rates == pytest.approx(
        [oracle.keep_rate(epoch, epochs, last) for epoch in range(epochs)], abs=1e-15
    )
    assert rates[-1] == last
    assert rates == sorted(rates, reverse=True)
    assert all(last <= rate <= 1 for rate in rates)


def test_every_percentage_is_met_exactly_at_the_end():
    assert [keep_rate_at(399, 400, percent / 100) for percent in range(1, 101)] == [
        p / 100 for p in range(1, 101)
    ]


def test_the_first_epoch_already_falls_and_a_long_run_hardly():
    assert keep_rate_at(0, 2, 0.6) == pytest.approx(0.8)
    assert 0.999 < keep_rate_at(0, 400, 0.6) < 1


# --- complexity-aware sparsity


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_weights_and_sparsity_are_those_of_the_loops(gamma):
    entropies = torch.tensor([0.0, 0.2, 0.5, 0.999, 1.0, 3.0])
    wanted = [oracle.adaptive_weight(value, 1.0, gamma) for value in entropies.tolist()]
    torch.testing.assert_close(adaptive_weight(entropies, 1.0, gamma).tolist(), wanted, rtol=1e-5, atol=1e-7)
    saliencies = drawn(B, G)
    loss = Sparsity(gamma)
    loss.limit.fill_(1.0)
    expected = oracle.sparsity([saliencies], entropies.tolist(), 1.0, gamma)
    assert float(loss(saliencies, entropies)) == pytest.approx(expected, rel=1e-5)


def test_hard_images_get_no_weight_and_easier_ones_more():
    weights = adaptive_weight(torch.linspace(0, 4, 41), 2.0)
    assert weights[0] == 1
    assert (weights[20:] == 0).all()
    assert (weights[:20].diff() < 0).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_limit_of_0_asks_nothing_of_anybody(gamma):
    """The first epoch's, and that of a network without errors."""
    for limit in (0.0, torch.tensor(0.0)):
        assert adaptive_weight(torch.tensor([0.0, 1e-30, 1.0]), limit, gamma).tolist() == [0, 0, 0]


def test_hard_images_feel_no_pressure_and_nothing_pulls_at_the_cross_entropy():
    saliencies = drawn(3, G).requires_grad_()
    entropies = torch.tensor([0.1, 5.0, 0.3], requires_grad=True)
    adaptive_sparsity(saliencies, adaptive_weight(entropies, 1.0)).backward()
    assert entropies.grad is None
    assert (saliencies.grad[1] == 0).all()
    torch.testing.assert_close(saliencies.grad[0], torch.full((G,), 0.9 / G / 3))


def test_a_new_sparsity_term_begins_without_pressure():
    assert float(Sparsity()(torch.ones(B, G), torch.zeros(B))) == 0


@pytest.mark.parametrize("gamma", [0, -1.0])
def test_an_exponent_that_can_not_be_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        Sparsity(gamma)


# --- similarity


def test_similarity_is_the_gap_of_the_explicit_maps():
    saliencies, features = drawn(B, G), drawn(B, C, seed=1)
    expected = oracle.similarity([(saliencies, features)])
    assert float(Similarity()(saliencies, features)) == pytest.approx(expected, rel=1e-5)


def test_saliencies_follow_features_and_not_the_other_way_round():
    saliencies, features = drawn(B, G).requires_grad_(), drawn(B, C, seed=1).requires_grad_()
    similarity_gap(saliencies, features).backward()
    assert features.grad is None
    true = explicit_gap(saliencies, features).student_grad / B**2
    torch.testing.assert_close(saliencies.grad.double(), true, rtol=1e-5, atol=1e-7)


def test_equal_maps_have_no_gap_whatever_the_scale():
    features = drawn(B, C) + 0.1
    assert similarity_gap(3 * features, features) < 1e-6
    torch.testing.assert_close(
        similarity_gap(5 * drawn(B, G), features), similarity_gap(drawn(B, G), 7 * features)
    )


def test_images_in_another_order_have_the_same_gap():
    saliencies, features, order = drawn(B, G), drawn(B, C, seed=1), torch.randperm(B)
    torch.testing.assert_close(
        similarity_gap(saliencies[order], features[order]), similarity_gap(saliencies, features)
    )


@pytest.mark.parametrize("features", [torch.zeros(B, C), torch.ones(B, C), drawn(B, C, seed=1)])
def test_saliencies_of_0_alone_have_a_finite_gap_and_gradient(features):
    saliencies = torch.zeros(B, G, requires_grad=True)
    value = similarity_gap(saliencies, features)
    value.backward()
    assert torch.isfinite(value)
    assert (saliencies.grad == 0).all()


# --- two processes

TWELVE = 12


def half_the_images(rank: int, rendezvous: str, out: str) -> None:
    """What one of two processes gets of the similarity term."""
    world = as_rank(rank, rendezvous)
    saliencies, features = drawn(TWELVE, G)[rank::2].requires_grad_(), drawn(TWELVE, C, seed=1)[rank::2]
    value = Similarity()(saliencies, features)
    value.backward()
    save_file({"value": value.detach(), "gradient": saliencies.grad}, f"{out}/{rank}.safetensors")
    world.close()


def test_two_processes_have_the_similarity_of_all_their_images(tmp_path: Path) -> None:
    in_two_processes(half_the_images, tmp_path, str(tmp_path))
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    saliencies = drawn(TWELVE, G).requires_grad_()
    value = Similarity()(saliencies, drawn(TWELVE, C, seed=1))
    value.backward()
    for rank in range(2):
        torch.testing.assert_close(found[rank]["value"], value.detach())
        # The mean over processes, which DDP takes, is then the gradient of one.
        torch.testing.assert_close(
            found[rank]["gradient"], 2 * saliencies.grad[rank::2], rtol=1e-5, atol=1e-7
        )
