"""L1-norm filter pruning (Li et al., ICLR 2017) against its definition, a filter at a time."""

import copy
import math
from fractions import Fraction

import pytest
import timm
import torch
from torch import nn

from helpers.small_gated import SMALL
from isometry.errors import UserError
from isometry.prune.cutting import widths
from isometry.prune.l1 import l1_cut, largest_filters


def by_hand(weight: torch.Tensor, rate: str) -> list[int]:
    """The filters that are kept: sorted by norm, largest first, the earlier of equal ones first."""
    norms = [sum(abs(float(value)) for value in filter_.flatten()) for filter_ in weight]
    order = sorted(range(len(norms)), key=lambda at: (-norms[at], at))
    return sorted(order[: math.ceil(Fraction(rate) * len(norms))])


@pytest.mark.parametrize("rate", ["0.01", "0.3", "0.28", "0.6", "0.75", "1"])
@pytest.mark.parametrize("filters", [1, 5, 10, 25])
def test_the_largest_filters_are_kept(filters, rate):
    weight = torch.randn(filters, 3, 3, 3, generator=torch.Generator().manual_seed(filters))
    kept = largest_filters(weight, float(rate))
    assert kept.dtype == torch.bool
    assert kept.nonzero()[:, 0].tolist() == by_hand(weight, rate)


def test_of_equal_filters_the_first_are_kept():
    weight = torch.ones(6, 2, 1, 1) * torch.tensor([1.0, -2, 1, 1, 1, 0]).view(6, 1, 1, 1)
    assert largest_filters(weight, 0.5).tolist() == [True, True, True, False, False, False]


def test_scale_does_not_matter_and_the_sign_does_not():
    weight = torch.randn(12, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(largest_filters(-7 * weight, 0.4), largest_filters(weight, 0.4))


@pytest.mark.parametrize("rate", ["0.3", "0.6"])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_cut_network_has_the_large_filters(name, rate):
    small = SMALL[name]
    network = small.plain()
    whole = copy.deepcopy(network)
    smaller = l1_cut(network, small.name, float(rate))
    assert smaller is network
    assert list(widths(smaller)) == list(small.cuttable)
    on = {at: by_hand(whole.get_submodule(at).weight, rate) for at, _, _ in small.cuttable.values()}
    lost = {reader: on[filters] for filters, _, reader in small.cuttable.values()}
    for filters, norm, _ in small.cuttable.values():
        rows, expected = on[filters], whole.get_submodule(filters).weight
        assert len(rows) == math.ceil(Fraction(rate) * len(expected))
        # A bottleneck's second convolution has lost inputs too.
        columns = lost.get(filters, list(range(expected.shape[1])))
        assert torch.equal(smaller.get_submodule(filters).weight, expected[rows][:, columns])
        assert torch.equal(
            smaller.get_submodule(norm).running_mean, whole.get_submodule(norm).running_mean[rows]
        )
    assert smaller(small.images(2)).shape == (2, 5)


@torch.no_grad()
def test_a_keep_rate_of_1_changes_nothing():
    small = SMALL["bottleneck"]
    network = small.plain()
    before = network(small.images(2))
    assert torch.equal(l1_cut(network, small.name, 1)(small.images(2)), before)


@torch.no_grad()
def test_filters_of_zeros_go_first_and_leave_the_logits():
    small = SMALL["cifar"]
    network = small.plain().double()
    for filters, norm, _ in small.cuttable.values():
        conv, after = network.get_submodule(filters), network.get_submodule(norm)
        dead = torch.arange(len(conv.weight)) % 2 == 0
        conv.weight[dead] = 0
        after.bias[dead] = 0
        after.running_mean[dead] = 0
    images = small.images(2).double()
    before = network(images)
    l1_cut(network, small.name, 0.5)
    torch.testing.assert_close(network(images), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"), [("vit_tiny_patch16_224", "no convolutions"), ("resnext50_32x4d", "grouped")]
)
def test_networks_that_can_not_be_pruned(name, message):
    with pytest.raises(UserError, match=rf"^--model {name}: .*{message}") as caught:
        l1_cut(timm.create_model(name), name, 0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_keep_rates_that_are_none(rate):
    with pytest.raises(ValueError, match=r"0 .*1"):
        l1_cut(SMALL["basic"].plain(), "resnet18", rate)


def test_it_is_trained_on_like_any_network():
    small = SMALL["basic"]
    network = l1_cut(small.plain(), small.name, 0.5).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    labels = torch.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(network(small.images(4)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
