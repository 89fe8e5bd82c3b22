"""Removal of channels: every tensor against removal by hand, and what is refused."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.small_gated import REGNET, SIZES, SMALL, Small, random_masks
from isometry.prune.cutting import cut, cuttable_convs, set_widths, widths
from isometry.prune.gates import GatedConv, gated_convs
from isometry.prune.sites import add_gates

CASES = [(name, group) for name in SMALL for group in (None, 1, 8)]


def network_of(small: Small, group: int | None) -> nn.Module:
    return small.plain() if group is None else small.gated(group)


def by_hand(
    small: Small, state: dict[str, Tensor], masks: dict[str, Tensor], group: int | None
) -> dict[str, Tensor]:
    """The state dict of the cut network, built channel by channel."""
    conv_in, norm_in = ("", None) if group is None else (".conv", ".norm")
    state = dict(state)
    for name, mask in masks.items():
        on = [channel for channel, keep in enumerate(mask.tolist()) if keep]
        filters, norm, reader = small.cuttable[name]
        rows = {f"{filters}{conv_in}.weight": on}
        for key in ("weight", "bias", "running_mean", "running_var"):
            rows[f"{norm}.{key}" if norm_in is None else f"{filters}.norm.{key}"] = on
        columns = [f"{reader}{conv_in}.weight"]
        if group is not None:
            gates = [gate for gate in range(len(mask) // group) if gate * group in on]
            rows |= {f"{filters}.gate.excite.{key}": gates for key in ("weight", "bias")}
            columns.append(f"{reader}.gate.squeeze.weight")
        for key, chosen in rows.items():
            state[key] = torch.stack([state[key][row] for row in chosen])
        for key in columns:
            state[key] = torch.stack([state[key][:, column] for column in on], dim=1)
    return state


def assert_sizes_are_true(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels) == tuple(module.weight.shape[:2])
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_var)
        elif isinstance(module, GatedConv):
            assert module.conv.out_channels == module.norm.num_features
            assert module.conv.out_channels == module.gate.excite.out_features * module.group
            assert module.conv.in_channels == module.gate.squeeze.in_features


@pytest.mark.parametrize(("name", "group"), CASES)
@torch.no_grad()
def test_a_cut_network_is_the_one_cut_by_hand(name, group):
    small = SMALL[name]
    network = network_of(small, group)
    masks = random_masks(widths(network), group or 1)
    expected = by_hand(small, network.state_dict(), masks, group)
    smaller = cut(network, masks)
    assert smaller is network
    found = smaller.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert_sizes_are_true(smaller)
    assert widths(smaller) == {key: int(mask.sum()) for key, mask in masks.items()}
    assert smaller(small.images(2)).shape == (2, 5)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_channels_that_norms_set_to_0_can_go(name):
    """A slow oracle of the function: the whole network in float64 with scale and shift of 0."""
    small = SMALL[name]
    network = small.plain().double()
    masks = random_masks(widths(network))
    smaller = cut(copy.deepcopy(network), masks)
    for key, mask in masks.items():
        norm = network.get_submodule(small.cuttable[key][1])
        norm.weight[~mask] = 0
        norm.bias[~mask] = 0
    images = small.images(3).double()
    torch.testing.assert_close(smaller(images), network(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "group"), CASES)
@torch.no_grad()
def test_cutting_nothing_changes_nothing(name, group):
    small = SMALL[name]
    network = network_of(small, group)
    before = network(small.images(2))
    cut(network, {key: torch.ones(width, dtype=torch.bool) for key, width in widths(network).items()})
    assert torch.equal(network(small.images(2)), before)


@pytest.mark.parametrize("group", [None, 1])
def test_two_cuts_are_one(group):
    small = SMALL["bottleneck"]
    first = random_masks(small_widths := widths(network_of(small, group)), seed=1)
    second = random_masks({name: int(mask.sum()) for name, mask in first.items()}, seed=2)
    both = {name: torch.zeros(width, dtype=torch.bool) for name, width in small_widths.items()}
    for name, mask in both.items():
        mask[first[name].nonzero()[:, 0][second[name]]] = True
    twice = cut(cut(network_of(small, group), first), second)
    once = cut(network_of(small, group), both)
    assert all(
        torch.equal(a, b)
        for a, b in zip(twice.state_dict().values(), once.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "group"), CASES)
def test_a_cut_network_trains(name, group):
    small = SMALL[name]
    network = network_of(small, group)
    cut(network, random_masks(widths(network), group or 1)).train()
    before = {key: value.clone() for key, value in network.state_dict().items() if "running" in key}
    network(small.images(4)).square().sum().backward()
    missing = [key for key, p in network.named_parameters() if p.grad is None or p.grad.shape != p.shape]
    assert missing == []
    assert all(not torch.equal(network.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize(("name", "group"), CASES)
@torch.no_grad()
def test_weights_load_into_a_network_of_the_same_widths(name, group):
    small = SMALL[name]
    network = network_of(small, group)
    cut(network, random_masks(widths(network), group or 1))
    again = set_widths(network_of(Small(small.name, small.kwargs), group), widths(network))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(small.images(2)), network(small.images(2)))


def test_frozen_stays_frozen_and_biases_go_along():
    network = SMALL["basic"].plain()
    block = network.layer1[0]
    block.conv1 = nn.Conv2d(64, 16, 3, padding=1, bias=True)
    block.bn1 = nn.BatchNorm2d(16, affine=False).eval()
    block.conv1.weight.requires_grad_(False)
    bias = block.conv1.bias.detach().clone()
    cut(network, {"layer1.0.conv1": torch.arange(16) >= 5})
    assert not block.conv1.weight.requires_grad
    assert block.conv2.weight.requires_grad
    assert torch.equal(block.conv1.bias, bias[5:])
    assert block.bn1.weight is None
    assert network(SMALL["basic"].images(2)).shape == (2, 5)


def test_random_numbers_stay_where_they_are():
    network = SMALL["regnet"].gated()
    state = torch.get_rng_state()
    cut(network.train(), random_masks(widths(network)))
    assert torch.equal(torch.get_rng_state(), state)


# --- what is left alone


@pytest.mark.parametrize("group", [None, 1])
@pytest.mark.parametrize("name", SMALL)
def test_all_but_the_last_convolution_of_each_block_can_be_cut(name, group):
    assert list(cuttable_convs(network_of(SMALL[name], group))) == list(SMALL[name].cuttable)


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize(
    ("name", "kwargs", "left"),
    [
        # Blur pooling follows the last but one convolution of the blocks with a stride.
        ("resnetblur18", SIZES, ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]),
        ("resnetaa50", SIZES, ["layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2"]),
        # Squeeze-and-excitation: in RegNets between two convolutions, in ResNets after the last.
        ("regnety_002", REGNET, [f"s{n}.b1.conv2" for n in (1, 2, 3, 4)]),
        ("resnet18", {**SIZES, "block_args": {"attn_layer": "se"}}, []),
        # Activations that make something of 0, and some that don't.
        ("resnet18", {**SIZES, "act_layer": "sigmoid"}, list(SMALL["basic"].cuttable)),
        ("regnetx_002", {**SMALL["regnet"].kwargs, "act_layer": "sigmoid"}, list(SMALL["regnet"].cuttable)),
        ("resnet18", {**SIZES, "act_layer": "silu"}, []),
        ("regnetx_002", {**SMALL["regnet"].kwargs, "act_layer": "gelu"}, []),
    ],
)
def test_what_can_not_be_cut_is_left_whole(name, kwargs, left, gates):
    network = timm.create_model(name, **kwargs)
    every = [f"{block}.conv{n}" for block, n in all_inner(network)]
    if gates:
        add_gates(network, name)
    assert list(cuttable_convs(network)) == [name for name in every if name not in left]
    cut(network, random_masks(widths(network)))
    assert_sizes_are_true(network)
    assert network(SMALL["basic"].images(2)).isfinite().all()


def all_inner(network: nn.Module) -> list[tuple[str, int]]:
    blocks = {key.rsplit(".conv2", 1)[0]: b for key, b in network.named_modules() if key.endswith(".conv2")}
    return [(key, n) for key in blocks for n in (1, 2) if hasattr(network.get_submodule(key), f"conv{n + 1}")]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("resnext50_32x4d", SIZES), ("resnet18", {"norm_layer": "groupnorm"}), ("vit_tiny_patch16_224", {})],
)
def test_networks_that_have_nothing_to_cut(name, kwargs):
    network = timm.create_model(name, **kwargs)
    assert widths(network) == {}
    assert cut(network, {}) is network


# --- what is refused


@pytest.mark.parametrize(
    ("group", "kept", "message"),
    [
        (None, {"layer1.0.conv2": torch.ones(16, dtype=torch.bool)}, "layer1.0.conv2 is no convolution"),
        (None, {"layer1.0.conv1": torch.ones(15, dtype=torch.bool)}, r"bool \(16,\)"),
        (None, {"layer1.0.conv1": torch.arange(16)}, r"bool \(16,\)"),
        (None, {"layer1.0.conv1": torch.zeros(16, dtype=torch.bool)}, "at least one"),
        (8, {"layer1.0.conv1": torch.arange(16) < 9}, "groups of 8"),
        (8, {"layer1.0.conv1": torch.arange(16) < 7}, "groups of 8"),
    ],
)
def test_masks_that_fit_nothing_cut_nothing(group, kept, message):
    network = network_of(SMALL["basic"], group)
    before = widths(network)
    good = {"layer2.1.conv1": torch.arange(16) < 8}
    with pytest.raises(ValueError, match=message):
        cut(network, good | kept)
    assert widths(network) == before


@pytest.mark.parametrize(
    "wanted", [{"layer1.0.conv1": 0}, {"layer1.0.conv1": 17}, {"layer1.0.conv2": 8}, {"conv1": 8}]
)
def test_widths_that_the_network_can_not_have(wanted):
    with pytest.raises(ValueError, match=next(iter(wanted))):
        set_widths(SMALL["basic"].plain(), wanted)


def test_the_small_networks_have_gates_that_differ_over_images():
    """Otherwise the tests of this folder would not test gates."""
    for name, small in SMALL.items():
        network = small.gated()
        network(small.images())
        some = 0
        for conv in gated_convs(network).values():
            on = conv.gate.kept(conv.gate_output.saliency)
            some += int((on.any(0) & ~on.all(0)).sum())
        assert some > 10, name
