"""Channels that no image uses, one image at a time, and the network without them."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import isometry.prune.unused_channels as compact_module
from helpers.small_gated import SMALL
from isometry.errors import UserError
from isometry.prune.cutting import widths
from isometry.prune.gates import GatedConv, gated_convs
from isometry.prune.unused_channels import compact, unused_channels
from oracles import gates as oracle

CASES = [(name, group) for name in SMALL for group in (1, 8)]


def site_name(module_name: str) -> str:
    """RegNets have their convolution one level deeper."""
    return module_name.removesuffix(".conv")


def kept_by_hand(network: nn.Module, images: Tensor) -> dict[str, list[bool]]:
    """The channels that are on for any image: float64, one image and one gate at a time."""
    seen: dict[str, Tensor] = {}
    hooks = [
        conv.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        for name, conv in gated_convs(network).items()
    ]
    ever: dict[str, list[bool]] = {}
    for image in images:
        network(image[None])
        for name, conv in gated_convs(network).items():
            gate = conv.gate
            _, saliencies = oracle.saliency(
                seen[name][0].double(),
                (gate.squeeze.weight.double(), gate.squeeze.bias.double()),
                (gate.excite.weight.double(), gate.excite.bias.double()),
            )
            on = [each for each in oracle.kept(saliencies, float(gate.threshold)) for _ in range(conv.group)]
            before = ever.get(name, [False] * len(on))
            ever[name] = [a or b for a, b in zip(on, before, strict=True)]
    for hook in hooks:
        hook.remove()
    return {site_name(name): channels for name, channels in ever.items()}


@pytest.mark.parametrize(("name", "group"), [("basic", 1), ("regnet", 8)])
@torch.no_grad()
def test_unused_channels_are_what_is_found_an_image_at_a_time(name, group):
    network, images = SMALL[name].gated(group), SMALL[name].images(3)
    expected = {key: [not on for on in channels] for key, channels in kept_by_hand(network, images).items()}
    found = unused_channels(network, images.split(2))
    assert {key: mask.tolist() for key, mask in found.items()} == expected
    assert any(any(mask) for mask in expected.values())
    assert not all(all(mask) for mask in expected.values())


@pytest.mark.parametrize("group", [1, 8])
def test_batches_and_their_order_do_not_matter_and_more_images_keep_more(group):
    small = SMALL["bottleneck"]
    network, images = small.gated(group), small.images(8)
    all_at_once = unused_channels(network, [images])
    each = unused_channels(network, list(reversed(images.split(3))))
    fewer = unused_channels(network, [images[:2]])
    for name, mask in all_at_once.items():
        assert torch.equal(each[name], mask)
        assert not (mask & ~fewer[name]).any(), "off for all, and on for two of them"
        assert not mask.all()
    assert sum(int(mask.sum()) for mask in fewer.values()) > sum(int(m.sum()) for m in all_at_once.values())


@pytest.mark.parametrize(("name", "group"), CASES)
@torch.no_grad()
def test_the_compact_network_has_the_same_logits(name, group):
    small = SMALL[name]
    network, images = small.gated(group), small.images(12)
    before = copy.deepcopy(network.state_dict())
    smaller, removed = compact(network, images.split(5))
    wanted = network(images)
    torch.testing.assert_close(
        smaller(images), wanted, rtol=0, atol=1e-5 * float(wanted.max() - wanted.min())
    )
    full, left = widths(network), widths(smaller)
    assert removed == {key: full[key] - left[key] for key in full if full[key] != left[key]}
    assert sum(removed.values()) > 0
    # The gated network is as it was; the smaller one still has a gate on what is left.
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert len(gated_convs(smaller)) == len(gated_convs(network))
    assert not smaller.training


@torch.no_grad()
def test_channels_of_layers_that_stay_whole_stay():
    network = SMALL["basic"].gated()
    unused = unused_channels(network, [SMALL["basic"].images()])
    smaller, removed = compact(network, [SMALL["basic"].images()])
    lasts = [name for name in unused if name.endswith("conv2")]
    assert any(unused[name].any() for name in lasts)
    assert not set(lasts) & set(removed)
    for name in lasts:
        assert smaller.get_submodule(name).conv.out_channels == network.get_submodule(name).conv.out_channels


@torch.no_grad()
def test_a_second_time_there_is_nothing_to_cut():
    images = SMALL["bottleneck"].images(12)
    once, _ = compact(SMALL["bottleneck"].gated(), [images])
    twice, removed = compact(once, [images])
    assert removed == {}
    assert torch.equal(twice(images), once(images))


@pytest.mark.parametrize("group", [1, 8])
@torch.no_grad()
def test_a_layer_under_its_threshold_keeps_a_group(group):
    network, images = SMALL["basic"].gated(group), SMALL["basic"].images(3)
    for conv in gated_convs(network).values():
        conv.gate.threshold.fill_(1e6)
        conv.gate.excite.bias.fill_(-1e6)
    smaller, _ = compact(network, [images])
    assert set(widths(smaller).values()) == {group}
    assert torch.equal(smaller(images), network(images))


@torch.no_grad()
def test_no_graph_is_kept_after_compacting():
    small = SMALL["basic"]
    network = small.gated()
    with torch.enable_grad():
        network(small.images(2))
    smaller, _ = compact(network, [small.images()])
    held = [
        module.gate_output
        for each in (network, smaller)
        for module in each.modules()
        if isinstance(module, GatedConv)
    ]
    assert held == [None] * len(held)


# --- what is refused


class Different:
    """Other images each time, as from a loader that augments."""

    def __init__(self) -> None:
        self.times = 0

    def __iter__(self):
        self.times += 1
        yield SMALL["basic"].images(2 if self.times == 1 else 40, seed=self.times)


def test_images_that_change_are_noticed():
    with pytest.raises(UserError, match=r"^--compact: .* \d+ of 40 images") as message:
        compact(SMALL["basic"].gated(), Different())
    assert "\n" not in str(message.value)


def test_one_image_in_a_hundred_may_change_its_channels(monkeypatch):
    """As where a saliency equals its threshold up to rounding; simulated for images 17 and 18."""
    network, batches = SMALL["basic"].gated(), SMALL["basic"].images(100, seed=4).split(50)
    compare = compact_module._compare

    def apart(*images: int) -> None:
        def compared(*given):
            gap_N, spread = compare(*given)
            gap_N[list(images)] = 0.01 * spread
            return gap_N, spread

        monkeypatch.setattr(compact_module, "_compare", compared)

    apart(17)
    compact(network, batches)
    apart(17, 18)
    with pytest.raises(UserError, match="2 of 100 images"):
        compact(network, batches)


def test_logits_that_are_not_finite():
    network = SMALL["basic"].gated()
    nn.init.constant_(network.fc.bias, math.nan)
    with pytest.raises(UserError, match=r"^--compact: .*finite"):
        compact(network, [SMALL["basic"].images()])


def test_wrong_calls_are_refused():
    small = SMALL["basic"]
    with pytest.raises(ValueError, match="eval mode"):
        unused_channels(small.gated().train(), [small.images()])
    with pytest.raises(ValueError, match="gates"):
        unused_channels(small.plain(), [small.images()])
    with pytest.raises(ValueError, match="no images"):
        unused_channels(small.gated(), [])
    with pytest.raises(ValueError, match=r"images|batches"):
        compact(small.gated(), iter([small.images()]))
