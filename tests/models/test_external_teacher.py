"""Networks of any kind with timm's interface."""

import copy

import pytest
import timm
import torch
from torch import nn

from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.models.external_teacher import ExternalTeacher
from isometry.models.patch_layout import PatchLayout
from isometry.models.spec import image_spec
from isometry.models.taps import TappedModel, block_shapes, pair_blocks
from isometry.models.teacher import Teacher

HALF = (0.5, 0.5, 0.5)
SIZE = (3, 32, 32)


class Hidden(nn.Module):
    """A timm model whose interface is hidden, so that only its pass through modules is left."""

    def __init__(self, name: str, **arguments) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = timm.create_model(name, **arguments).eval()

    def forward(self, images):
        return self.inner(images)


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
CASES = [
    ("vit_tiny_patch16_224", VIT),
    ("vit_base_patch16_siglip_224", VIT),
    ("deit_tiny_distilled_patch16_224", VIT),
    ("vit_small_patch16_dinov3", {**VIT, "embed_dim": 32}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_it_finds_the_blocks_and_patches_that_timm_knows(name, arguments):
    """The oracle is timm's own interface to the same network."""
    network = Hidden(name, **arguments)
    teacher = ExternalTeacher(network, SIZE, HALF, HALF)
    images = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layout in ("NCHW", "NLC"):
            logits, features = TappedModel(teacher, [0, 2], layout)(images)
            wanted, expected = TappedModel(network.inner, [0, 2], layout)(images)
            torch.testing.assert_close(logits, wanted)
            for ours, theirs in zip(features, expected, strict=True):
                torch.testing.assert_close(ours, theirs)
    assert teacher.num_classes == 5
    assert len(list(teacher.parameters())) == len(list(network.parameters()))


def test_stages_of_maps_give_a_block_each():
    teacher = ExternalTeacher(
        Hidden("resnet18", channels=[8, 8, 16, 16], stem_width=8, num_classes=4),
        SIZE,
        HALF,
        HALF,
        name="mine",
    )
    shapes = block_shapes(teacher, list(range(len(teacher.feature_info))), SIZE)
    assert [shape.grid for shape in shapes] == [(8, 8)] * 2 + [(4, 4)] * 2 + [(2, 2)] * 2 + [(1, 1)] * 2
    assert [shape.width for shape in shapes] == [8, 8, 8, 8, 16, 16, 16, 16]
    assert {shape.layout for shape in shapes} == {"NCHW"}
    assert teacher.pretrained_cfg["architecture"] == "mine"


def test_it_teaches_as_the_same_network_of_timm_does():
    network = Hidden("vit_tiny_patch16_224", **VIT)
    student = timm.create_model("vit_tiny_patch16_224", **{**VIT, "embed_dim": 16})
    timms = copy.deepcopy(network.inner)
    timms.pretrained_cfg = {**timms.pretrained_cfg, "mean": HALF, "std": HALF}
    images = ImageSpec(SIZE, HALF, HALF)
    outputs = []
    for model in (ExternalTeacher(network, SIZE, HALF, HALF), timms):
        assert image_spec(model).input_size == SIZE
        pairs = pair_blocks(student, model, SIZE, SIZE, [0, 1], [0, 2])
        outputs.append(Teacher(model, images, pairs)(torch.randn(2, *SIZE, generator=torch.manual_seed(3))))
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
    for block in (0, 2):
        torch.testing.assert_close(outputs[0].tokens[block], outputs[1].tokens[block])


def test_without_classes_the_answer_is_the_mean_of_the_patches():
    network = Hidden("vit_tiny_patch16_224", **VIT)
    teacher = ExternalTeacher(network, SIZE, HALF, HALF, has_classes=False)
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        answer = teacher(images)
        (last,) = teacher.forward_intermediates(images, indices=1, intermediates_only=True)
    assert teacher.num_classes == 0
    torch.testing.assert_close(answer, last.mean((2, 3)))


def test_blocks_and_layout_may_be_given():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.Flatten(), nn.LazyLinear(7)
    )
    network(torch.zeros(1, *SIZE))
    with pytest.raises(UserError, match=r"^Sequential: no blocks are found"):
        ExternalTeacher(network, SIZE, HALF, HALF)
    blocks = network[0], network[2]
    teacher = ExternalTeacher(network, SIZE, HALF, HALF, blocks=blocks, layout=PatchLayout("BCHW", (16, 16)))
    assert [info["num_chs"] for info in teacher.feature_info] == [4, 6]
    assert teacher.num_classes == 7


def test_images_that_the_network_can_not_take_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^mine: can't take images of 3×40×40 \(.*\)$"):
        ExternalTeacher(Hidden("vit_tiny_patch16_224", **VIT), (3, 40, 40), HALF, HALF, name="mine")
