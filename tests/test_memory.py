"""Memory of a training step against the allocator's own record."""

import pytest
import timm
import torch
from torch.profiler import ProfilerActivity, profile

from isometry.memory import step_memory
from isometry.objective import Objective
from isometry.profile import parameter_count
from small_transformers import cait, vit


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
    # Norms keep statistics of the batch, which are as many for any batch.
    assert many.activations == pytest.approx(2 * few.activations, rel=0.02)
    assert many.activations < 2 * few.activations
    assert few.moving_average == few.weights
    assert few.teacher == few.optimizer == 0
    assert few.total == few.weights * 3 + few.activations
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not objective.training
    assert all(p.grad is None for p in student.parameters())
