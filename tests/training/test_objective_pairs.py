"""Pairs of architectures: one step with a finite loss and gradients in the student's first layer."""

import pytest
import timm
import torch

from isometry.training.objective import Objective

TINY = {"embed_dim": 24, "num_heads": 3}
SWIN = {"img_size": 64, "window_size": 2, "num_heads": (1, 2, 4, 8)}

PAIRS = {
    "deit_tiny_distilled ◄ cait_xxs24": (
        ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 5, **TINY}),
        ("cait_xxs24_224", {"img_size": 32, "depth": 6, **TINY}),
    ),
    "deit_tiny ◄ vit_small_patch16_dinov3 (registers)": (
        ("deit_tiny_patch16_224", {"img_size": 64, "depth": 3, **TINY}),
        ("vit_small_patch16_dinov3", {"img_size": 64, "depth": 4, "num_classes": 6}),
    ),
    "swin_tiny ◄ swin_small": (
        ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (1, 1, 2, 1), **SWIN}),
        ("swin_small_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1, 3, 1), **SWIN}),
    ),
    "mobilenetv4_conv_small ◄ vit": (
        ("mobilenetv4_conv_small", {}),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 6, **TINY}),
    ),
    "vit_tiny_patch16 ◄ vit_small_patch14 at another resolution": (
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 4, **TINY}),
        (
            "vit_small_patch14_dinov2",
            {"img_size": 70, "depth": 4, "num_classes": 6, "embed_dim": 36, "num_heads": 3},
        ),
    ),
    "resnet18 ◄ regnety": (("resnet18", {}), ("regnety_004", {})),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_step_has_a_finite_loss_and_reaches_the_first_layer(pair):
    torch.manual_seed(0)
    (student_name, student_kwargs), (teacher_name, teacher_kwargs) = PAIRS[pair]
    student = timm.create_model(student_name, **{"num_classes": 6, **student_kwargs})
    teacher = timm.create_model(teacher_name, **{"num_classes": 6, **teacher_kwargs})
    size = student_kwargs.get("img_size", 64)
    objective = Objective(student, {"soft": 1, "whole": 4, "intra": 1}, teacher, img_size=size).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    images, labels = torch.randn(3, 3, size, size), torch.tensor([0, 3, 5])
    result = objective(images, labels)
    result["loss"].backward()
    assert torch.isfinite(result["loss"])
    first = next(parameter for parameter in student.parameters() if parameter.ndim == 4)
    assert torch.isfinite(first.grad).all()
    assert first.grad.abs().sum() > 0
    optimizer.step()
    assert torch.isfinite(objective(images, labels)["loss"])


def test_swin_stages_are_compared_token_by_token_without_merging():
    (student_name, student_kwargs), (teacher_name, teacher_kwargs) = PAIRS["swin_tiny ◄ swin_small"]
    student = timm.create_model(student_name, num_classes=6, **student_kwargs)
    teacher = timm.create_model(teacher_name, num_classes=6, **teacher_kwargs)
    objective = Objective(student, {"whole": 1}, teacher)
    assert [pair.grid for pair in objective.pairs] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert {pair.alignment for pair in objective.pairs} == {"same grid"}


def test_the_patch14_teacher_at_its_own_resolution_is_pooled_to_the_students_grid():
    (student_name, student_kwargs), (teacher_name, teacher_kwargs) = PAIRS[
        "vit_tiny_patch16 ◄ vit_small_patch14 at another resolution"
    ]
    student = timm.create_model(student_name, num_classes=6, **student_kwargs)
    teacher = timm.create_model(teacher_name, **teacher_kwargs)
    objective = Objective(student, {"whole": 1}, teacher)
    assert {pair.alignment for pair in objective.pairs} == {"teacher pooled to 4×4"}
    assert objective.teacher.adapter(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 70, 70)
