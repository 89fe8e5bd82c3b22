"""The skipping form has the outputs of the gated network, and is for inference only."""

import copy
from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.small_gated import SMALL, Small
from isometry.errors import UserError
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.sites import add_gates
from isometry.prune.skipping import SkippingBlock, skipping

NETWORKS = {
    **SMALL,
    "silu": Small("resnet18", {**SMALL["basic"].kwargs, "act_layer": "silu"}),
    "sigmoid": Small("resnet18", {**SMALL["basic"].kwargs, "act_layer": "sigmoid"}),
    "blur": Small("resnetblur50", SMALL["bottleneck"].kwargs),
    "excited": Small("seresnet18", SMALL["basic"].kwargs),
    "dilated": Small("resnet18", {**SMALL["basic"].kwargs, "output_stride": 8}),
    "average": Small("resnet50d", {**SMALL["bottleneck"].kwargs, "drop_path_rate": 0.1}),
    "regnety": Small("regnety_002", SMALL["regnet"].kwargs),
    "linear out": Small("regnetx_002", {**SMALL["regnet"].kwargs, "linear_out": True}),
    "no shortcut": Small("regnetx_002", {**SMALL["regnet"].kwargs, "downsample": None}),
}


@pytest.fixture(params=["image by image", "batch at once"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two ways, since small networks would never skip."""
    monkeypatch.setattr(SkippingBlock, "pays", lambda self, images: request.param == "image by image")
    return request.param


def between(network: nn.Module, images: Tensor) -> None:
    """Moves thresholds to the middle of the widest gap near them, so that no saliency is on one by rounding."""
    with torch.no_grad():
        for conv in gated_convs(network).values():
            network(images)
            (gate_output,) = take_gate_outputs([conv])
            values = torch.cat([gate_output.saliency.flatten(), conv.gate.threshold[None]]).sort().values
            at = int(torch.searchsorted(values, conv.gate.threshold))
            near = values[max(at - 8, 0) : at + 9]
            widest = int(near.diff().argmax())
            conv.gate.threshold.copy_((near[widest] + near[widest + 1]) / 2)


def assert_same(network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(skipping(network)(images), network(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_masked_network_for_every_batch_size(name: str, way: str):
    small = NETWORKS[name]
    network, images = small.gated(), small.images(8)
    between(network, images)
    skips = skipping(network)
    with torch.no_grad():
        masked = network(images)
        assert masked.std() > 1e-3
        for size in (1, 3, 8):
            found = torch.cat([skips(batch) for batch in images.split(size)])
            torch.testing.assert_close(found, masked, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(33, 33), (47, 31), (17, 64)])
@pytest.mark.parametrize("name", ["basic", "bottleneck", "regnety", "blur"])
def test_images_of_odd_sizes(name: str, size: tuple[int, int], way: str):
    network = NETWORKS[name].gated()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(4))
    between(network, images)
    assert_same(network, images)


@pytest.mark.parametrize("name", ["basic", "bottleneck", "regnet"])
def test_gates_in_groups_of_8(name: str, way: str):
    network, images = NETWORKS[name].gated(group=8), NETWORKS[name].images(4)
    between(network, images)
    assert_same(network, images)


@pytest.mark.parametrize("name", ["basic", "bottleneck", "regnety", "sigmoid"])
@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_all_channels_and_one_channel_a_layer(name: str, threshold: float, way: str):
    network, images = NETWORKS[name].gated(), NETWORKS[name].images(3)
    for conv in gated_convs(network).values():
        conv.gate.threshold.fill_(threshold)
    assert_same(network, images)


@pytest.mark.parametrize("name", ["basic", "bottleneck", "regnety", "sigmoid"])
def test_saliencies_of_zero_everywhere(name: str, way: str):
    network, images = NETWORKS[name].gated(), NETWORKS[name].images(3)
    for conv in gated_convs(network).values():
        nn.init.zeros_(conv.gate.excite.weight)
        nn.init.constant_(conv.gate.excite.bias, -1)
    assert_same(network, images)
    assert skipping(network)(images).isfinite().all()


def test_convolutions_with_biases_wide_kernels_and_norms_without_weights(way: str):
    network = NETWORKS["basic"].plain()
    block = network.layer2[1]
    block.conv1 = nn.Conv2d(16, 16, (5, 3), padding=(2, 1), bias=True)
    block.bn2 = nn.BatchNorm2d(16, affine=False).eval()
    block.bn2.running_var.uniform_(0.5, 2)
    gated = add_gates(network, "resnet18")
    for conv in gated_convs(gated).values():
        nn.init.normal_(conv.gate.excite.weight, std=0.3)
        conv.gate.threshold.fill_(1.0)
    images = NETWORKS["basic"].images(3)
    between(gated, images)
    assert_same(gated, images)


def test_computes_no_channel_that_is_off(monkeypatch: pytest.MonkeyPatch):
    """Filters of channels that are off are NaN, so that using one gives NaN."""
    monkeypatch.setattr(SkippingBlock, "pays", lambda self, images: True)
    network, image = NETWORKS["basic"].gated(), NETWORKS["basic"].images(1)
    between(network, image)
    with torch.no_grad():
        expected = network(image)
        off = {}
        for name, conv in gated_convs(network).items():
            (gate_output,) = take_gate_outputs([conv])
            off[name] = ~conv.gate.kept(gate_output.saliency)[0]
        for name, conv in gated_convs(network).items():
            conv.conv.weight[off[name]] = torch.nan
            if name.endswith("conv2"):
                conv.conv.weight[:, off[name.replace("conv2", "conv1")]] = torch.nan
        assert all(mask.any() for mask in off.values())
        assert network(image).isnan().any()
        torch.testing.assert_close(skipping(network)(image), expected, atol=1e-4, rtol=1e-4)


def test_leaves_the_gated_network_as_it_was():
    network, images = NETWORKS["basic"].gated(), NETWORKS["basic"].images(3)
    network.train()
    network(images).sum().backward()
    before = copy.deepcopy(network.state_dict())
    modes = {name: module.training for name, module in network.named_modules()}
    grads = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    skips = skipping(network)
    skips(images)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == grads
    assert before.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    owned = {tensor.data_ptr() for tensor in network.state_dict().values() if tensor.numel()}
    assert not owned & {tensor.data_ptr() for tensor in skips.state_dict().values() if tensor.numel()}


def test_leaves_its_input_as_it_was(way: str):
    network, images = NETWORKS["basic"].gated(), NETWORKS["basic"].images(2)
    skips = skipping(network)
    features = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    before = features.clone()
    assert isinstance(skips.network.layer2[1].shortcut, nn.Identity)
    skips.network.layer2[1](features)
    given = images.clone()
    skips(images)
    assert torch.equal(features, before)
    assert torch.equal(images, given)


def test_gives_no_gradients_and_never_trains():
    network = NETWORKS["basic"].gated().train()
    skips = skipping(network)
    assert not any(module.training for module in skips.modules())
    assert not skips(NETWORKS["basic"].images(2)).requires_grad
    assert skips.eval() is skips
    with pytest.raises(UserError, match=r"infer|eval"):
        skips.train()
    assert not any(module.training for module in skips.modules())


def test_batches_are_computed_whole_where_selecting_costs_more_than_it_saves(monkeypatch):
    """ResNet-34 at 224 pixels: single images skip everywhere, batches not in the last stage; CIFAR's nowhere."""
    threads = [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    block = skipping(add_gates(timm.create_model("resnet34"), "resnet34")).network
    for stage, side in (("layer1", 56), ("layer2", 28), ("layer3", 14), ("layer4", 7)):
        last = block.get_submodule(stage)[-1]
        features = torch.empty(64, last.widths[0], side, side, device="meta")
        assert last.pays(features[:1])
        threads[0] = 1
        assert last.pays(features) == (stage != "layer4")
        threads[0] = 2
        assert last.pays(features[:1])
        assert not last.pays(features)
    small = skipping(SMALL["cifar"].gated()).network.layer1[0]
    assert not small.pays(torch.empty(1, 16, 32, 32, device="meta"))


def test_unknown_forms_are_refused():
    with pytest.raises(UserError, match="no gate"):
        skipping(NETWORKS["basic"].plain())
    gated = NETWORKS["basic"].gated()
    with pytest.raises(UserError, match="gate"):
        skipping(nn.Sequential(gated.layer1[0].conv1))
    gated.layer1[0].conv2 = gated.layer1[0].conv2.conv
    with pytest.raises(UserError, match=r"layer1\.0\.conv2"):
        skipping(gated)
    padded = NETWORKS["basic"].gated()
    padded.layer1[0].conv1.conv.padding_mode = "reflect"
    with pytest.raises(UserError, match=r"layer1\.0\.conv1"):
        skipping(padded)
