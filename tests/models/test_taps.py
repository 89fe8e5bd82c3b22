"""Taps: the right blocks, on the right grid, without prefix tokens, and the model's own logits beside them."""

import pytest
import timm
import torch

from isometry.errors import UserError
from isometry.models.taps import (
    BlockPair,
    BlockShape,
    TappedModel,
    block_count,
    block_shapes,
    block_tokens,
    choose_blocks,
    first_and_last,
    in_smaller,
    layout_of,
    pair_blocks,
    parse_blocks,
    tokens_on_grid,
)


def vit(depth=12, **kwargs):
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", depth=depth, **{**small, **kwargs}).eval()


ARCHITECTURES = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24},
    "vit_small_patch16_dinov3": {"img_size": 64, "depth": 3, "num_classes": 5},
    "cait_xxs24_224": {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 24,
        "depths": (1, 1, 2, 1),
    },
    "mobilenetv4_conv_small": {},
    "resnet18": {},
    "regnety_004": {},
    "convnext_tiny": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
    "efficientnet_b0": {},
}
"""One small member of each family that the documentation names."""


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_tapping_leaves_the_logits_as_they_are(name):
    torch.manual_seed(0)
    model = timm.create_model(name, **ARCHITECTURES[name]).eval()
    size = ARCHITECTURES[name].get("img_size", 64)
    images = torch.randn(2, 3, size, size)
    blocks = list(range(block_count(model, name)))
    logits, features = TappedModel(model, blocks)(images)
    torch.testing.assert_close(logits, model(images))
    assert len(features) == len(blocks)
    assert all(feature.ndim == 4 for feature in features)


TOKENS = {
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch16_dinov3",
    "cait_xxs24_224",
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_tokens_of_either_layout_are_the_same(name):
    torch.manual_seed(0)
    model = timm.create_model(name, **ARCHITECTURES[name]).eval()
    size = ARCHITECTURES[name].get("img_size", 64)
    images = torch.randn(2, 3, size, size)
    shapes = block_shapes(model, list(range(block_count(model, name))), (3, size, size))
    assert layout_of(shapes) == ("NLC" if name in TOKENS else "NCHW")
    blocks = [shape.block for shape in shapes]
    _, maps = TappedModel(model, blocks)(images)
    _, features = TappedModel(model, blocks, layout_of(shapes))(images)
    for feature, feature_map, shape in zip(features, maps, shapes, strict=True):
        for grid in (shape.grid, (max(1, shape.grid[0] // 2), 1)):
            wanted = tokens_on_grid(feature_map, grid)
            torch.testing.assert_close(block_tokens(feature, shape, grid), wanted)


@torch.no_grad()
def test_tokens_are_the_blocks_outputs_before_the_final_norm_without_prefix_tokens():
    model = vit(depth=3, reg_tokens=4)
    seen = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _m, _i, out, number=number: seen.__setitem__(number, out))
    _, features = TappedModel(model, [0, 2])(torch.randn(2, 3, 32, 32))
    for feature, block in zip(features, [0, 2], strict=True):
        tokens = tokens_on_grid(feature, (4, 4))
        assert tokens.shape == (2, 16, 24)
        torch.testing.assert_close(tokens, seen[block][:, model.num_prefix_tokens :])


def test_without_blocks_nothing_but_the_logits_is_computed():
    model = vit(depth=1)
    logits, features = TappedModel(model, [])(torch.randn(1, 3, 32, 32))
    assert logits.shape == (1, 5)
    assert features == []


def test_the_papers_blocks_are_the_default():
    """Table 5: {1, 2, 3, 4, 21, ..., 24} of CaiT-S24 and {1, 2, 3, 4, 9, ..., 12} of DeiT-Tiny, counted from 1."""
    student, teacher = first_and_last(12, 24)
    assert student == [0, 1, 2, 3, 8, 9, 10, 11]
    assert teacher == [0, 1, 2, 3, 20, 21, 22, 23]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((4, 4), ([0, 1, 2, 3], [0, 1, 2, 3])),
        ((5, 12), ([0, 1, 2, 3, 4], [0, 1, 2, 10, 11])),
        ((1, 24), ([0], [0])),
        ((7, 24), ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 21, 22, 23])),
    ],
)
def test_a_network_with_fewer_blocks_gets_fewer_pairs(counts, expected):
    assert first_and_last(*counts) == expected


