"""Memory of a training step against the allocator's peak, and of inference against counts by hand."""

import os
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from helpers.allocator import peak_of
from helpers.small_transformers import cait, vit
from isometry.evaluation.memory import pass_bytes, weight_bytes
from isometry.models.cost import parameter_count
from isometry.training.objective import Objective
from isometry.training.step_memory import step_memory


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
    measured = peak_of(step)
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
    # Norms keep statistics of the batch, which are as many for any batch.
    assert many.activations == pytest.approx(2 * few.activations, rel=0.02)
    assert many.activations < 2 * few.activations
    assert few.moving_average == few.weights
    assert few.teacher == few.optimizer == 0
    assert few.total == few.weights * 3 + few.activations
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not objective.training
    assert all(p.grad is None for p in student.parameters())


def test_larger_images_for_the_teacher_are_counted_beside_the_activations():
    original, scaled = (
        step_memory(
            Objective(vit(img_size=32), {"soft": 1}, cait(), img_size=32, original_pixels=side == 64),
            (3, side, side),
            batch_size=16,
            moments=0,
            moving_average=False,
        )
        for side in (64, 32)
    )
    assert original.teacher_images == 16 * 3 * 64 * 64 * 4
    assert scaled.teacher_images == 0
    assert original.total == scaled.total + original.teacher_images


def chain(*widths: int) -> nn.Module:
    """Linear layers without biases, one after another."""
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))


def test_a_pass_holds_two_neighbouring_layers_at_once():
    network, images = chain(10, 3000, 2000, 500, 4), torch.randn(7, 10)
    outputs = [7 * 4 * width for width in (3000, 2000, 500, 4)]
    pairs = [a + b for a, b in pairwise(outputs)]
    assert pass_bytes(network, images) == max(pairs)


@pytest.mark.parametrize("build", [vit, lambda: timm.create_model("resnet10t", num_classes=10).eval()])
def test_a_pass_holds_the_more_the_more_images(build):
    network = build().eval()
    # Of few images kernels keep more that does not depend on them, such as weights in another order.
    few, more, most = (pass_bytes(network, torch.zeros(count, 3, 64, 64)) for count in (16, 32, 64))
    assert few < more < most
    assert most - more == pytest.approx(2 * (more - few), rel=0.05)


def test_what_a_pass_keeps_counts():
    kept = []

    def keeps(images):
        kept.append(images.clone())
        return images.clone()

    assert pass_bytes(keeps, torch.zeros(1000)) == 8000


def test_weights_count_once_and_buffers_too():
    network = chain(10, 20, 20)
    network[1].weight = nn.Parameter(torch.zeros(20, 20))
    tied = nn.Sequential(network[1], network[1], nn.BatchNorm1d(20))
    assert weight_bytes(network) == 4 * (200 + 400)
    assert weight_bytes(tied) == 4 * (400 + 4 * 20) + 8


def test_the_profiler_prints_nothing_and_other_output_is_restored(capfd):
    pass_bytes(nn.Identity(), torch.zeros(1))
    with pytest.raises(RuntimeError, match="shapes"):
        pass_bytes(nn.Linear(3, 2), torch.zeros(1, 4))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
