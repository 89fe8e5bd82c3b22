"""What a network can't take is told before the run, with the option that is to blame."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.cost import macs
from isometry.models.spec import ModelSpec, image_spec
from isometry.training.assemble import assemble
from isometry.training.image_trial import pixels_in_no_patch, try_images

CONFIG = RunConfig(model="resnet18", dataset="digits", img_size=32, device="cpu", warmup_epochs=0, epochs=1)


def test_the_macs_of_an_image_are_those_of_the_network():
    spec = ModelSpec("cifar_resnet20", num_classes=10)
    model, _ = build_model(spec, flag="--model")
    assert try_images(model, image_spec(model), "--model", spec) == macs(model, image_spec(model).input_size)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"model_kwargs": {"zero_init_last": True, "global_pool": ""}},
            r"^--model-kwargs global_pool=: the student resnet18 can't take images of 3×32×32 \(.*without it; give",
        ),
        (
            {"model": "inception_v3"},
            r"^--img-size 32: the student inception_v3 can't take .*; give another size$",
        ),
    ],
)
def test_the_option_that_is_to_blame_is_named(changed: dict[str, Any], told: str):
    with pytest.raises(UserError, match=told):
        assemble(replace(CONFIG, **changed), World(0, 1, torch.device("cpu")))


SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "unseen"),
    [
        ("vit_tiny_patch16_224", {**SMALL, "patch_size": 8, "img_size": 44}, 4),
        ("vit_tiny_patch16_224", {**SMALL, "patch_size": 11, "img_size": 44}, 0),
        (
            "vit_tiny_patch16_224",
            {**SMALL, "patch_size": 8, "dynamic_img_size": True, "dynamic_img_pad": True},
            0,
        ),
        ("mixer_s32_224", {"img_size": 44}, 12),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}, 0),
    ],
)
def test_pixels_in_no_patch_are_those_without_a_gradient(name, arguments, unseen):
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    images = torch.randn(1, 3, 44, 44, requires_grad=True)
    model.forward_features(images).square().sum().backward()
    seen = (images.grad != 0).any(1)[0]
    assert int((~seen.any(1)).sum()) == int((~seen.any(0)).sum()) == unseen
    spec = replace(image_spec(model), input_size=(3, 44, 44))
    notes = pixels_in_no_patch(model, spec, "--model")
    if not unseen:
        assert notes == []
        return
    (note,) = notes
    assert f"{unseen} rows of pixels at the bottom and {unseen} columns on the right are in none" in note


def test_the_sizes_that_would_do_are_named():
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, patch_size=8, img_size=100)
    spec = replace(image_spec(model), input_size=(3, 100, 100))
    (note,) = pixels_in_no_patch(model, spec, "--model")
    assert note.endswith("all are seen with --img-size 96 or 104")
    (note,) = pixels_in_no_patch(model, spec, "--teacher")
    assert note.endswith("all are seen with --teacher-kwargs img_size=96 or 104")


def test_a_vit_of_any_size_refuses_one_that_its_patches_do_not_divide():
    arguments = {**SMALL, "patch_size": 8, "dynamic_img_size": True}
    model = timm.create_model("vit_tiny_patch16_224", **arguments)
    spec = replace(image_spec(model), input_size=(3, 100, 100))
    with pytest.raises(UserError, match=r"100×100.*divisible by patch size"):
        try_images(model, spec, "--model", ModelSpec("vit_tiny_patch16_224", arguments, img_size=100))


def test_a_run_says_it_of_student_and_teacher():
    networks = {
        "model": "vit_tiny_patch16_224",
        "model_kwargs": {**SMALL, "patch_size": 3},
        "teacher": "vit_tiny_patch16_224",
        "teacher_kwargs": {**SMALL, "patch_size": 5, "img_size": 16},
        "teacher_weights": "none",
    }
    run = assemble(replace(CONFIG, **networks, img_size=16), World(0, 1, torch.device("cpu")))
    notes = [note for note in run.notes if "patches of" in note]
    assert [note.partition(" cuts")[0] for note in notes] == ["the student", "the teacher"]