@pytest.mark.parametrize("student", range(1, 30))
@pytest.mark.parametrize("teacher", [1, 4, 7, 12, 24])
def test_default_blocks_exist_ascend_and_pair_up(student, teacher):
    ours, theirs = first_and_last(student, teacher)
    assert len(ours) == len(theirs) <= 8
    for blocks, count in ((ours, student), (theirs, teacher)):
        assert sorted(set(blocks)) == blocks
        assert 0 <= blocks[0] <= blocks[-1] < count


@pytest.mark.parametrize("given", ["0,1,10", "[0, 1, 10]", [0, 1, 10], "0, 1, 10"])
def test_blocks_can_be_written_in_several_ways(given):
    assert parse_blocks(given, "--taps.student") == [0, 1, 10]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ("0,12", "0,1", "--taps.student: the model has no block 12; its blocks are 0 to 11"),
        ("0,1", "-1,2", "--taps.teacher: the model has no block -1"),
        ("0,1,2", "0,1", "--taps.student names 3 blocks and --taps.teacher 2"),
        ("3,1", "0,1", "--taps.student: block numbers must ascend"),
        ("1,1", "0,1", "--taps.student: block numbers must ascend"),
        ("first", "0", "--taps.student first: give block numbers from 0 with commas"),
    ],
)
def test_taps_that_can_not_be_are_refused(student, teacher, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        choose_blocks(vit(), vit(), student, teacher)


def test_a_finer_grid_is_pooled_to_the_coarser_one_and_said():
    student, teacher = vit(depth=2, patch_size=8), vit(depth=2, patch_size=4)
    pairs = pair_blocks(student, teacher, (3, 32, 32), (3, 32, 32))
    assert [(p.student.grid, p.teacher.grid, p.grid) for p in pairs] == [((4, 4), (8, 8), (4, 4))] * 2
    assert pairs[0].alignment == "teacher pooled to 4×4"


def test_pooling_averages_the_tokens_under_each_cell():
    features = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = tokens_on_grid(features, (2, 2))
    assert pooled.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_grids_that_cross_are_both_pooled():
    pair = BlockPair(BlockShape(0, 8, (2, 6)), BlockShape(0, 8, (4, 3)))
    assert pair.grid == (2, 3)
    assert pair.alignment == "student and teacher pooled to 2×3"


def test_measuring_the_blocks_leaves_the_model_in_its_mode():
    student = vit(depth=1).train()
    pair_blocks(student, vit(depth=1), (3, 32, 32), (3, 32, 32))
    assert student.training


def test_an_architecture_without_features_is_refused():
    with pytest.raises(UserError, match="intermediate"):
        block_count(torch.nn.Linear(2, 2), "the student")


TEACHERS = (1, 3, 4, 5, 7, 8, 12, 24)


@pytest.mark.parametrize("full", range(1, 25))
def test_default_taps_of_a_smaller_network_are_its_own_defaults(full):
    """The first four and last four stay so in both networks, whatever the size: fewer pairs where there is no room."""
    for teacher in TEACHERS:
        student_taps, teacher_taps = first_and_last(full, teacher)
        for smaller in range(1, full + 1):
            places = in_smaller(student_taps, full, smaller)
            kept = [(p, t) for p, t in zip(places, teacher_taps, strict=True) if p is not None]
            expected = first_and_last(smaller, teacher)
            assert ([p for p, _ in kept], [t for _, t in kept]) == expected, (smaller, teacher)


@pytest.mark.parametrize("count", range(1, 25))
def test_all_taps_are_where_they_were_at_the_same_size(count):
    assert in_smaller(list(range(count)), count, count) == list(range(count))


@pytest.mark.parametrize("count", range(1, 25))
def test_no_block_of_a_smaller_network_is_tapped_twice(count):
    """Whatever blocks are tapped: all of them are, here, and each keeps its distance from the nearer end."""
    blocks = list(range(count))
    for smaller in range(1, count):
        places = in_smaller(blocks, count, smaller)
        assert len(places) == count
        kept = [place for place in places if place is not None]
        assert kept == list(range(smaller))
        for block, place in zip(blocks, places, strict=True):
            assert place is None or place == block or smaller - place == count - block


def test_taps_in_the_middle_wait_until_there_is_room():
    assert in_smaller([0, 5, 6, 11], 12, 6) == [0, None, None, 5]
    assert in_smaller([0, 5, 6, 11], 12, 11) == [0, 5, None, 10]
