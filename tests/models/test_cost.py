"""What a model costs: MACs against counts by hand."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from helpers.small_transformers import cait, vit
from isometry.models.cost import _count, macs, parameter_count


def test_macs_of_a_vit_are_those_of_its_matrix_products():
    tokens, width, depth = 64 + 1, 48, 3
    patches = 64 * width * 3 * 8 * 8
    projections = depth * tokens * (3 + 1 + 4 + 4) * width * width
    attention = depth * 2 * tokens * tokens * width
    assert macs(vit(), (3, 64, 64)) == patches + projections + attention + width * 10


def test_macs_of_a_convolution():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert macs(network, (3, 6, 6)) == 36 * 8 * 27 + 8 * 36 * 5


@pytest.mark.parametrize("build", [vit, cait, lambda: timm.create_model("mobilenetv3_small_050")])
def test_counting_on_shapes_equals_counting_in_earnest(build):
    model, size = build().eval(), (3, 64, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert (
        macs(model, size)
        == _count(model, size, torch.device("meta"))[0]
        == _count(model, size, torch.device("cpu"))[0]
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_counting_leaves_a_training_model_as_it_was():
    model = timm.create_model("resnet18", num_classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, (3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


class LooksAtValues(nn.Module):
    """A network whose forward can't be traced on shapes."""

    def __init__(self, look: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.look = look
        self.linear = nn.Linear(4, 2)

    def forward(self, image):
        assert not self.look(image)
        return self.linear(image.flatten(1))


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda image: image.sum().item(), id="a number"),
        pytest.param(lambda image: image.any(), id="a condition"),
        pytest.param(lambda image: image.nonzero().tolist(), id="places"),
        pytest.param(lambda image: image.numpy().any(), id="an array"),
        pytest.param(lambda image: (image + torch.zeros(2)).any(), id="beside a tensor of its own"),
    ],
)
def test_a_network_that_looks_at_values_is_run_in_earnest(look):
    assert macs(LooksAtValues(look), (1, 2, 2)) == 8


def test_an_image_that_does_not_fit_is_refused_by_the_first_pass():
    """A second one, in earnest, would say the same later."""
    model, calls = vit(), []
    model.patch_embed.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(AssertionError, match="doesn't match model"):
        macs(model, (3, 32, 32))
    assert calls == [1]


def test_parameters():
    assert parameter_count(nn.Linear(4, 3)) == 15
