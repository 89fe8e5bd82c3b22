"""Gates on timm's networks: where they go, that nothing else changes, and what is refused."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from timm.models.resnet import BasicBlock
from torch import nn

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm
from isometry.errors import UserError
from isometry.prune.gates import GatedConv, gated_convs
from isometry.prune.sites import BLOCKS, add_gates, check_prunable, sites

SHALLOW = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "num_classes": 5}
NETWORKS = {
    "cifar_resnet20": {"layers": (1, 2, 1), "num_classes": 5},
    "resnet18": SHALLOW,
    "resnet50": SHALLOW,
    "resnetaa50": SHALLOW,  # a blur between norm and the next convolution
    "seresnet18": SHALLOW,  # squeeze and excitation after the last norm
    "regnetx_002": {"depth": 7, "group_size": 4096, "num_classes": 5},
    "regnety_002": {"depth": 7, "group_size": 4096, "num_classes": 5},
}


def network(name: str, **more: object) -> nn.Module:
    """With statistics and scales that are not the initial ones, some of them 0 or negative."""
    torch.manual_seed(0)
    built = timm.create_model(name, **{**NETWORKS.get(name, {}), **more})
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5)
            nn.init.normal_(module.bias)
            module.weight.data[0] = 0
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return built


def batch() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


# --- the function stays


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_gates_do_not_change_what_a_network_computes_nor_what_its_norms_learn(name, training):
    dense = network(name).train(training)
    pruned = add_gates(copy.deepcopy(dense), name)
    assert torch.equal(pruned(batch()), dense(batch()))
    assert torch.equal(pruned(batch()), dense(batch())), (
        "the norms' statistics have moved alike, or not at all"
    )
    assert torch.equal(pruned.eval()(batch()), dense.eval()(batch()))


@pytest.mark.parametrize("name", ["resnet50", "regnety_002"])
@torch.no_grad()
def test_gates_in_groups_change_nothing_either(name):
    dense = network(name).eval()
    assert torch.equal(add_gates(copy.deepcopy(dense), name, group=8)(batch()), dense(batch()))


@torch.no_grad()
def test_nor_do_they_under_autocast():
    dense = network("resnet18").eval()
    pruned = add_gates(copy.deepcopy(dense), "resnet18")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pruned(batch()), dense(batch()))


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002"])
def test_the_networks_own_weights_get_the_gradients_that_they_had(name):
    dense = network(name).train()
    pruned = add_gates(copy.deepcopy(dense), name)
    for each in (dense, pruned):
        each(batch()).square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in dense.named_parameters()}
    found = {name: p.grad for name, p in pruned.named_parameters() if ".gate." not in name}
    assert sum(grad.abs().sum() for grad in wanted.values()) > 0
    assert len(found) == len(wanted)
    for gradient, expected in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_block_whose_gates_say_0_is_its_shortcut():
    pruned = add_gates(network("cifar_resnet20").eval(), "cifar_resnet20")
    block = pruned.layer1[0]
    for conv in gated_convs(block).values():
        nn.init.constant_(conv.gate.excite.bias, -1)
    assert gated_convs(block)
    shortcut = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(shortcut), shortcut.relu())


# --- where they go


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cifar_resnet20", ["layer1.0", "layer2.0", "layer2.1", "layer3.0"]),
        ("resnet18", ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]),
    ],
)
def test_both_convolutions_of_a_basic_block_get_one(name, wanted):
    pruned = add_gates(network(name), name)
    assert list(gated_convs(pruned)) == [f"{block}.conv{n}" for block in wanted for n in (1, 2)]


def test_all_three_of_a_bottleneck_get_one():
    assert list(gated_convs(add_gates(network("resnet50"), "resnet50"))) == [
        f"layer{stage}.0.conv{n}" for stage in (1, 2, 3, 4) for n in (1, 2, 3)
    ]
    names = list(gated_convs(add_gates(network("regnetx_002"), "regnetx_002")))
    assert len(names) % 3 == 0
    assert names[:3] == [f"s1.b1.conv{n}.conv" for n in (1, 2, 3)]


@pytest.mark.parametrize("name", NETWORKS)
def test_stem_shortcuts_and_classifier_stay_as_they_are(name):
    dense = network(name)
    before = dict(dense.named_modules())
    gates = gated_convs(add_gates(dense, name))
    plain = {
        key: module
        for key, module in dense.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not any(key.startswith(f"{at}.") for at in gates)
    }
    assert any("downsample" in key for key in plain) == any(
        "downsample" in key for key, module in before.items() if isinstance(module, nn.Conv2d)
    )
    assert all(before[key] is module for key, module in plain.items())
    assert any(isinstance(module, nn.Linear) for module in plain.values())


def test_blocks_and_convolutions_are_timms_own_objects():
    dense = network("resnet50")
    blocks = [dense.layer1[0], dense.layer4[0]]
    conv, norm = blocks[0].conv1, blocks[0].bn1
    forward = type(blocks[0]).forward
    pruned = add_gates(dense, "resnet50")
    assert pruned is dense
    assert [pruned.layer1[0], pruned.layer4[0]] == blocks
    assert (blocks[0].conv1.conv, blocks[0].conv1.norm) == (conv, norm)
    assert isinstance(blocks[0].bn1, nn.Identity)
    assert type(blocks[0]).forward is forward
    assert "forward" not in vars(blocks[0])


def test_names_of_parameters_say_conv_norm_and_gate():
    pruned = add_gates(network("cifar_resnet20"), "cifar_resnet20")
    of_first = sorted(key for key in pruned.state_dict() if key.startswith("layer1.0.conv1."))
    assert [key.removeprefix("layer1.0.conv1.") for key in of_first] == [
        "conv.weight",
        "gate.excite.bias",
        "gate.excite.weight",
        "gate.squeeze.bias",
        "gate.squeeze.weight",
        "gate.threshold",
        "norm.bias",
        "norm.num_batches_tracked",
        "norm.running_mean",
        "norm.running_var",
        "norm.weight",
    ]
    assert not any(".bn1." in key for key in pruned.state_dict() if key.startswith("layer"))


def test_regnets_norms_lose_their_activation_and_nothing_else():
    dense = network("regnetx_002", act_layer="silu")
    norm = dense.s1.b1.conv1.bn
    norm.momentum, norm.eps = 0.3, 1e-3
    add_gates(dense, "regnetx_002")
    conv = dense.s1.b1.conv1
    assert not isinstance(conv.conv.norm, BatchNormAct2d)
    assert (conv.conv.norm.momentum, conv.conv.norm.eps) == (0.3, 1e-3)
    assert torch.equal(conv.conv.norm.running_var, norm.running_var)
    assert isinstance(conv.bn, nn.SiLU)
    assert not any(isinstance(module, nn.SiLU) for module in dense.s1.b1.conv3.modules())


@pytest.mark.parametrize("group", [1, 2, 8])
def test_a_group_of_channels_shares_a_gate(group):
    for conv in gated_convs(add_gates(network("resnet50"), "resnet50", group)).values():
        assert conv.gate.excite.out_features * group == conv.conv.out_channels
        assert conv.gate.squeeze.in_features == conv.conv.in_channels


@pytest.mark.parametrize("training", [True, False])
def test_what_is_added_is_in_the_mode_of_the_network(training):
    pruned = add_gates(network("regnety_002").train(training), "regnety_002")
    gated = [module for conv in gated_convs(pruned).values() for module in conv.modules()]
    assert {module.training for module in gated} == {training}


def test_gates_can_be_planned_and_put_on_shapes_alone():
    with torch.device("meta"):
        dense = timm.create_model("resnet34")
    assert len(check_prunable(dense, "resnet34", 8)) == 32
    add_gates(dense, "resnet34")
    assert {p.device.type for p in dense.parameters()} == {"meta"}


def test_gates_are_put_where_the_network_is():
    dense = network("resnet18").to("meta")
    assert {t.device.type for t in add_gates(dense, "resnet18").state_dict().values()} == {"meta"}


def test_looking_for_places_changes_nothing():
    dense = network("resnet18")
    names = list(dense.state_dict())
    assert [site.name for site in sites(dense)] == [
        site.name for site in check_prunable(dense, "resnet18", 1)
    ]
    assert list(dense.state_dict()) == names
    assert not any(isinstance(module, GatedConv) for module in dense.modules())


# --- what is refused


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("vit_tiny_patch16_224", 1, "--model vit_tiny_patch16_224: has no convolutions on residual branches"),
        (
            "convnext_atto",
            1,
            "has no convolutions on residual branches to prune; what can be pruned: ResNets",
        ),
        ("mobilenetv2_050", 1, "--model mobilenetv2_050: has no convolutions on residual branches to prune"),
        ("mobilenetv3_small_050", 1, "has no convolutions on residual branches to prune"),
        ("resnext50_32x4d", 1, r"layer1.0.conv2 is a grouped convolution \(32 groups\)"),
        ("regnetx_002", 1, r"--model regnetx_002: s1.b1.conv2 is a grouped convolution \(3 groups\)"),
        ("resnet50_gn", 1, "layer1.0.conv1 is followed by GroupNorm, and gates need batch norm there"),
        ("resnet18", 7, "--prune.group 7: layer1.0.conv1 has 64 channels, which is no multiple of it"),
        ("cifar_resnet20", 32, "--prune.group 32: layer1.0.conv1 has 16 channels"),
    ],
)
def test_what_can_not_be_pruned_is_said_in_one_line(name, group, message):
    with torch.device("meta"):
        dense = timm.create_model(name)
    names = list(dense.state_dict())
    with pytest.raises(UserError, match=message) as message:
        add_gates(dense, name, group)
    assert "\n" not in str(message.value)
    assert list(dense.state_dict()) == names, "it is left as it was"


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002"])
def test_a_network_with_gates_is_refused(name):
    pruned = add_gates(network(name), name)
    with pytest.raises(UserError, match=f"--model {name}: .*conv1") as message:
        add_gates(pruned, name)
    assert "\n" not in str(message.value)


def test_a_norm_that_drops_still_drops_before_it_activates():
    dense = network("regnetx_002").train()
    dense.s1.b1.conv1.bn.drop = nn.Dropout2d(1)
    add_gates(dense, "regnetx_002")
    seen = torch.randn(2, 32, 4, 4)
    assert (dense.s1.b1.conv1(seen) == 0).all()
    assert (dense.eval().s1.b1.conv1(seen) > 0).any()
    assert (dense.s1.b1.conv1(seen) >= 0).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"act": "actX"}, "has no actX; its parts are conv1, "),
        ({"shortcut": "nope"}, "has no nope; "),
        ({"convs": ("conv1", "convX")}, "has no convX; "),
        ({"convs": "conv1"}, "has no c; "),
        ({"convs": ("conv2",)}, "conv1 comes first, so it must be one of convs"),
        ({"convs": ()}, "conv1 comes first, so it must be one of convs"),
    ],
)
def test_a_layout_that_does_not_fit_its_block_is_refused(changed, message, monkeypatch):
    monkeypatch.setitem(BLOCKS, BasicBlock, replace(BLOCKS[BasicBlock], **changed))
    with pytest.raises(UserError) as raised:
        check_prunable(network("resnet18"), "resnet18", group=1)
    assert str(raised.value).startswith("prune/sites.py: BLOCKS: BasicBlock")
    assert message in str(raised.value)
