"""Grids that don't divide: what is advised, and that the run with the advised size has grids that do."""

import re
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.models.build import save_model
from isometry.models.taps import BlockPair, BlockShape
from isometry.training.assemble import Run, assemble
from isometry.training.grids import grid_advice, overlaps, sizes_that_divide

ALONE = World(0, 1, torch.device("cpu"))
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2}
DINO = {"img_size": 224, **SMALL}
SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
RESNET = {"channels": (4, 4, 4, 4), "layers": (1, 1, 1, 1)}


def run_of(student: tuple[str, dict[str, Any]], teacher: tuple[str, dict[str, Any]], **changes: Any) -> Run:
    config = RunConfig(
        model=student[0],
        model_kwargs=student[1],
        teacher=teacher[0],
        teacher_kwargs=teacher[1],
        teacher_weights="none",
        dataset="digits",
        batch_size=2,
        workers=0,
        losses={"whole": 1},
    )
    return assemble(replace(config, **changes), ALONE)


def pair(ours: tuple[int, int], theirs: tuple[int, int]) -> BlockPair:
    return BlockPair(BlockShape(0, 8, ours), BlockShape(0, 8, theirs))


VIT = ("vit_tiny_patch16_224", SMALL)


def test_a_student_of_patches_of_16_under_a_teacher_of_14():
    """As in the advice's example: 14×14 patches under 16×16."""
    run = run_of(VIT, ("vit_small_patch14_dinov2", DINO))
    (advice,) = grid_advice(run)
    assert (
        "student block 0 (14×14 patches) and teacher block 0 (16×16), and 1 more pair, don't divide: "
        in advice
    )
    assert "teacher pooled to 14×14 in windows that overlap" in advice
    assert advice.endswith(
        "--img-size 256 gives the student 16×16 or --teacher-kwargs img_size=196 gives the teacher 14×14"
    )
    for changes in ({"img_size": 256}, {"teacher_kwargs": {**DINO, "img_size": 196}}):
        mended = run_of(VIT, ("vit_small_patch14_dinov2", DINO), **changes)
        assert [pair.alignment for pair in mended.objective.pairs] == ["same grid", "same grid"]
        assert grid_advice(mended) == []


def test_a_teacher_at_its_own_size():
    """DINOv2's 518 pixels are 37×37 patches, a prime."""
    (advice,) = grid_advice(run_of(VIT, ("vit_small_patch14_dinov2", {**DINO, "img_size": 518})))
    assert advice.endswith(
        "--img-size 592 gives the student 37×37 or --teacher-kwargs img_size=196 gives the teacher 14×14"
    )


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (("resnet18", RESNET), ("vit_small_patch14_dinov2", DINO)),
        (("swin_tiny_patch4_window7_224", SWIN), ("vit_small_patch14_dinov2", DINO)),
        (
            (VIT[0], {**SMALL, "patch_size": 14}),
            ("convnext_tiny", {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}),
        ),
    ],
    ids=["resnet under vit", "swin under vit", "vit under convnext"],
)
def test_stages_of_hierarchical_networks(student, teacher):
    run = run_of(student, teacher)
    (advice,) = grid_advice(run)
    sizes = re.findall(r"(--img-size |--teacher-kwargs img_size=)(\d+)", advice)
    assert sizes
    # A ConvNeXt has no such argument.
    assert ("--teacher-kwargs img_size=" in dict(sizes)) == (teacher[0] != "convnext_tiny")
    for option, size in sizes:
        kwargs = teacher[1] | ({"img_size": int(size)} if "teacher" in option else {})
        mended = run_of(student, (teacher[0], kwargs), img_size=None if "teacher" in option else int(size))
        assert not any(map(overlaps, mended.objective.pairs))


def test_grids_that_divide_are_not_worth_a_word():
    assert grid_advice(run_of(VIT, ("vit_tiny_patch16_224", {**SMALL, "img_size": 448}))) == []
    assert grid_advice(run_of(("resnet18", RESNET), ("resnet18", RESNET))) == []


@pytest.mark.parametrize(
    ("name", "more"), [("vit_tiny_patch16_224", {}), ("cait_xxs24_224", {"depth_token_only": 1})]
)
def test_a_teacher_whose_weights_fit_one_size_is_not_advised_to_change_it(name, more, tmp_path):
    """timm resamples the position embeddings of a ViT, and not those of a CaiT."""
    sizes = {**SMALL, "img_size": 64, "patch_size": 8, "num_classes": 10, **more}
    save_model(timm.create_model(name, **sizes), tmp_path, None, {"input_size": (3, 64, 64)})
    saved, weights = f"local-dir:{tmp_path}", {"teacher_weights": "pretrained", "img_size": 96}
    (advice,) = grid_advice(run_of(VIT, (saved, {}), **weights))
    assert "6×6 patches) and teacher block 0 (8×8)" in advice
    assert "--img-size 128 gives the student 8×8" in advice
    assert ("--teacher-kwargs img_size=48 gives the teacher 6×6" in advice) == name.startswith("vit")
    if name.startswith("vit"):
        assert grid_advice(run_of(VIT, (saved, {"img_size": 48}), **weights)) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ((14, 14), (16, 16), True),
        ((14, 14), (28, 28), False),
        ((7, 14), (14, 7), False),
        ((6, 6), (4, 6), True),
        ((1, 1), (9, 9), False),
    ],
)
def test_which_pairs_overlap(ours, theirs, wanted):
    assert overlaps(pair(ours, theirs)) == wanted
    assert overlaps(pair(theirs, ours)) == wanted


def test_sizes_are_those_whose_grids_divide_the_equal_ones_first():
    assert sizes_that_divide([pair((14, 14), (16, 16))], 224) == [256]
    # 56, 28, 14, 7 patches: 64 to 512 pixels make one stage equal each, and the nearest is first.
    stages = [pair((56 >> stage, 56 >> stage), (16, 16)) for stage in range(4)]
    assert sizes_that_divide(stages, 224) == [256, 128, 512, 64]
    assert sizes_that_divide([pair((14, 14), (15, 16))], 224) == []
