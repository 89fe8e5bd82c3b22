"""What a model costs: MACs against counts by hand, memory against the allocator's own record."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from isometry.objective import Objective
from isometry.profile import _count, images_per_second, macs, parameter_count, step_memory

VIT = {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
CAIT = {"patch_size": 8, "embed_dim": 72, "depth": 3, "num_heads": 3, "depth_token_only": 1}


def vit(**more):
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, "img_size": 64, "num_classes": 10, **more})


def cait():
    return timm.create_model("cait_xxs24_224", **CAIT, img_size=64, num_classes=10)


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
        == _count(model, size, torch.device("meta"))
        == _count(model, size, torch.device("cpu"))
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


def test_images_per_second_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert images_per_second(model, (3, 2, 2), batch_size=4, seconds=0.01) > 0
    assert model.training


def allocator_peak(step) -> int:
    """The most bytes that a function held at once, of those that it allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "losses", [{"ce": 1}, {"soft": 1, "whole": 4}, {"hard": 1, "intra": 1, "inter": 1, "random": 1}]
)
def test_memory_of_a_step_is_within_a_third_of_the_allocators_peak(losses, amp_dtype):
    batch = 16
    objective = Objective(vit(), losses, None if "ce" in losses else cait(), img_size=64)
    optimizer = torch.optim.AdamW(objective.trainable_module.parameters())
    images, labels = torch.randn(batch, 3, 64, 64), torch.randint(0, 10, (batch,))

    def step():
        objective.train()
        with torch.autocast("cpu", dtype=amp_dtype, enabled=amp_dtype is not None):
            loss = objective(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    found = step_memory(objective, (3, 64, 64), batch, moments=2, moving_average=False, amp_dtype=amp_dtype)
    # Weights, moments and the teacher were there before the step.
    said = found.activations + found.gradients
    measured = allocator_peak(step)
    assert 3 / 4 < said / measured < 4 / 3, f"said {said}, measured {measured}"
    assert found.weights == found.gradients == 4 * parameter_count(objective.student)
    assert found.optimizer == 2 * found.weights
    kept = sum(v.numel() * 4 for s in optimizer.state.values() for v in s.values() if v.dim())
    assert found.optimizer == kept


def test_memory_grows_with_the_batch_and_leaves_the_model_as_it_was():
    student = timm.create_model("resnet18", num_classes=10)
    objective = Objective(student, {"ce": 1}).eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    few, many = (step_memory(objective, (3, 32, 32), b, moments=0, moving_average=True) for b in (8, 16))
    assert many.activations == pytest.approx(2 * few.activations)
    assert few.moving_average == few.weights
    assert few.teacher == few.optimizer == 0
    assert few.total == few.weights * 3 + few.activations
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not objective.training
    assert all(p.grad is None for p in student.parameters())
