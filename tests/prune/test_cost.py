"""Multiply-accumulates of images in a gated network, against counting them one at a time."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from helpers.small_gated import SMALL, Small
from isometry.models.cost import macs
from isometry.prune.cost import channel_use, channels_on
from isometry.prune.gates import GatedConv, gated_convs, take_gate_outputs

INPUT = (3, 32, 32)
CASES = [(name, group) for name in SMALL for group in (1, 8)]


def chunks(images: Tensor) -> list[Tensor]:
    return list(images.split(2))


@torch.no_grad()
def open_channels(network: nn.Module, image: Tensor) -> dict[str, list[bool]]:
    """The channels of each layer that are on for an image, gate by gate."""
    network(image[None])
    found = {}
    convs = gated_convs(network)
    for (name, conv), gate_output in zip(convs.items(), take_gate_outputs(list(convs.values())), strict=True):
        saliency = gate_output.saliency[0].tolist()
        largest = saliency.index(max(saliency))
        on = [
            gate == largest or (value > 0 and value >= float(conv.gate.threshold))
            for gate, value in enumerate(saliency)
        ]
        found[name] = [on[channel // conv.group] for channel in range(conv.conv.out_channels)]
    return found


@torch.no_grad()
def counted(small: Small, network: nn.Module, image: Tensor) -> int:
    """Every multiplication of an image, layer by layer; of a gated convolution input by output channel.

    The readers of a layer are known from ``small.cuttable``: its channels that are off are no inputs of those.
    """
    on = open_channels(network, image)
    feeding = {
        reader if reader in on else f"{reader}.conv": name for name, (_, _, reader) in small.cuttable.items()
    }
    layers = {name: name if name in on else f"{name}.conv" for name in small.cuttable}
    shapes: dict[str, tuple[int, int]] = {}
    handles = [
        module.register_forward_hook(
            lambda module, given, output, name=name: shapes.__setitem__(name, tuple(output.shape[2:]))
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(image[None])
    for handle in handles:
        handle.remove()
    total = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            total += module.in_features * module.out_features
        elif isinstance(module, GatedConv):
            inputs = on[layers[feeding[name]]] if name in feeding else [True] * module.conv.in_channels
            for needed in on[name]:
                for given in inputs:
                    if needed and given:
                        total += math.prod(module.conv.kernel_size) * math.prod(shapes[f"{name}.conv"])
        elif isinstance(module, nn.Conv2d) and name.removesuffix(".conv") not in on:
            taps = math.prod(module.kernel_size) * module.in_channels // module.groups
            total += taps * module.out_channels * math.prod(shapes[name])
    take_gate_outputs(list(gated_convs(network).values()))
    return total


@pytest.mark.parametrize(("name", "group"), CASES)
def test_macs_are_those_counted_one_at_a_time(name, group):
    small = SMALL[name]
    network = small.gated(group)
    use = channel_use(network, chunks(small.images()), INPUT)
    assert use.macs.tolist() == [counted(small, network, image) for image in small.images()]
    assert len(set(use.macs.tolist())) > 1


@pytest.mark.parametrize(("name", "group"), CASES)
def test_channels_are_those_whose_gates_are_open(name, group):
    small = SMALL[name]
    network = small.gated(group)
    use = channel_use(network, chunks(small.images()), INPUT)
    for row, image in zip(use.kept.tolist(), small.images(), strict=True):
        assert row == [sum(on) for on in open_channels(network, image).values()]
    assert use.layers == list(gated_convs(network))
    assert use.channels.tolist() == [conv.conv.out_channels for conv in gated_convs(network).values()]
    assert use.shares.min() > 0
    assert use.shares.max() <= 1


@pytest.mark.parametrize("name", SMALL)
def test_with_every_channel_on_nothing_is_saved(name):
    small = SMALL[name]
    network = small.gated()
    for conv in gated_convs(network).values():
        conv.gate.threshold.zero_()
        nn.init.ones_(conv.gate.excite.bias)
        nn.init.zeros_(conv.gate.excite.weight)
    use = channel_use(network, chunks(small.images()), INPUT)
    assert use.macs.tolist() == [macs(network, INPUT)] * len(small.images())
    assert bool((use.shares == 1).all())


def test_a_higher_threshold_never_costs_more():
    small = SMALL["basic"]
    network = small.gated()
    before = channel_use(network, [small.images()], INPUT)
    for conv in gated_convs(network).values():
        conv.gate.threshold.mul_(1.5)
    after = channel_use(network, [small.images()], INPUT)
    assert bool((after.kept <= before.kept).all())
    assert bool((after.macs <= before.macs).all())
    assert int(after.macs.sum()) < int(before.macs.sum())


def test_layers_that_mix_channels_read_all_of_them():
    """With squeeze-and-excitation before the last convolution of a block, that one's input counts as whole."""
    plain = SMALL["regnet"]
    first = {name: at for name, at in plain.cuttable.items() if name.endswith("conv1")}
    attended = Small("regnety_002", plain.kwargs, first)
    network = attended.gated()
    use = channel_use(network, [attended.images()], INPUT)
    assert use.macs.tolist() == [counted(attended, network, image) for image in attended.images()]


def test_batches_and_their_order_do_not_matter():
    small = SMALL["cifar"]
    network = small.gated()
    one = channel_use(network, [small.images()], INPUT)
    other = channel_use(network, chunks(small.images().flip(0)), INPUT)
    assert one.macs.tolist() == other.macs.flip(0).tolist()


def test_counting_leaves_the_network_as_it_was():
    small = SMALL["basic"]
    network = small.gated()
    before = copy.deepcopy(network.state_dict())
    channel_use(network, [small.images()], INPUT)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(conv.gate_output is None for conv in gated_convs(network).values())


def test_no_images_cost_nothing():
    use = channel_use(SMALL["basic"].gated(), [], INPUT)
    assert use.macs.shape == (0,)
    assert use.kept.shape == (0, len(use.layers))


def test_a_network_that_trains_or_has_no_gates_is_refused():
    with pytest.raises(ValueError, match="eval"):
        channel_use(SMALL["basic"].gated().train(), [], INPUT)
    with pytest.raises(ValueError, match="gates"):
        channel_use(SMALL["basic"].plain(), [], INPUT)


def test_channels_on_follow_the_last_forward_pass():
    network, images = SMALL["basic"].gated(), SMALL["basic"].images()
    with torch.no_grad():
        network(images[:2])
        network(images[2:])
        assert channels_on(network).tolist() == channel_use(network, [images[2:]], INPUT).kept.tolist()
