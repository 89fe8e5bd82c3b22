"""Architectures that grow: sizes, the arguments that build them, and what makes a block the identity."""

import pytest
import timm
import torch
from torch import nn

from helpers.tiny_models import MODELS, WIDTHS, logits
from isometry.errors import UserError
from isometry.grow.architectures import Size, find_architecture
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec

SIZES = {
    "vit": Size((6,), (24,)),
    "deit": Size((6,), (24,)),
    "cait": Size((6,), (24,)),
    "swin": Size((2, 2, 3, 1), (12,)),
    "swinv2": Size((2, 2, 3, 1), (12,)),
    "resnet": Size((2, 3, 2, 3), (64, 12, 16, 20)),
    "resnet, bottlenecks": Size((3, 1, 2, 3), (6, 8, 4, 12)),
    "convnext": Size((2, 1, 3, 1), (8, 8, 24, 32)),
}


@pytest.mark.parametrize("name", SIZES)
def test_an_architecture_sees_the_size_of_its_models(name):
    model = MODELS[name].build()
    assert find_architecture(model, name).size(model) == SIZES[name]


@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_where_they_are_said_to_be(name):
    model = MODELS[name].build()
    architecture = find_architecture(model, name)
    holders = architecture.blocks(model)
    assert tuple(holders) == MODELS[name].holders
    assert tuple(len(model.get_submodule(holder)) for holder in holders) == architecture.size(model).depth


@pytest.mark.parametrize("name", MODELS)
def test_arguments_build_the_size_that_was_asked_for(name):
    """Depth and width together, and the network runs; the full size needs no arguments."""
    tiny = MODELS[name]
    full = tiny.build()
    architecture = find_architecture(full, name)
    own = architecture.size(full)
    assert architecture.arguments(full, own) == {}
    for width in (*WIDTHS.get(name, ()), own.width):
        size = Size(tiny.depths[0], width)
        small = tiny.build(**architecture.arguments(full, size))
        assert architecture.size(small) == size
        assert logits(small, tiny).shape == (3, 5)
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in full.parameters())


@pytest.mark.parametrize("name", ["vit", "deit", "deit3", "cait"])
def test_heads_are_cut_and_keep_their_width(name):
    tiny = MODELS[name]
    full = tiny.build()
    small = tiny.build(**find_architecture(full, name).arguments(full, Size((6,), (8,))))
    for model, heads in ((full, 6), (small, 2)):
        attention = model.blocks[0].attn
        assert (attention.num_heads, attention.qkv.in_features // attention.num_heads) == (heads, 4)


@pytest.mark.parametrize(("name", "width"), [("vit", 10), ("cait", 23), ("vit", 2)])
def test_heads_that_cannot_be_cut_are_refused_with_widths_that_can(name, width):
    full = MODELS[name].build()
    with pytest.raises(UserError) as caught:
        find_architecture(full, name).arguments(full, Size((6,), (width,)))
    assert str(caught.value) == (
        f"--grow.width {width}: 6 heads of 24 channels can't be cut to {width}; widths that work: 4, 8, 12"
    )


def test_one_head_cannot_be_cut():
    full = MODELS["vit"].build(num_heads=1)
    with pytest.raises(UserError, match=r"1 heads? .*24 .*12"):
        find_architecture(full, "vit").arguments(full, Size((6,), (12,)))


@pytest.mark.parametrize("name", ["vit", "cait", "convnext"])
def test_widths_in_messages_can_be_built(name):
    tiny = MODELS[name]
    full = tiny.build()
    architecture = find_architecture(full, name)
    widths = architecture.widths(full)
    assert widths
    for width in widths:
        small = tiny.build(**architecture.arguments(full, Size(architecture.size(full).depth, width)))
        assert architecture.size(small).width == width
        assert all(size % part == 0 for size, part in zip(architecture.size(full).width, width, strict=True))


@pytest.mark.parametrize("name", ["swin", "swinv2"])
def test_swin_grows_in_depth_only(name):
    full = MODELS[name].build()
    with pytest.raises(UserError, match=r"^--grow\.width: SwinTransformer\w* .*depth"):
        find_architecture(full, name).arguments(full, Size((2, 2, 3, 1), (6,)))


def test_a_resnets_first_stage_without_projection_keeps_its_width():
    full = MODELS["resnet"].build()
    with pytest.raises(UserError) as caught:
        find_architecture(full, "resnet18").arguments(full, Size((2, 3, 2, 3), (32, 6, 8, 10)))
    assert str(caught.value) == (
        "--grow.width 32-6-8-10: the first stage has no projection on its shortcut, so its width stays 64, e.g. "
        "--grow.width 64-6-8-10,64-12-16-20"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mobilenetv3_small_050", "MobileNetV3"), ("regnety_002", "RegNet"), ("mixer_s32_224", "MlpMixer")],
)
def test_unknown_architectures_are_refused_with_those_that_grow(name, kind):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UserError) as caught:
        find_architecture(model, name)
    assert str(caught.value).startswith(f"--model {name}: growing {kind} is not known; ")
    assert str(caught.value).endswith(
        ": cait, convnext, resnet, swin_transformer, swin_transformer_v2, vision_transformer"
    )


@pytest.mark.parametrize("name", MODELS)
def test_parameters_that_make_a_block_the_identity(name):
    model = MODELS[name].build()
    block = model.get_submodule(f"{MODELS[name].holders[-1]}.0")
    assert sorted(find_architecture(model, name).identity_parameters(block)) == sorted(MODELS[name].zeros)


def test_blocks_without_known_parameters_take_no_new_ones():
    architecture = find_architecture(MODELS["vit"].build(), "vit")
    with pytest.raises(UserError, match=r"^--grow\.depth-operator: .*Linear.* insert .*stack"):
        architecture.identity_parameters(nn.Linear(2, 2))


def test_sizes_are_written_as_in_options():
    assert str(Size((2, 2, 6, 2), (96,))) == "depth 2-2-6-2, width 96"


def test_a_cifar_resnet_grows_in_depth_only():
    """Its shortcuts add channels of zeros, where `duplicate` would have to add copies."""
    model, _ = build_model(ModelSpec("cifar_resnet20"))
    architecture = find_architecture(model, "cifar_resnet20")
    assert architecture.blocks(model) == ["layer1", "layer2", "layer3"]
    assert architecture.size(model) == Size((3, 3, 3), (16, 32, 64))
    assert architecture.arguments(model, Size((1, 2, 3), (16, 32, 64))) == {"layers": (1, 2, 3)}
    with pytest.raises(UserError, match=r"--grow\.width: .*CifarResNet"):
        architecture.arguments(model, Size((3, 3, 3), (16, 16, 32)))
