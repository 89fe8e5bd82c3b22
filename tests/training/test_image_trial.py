"""What a network can't take is told before the run, with the option that is to blame."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.cost import macs
from isometry.models.spec import ModelSpec, image_spec
from isometry.training.assemble import assemble
from isometry.training.image_trial import try_images

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
