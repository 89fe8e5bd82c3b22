"""Activation checkpointing: the same step with less memory."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.allocator import peak_of
from helpers.runs import TERMS, TINY_STUDENT, config_of
from helpers.small_transformers import CAIT, cait, vit
from isometry.distributed import World
from isometry.errors import UserError
from isometry.prune.sites import add_gates
from isometry.training.activation_checkpointing import checkpoint_blocks
from isometry.training.assemble import assemble
from isometry.training.objective import Objective
from isometry.training.step_memory import step_memory

SIDE, BATCH = 64, 6
STUDENTS = {
    "vit": lambda: vit(drop_path_rate=0.3),
    "cait": lambda: timm.create_model(
        "cait_xxs24_224", **CAIT, img_size=SIDE, num_classes=10, drop_path_rate=0.3
    ),
    "resnet": lambda: timm.create_model("resnet10t", num_classes=10, drop_path_rate=0.3),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10, drop_rate=0.3),
}
LOSSES = {"ce": {"ce": 1.0}, "tokens": {"ce": 1.0, "whole": 1.0}}


def objective(student: str, losses: str, recomputes: bool) -> Objective:
    """The same in every call."""
    torch.manual_seed(0)
    network, teacher = STUDENTS[student](), cait() if losses == "tokens" else None
    task = Objective(network, LOSSES[losses], teacher, img_size=SIDE)
    if recomputes:
        checkpoint_blocks(task, student, compiles=False)
    return task.train()


def steps(task: Objective, count: int = 2) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Losses, gradients that were added up, and buffers."""
    losses = []
    for step in range(count):
        torch.manual_seed(step)
        loss = task(torch.randn(BATCH, 3, SIDE, SIDE), torch.arange(BATCH))["loss"]
        loss.backward()
        losses.append(loss.detach())
    gradients = {name: p.grad for name, p in task.student.named_parameters() if p.grad is not None}
    return losses, gradients, {name: buffer.clone() for name, buffer in task.student.named_buffers()}


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("student", STUDENTS)
def test_steps_are_bitwise_those_without_checkpointing(student, losses):
    """Gradients, what is dropped at random, and the statistics of norms, which see each batch once."""
    found, wanted = (steps(objective(student, losses, recomputes)) for recomputes in (True, False))
    assert found[0] == wanted[0]
    assert len(found[1]) == len(wanted[1]) > 10
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_norms_would_count_twice_otherwise():
    task = objective("resnet", "ce", recomputes=False)
    task.student.set_grad_checkpointing(True)
    _, _, buffers = steps(task, 1)
    assert {int(value) for name, value in buffers.items() if name.endswith("num_batches_tracked")} == {1, 2}


def test_an_evaluation_between_backward_passes_changes_nothing():
    task, plain = (objective("resnet", "ce", recomputes) for recomputes in (True, False))
    for each in (task, plain):
        steps(each, 1)
        each.eval()
        with torch.no_grad():
            each(torch.ones(2, 3, SIDE, SIDE), torch.arange(2))
        each.train()
        steps(each, 1)
    state, wanted = task.student.state_dict(), plain.student.state_dict()
    assert [name for name in wanted if not torch.equal(state[name], wanted[name])] == []


def test_a_copy_counts_for_itself():
    """The moving average is one: it has the norms' hooks too."""
    task = objective("resnet", "ce", recomputes=True)
    steps(task, 1)
    average = copy.deepcopy(task.student)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    steps(task, 1)
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    with torch.no_grad():
        wanted = average.eval()(torch.ones(2, 3, SIDE, SIDE))
    plain = STUDENTS["resnet"]().eval()
    plain.load_state_dict(before)
    assert torch.equal(plain(torch.ones(2, 3, SIDE, SIDE)), wanted)


@pytest.mark.parametrize("losses", LOSSES)
def test_memory_is_estimated_within_the_measured_peak(losses):
    """Within a third of what the allocator sees, and less than half of what all activations take."""
    tasks = {recomputes: objective("vit", losses, recomputes) for recomputes in (True, False)}
    said, measured = {}, {}
    for recomputes, task in tasks.items():
        steps(task, 1)
        task.zero_grad(set_to_none=True)
        found = step_memory(
            task, (3, SIDE, SIDE), BATCH, moments=2, moving_average=False, recomputes=recomputes
        )
        said[recomputes] = found.activations
        measured[recomputes] = peak_of(lambda task=task: steps(task, 1))
        assert 2 / 3 < (found.activations + found.gradients) / measured[recomputes] < 3 / 2
    assert said[True] < said[False] / 1.5
    assert measured[True] < measured[False]


def test_the_option_reaches_the_student():
    words = ["--teacher", "vit_tiny_patch16_224", "--teacher-weights", "none", "--teacher-kwargs"]
    words += ["patch_size=4", "embed_dim=16", "depth=2", "num_heads=2", "img_size=8", "in_chans=1"]
    config = config_of(*TINY_STUDENT, *words, *TERMS, "--grad-checkpointing")
    run = assemble(config, World(0, 1, torch.device("cpu")))
    assert run.student.grad_checkpointing


def refused(network: nn.Module, compiles: bool = False) -> str:
    with pytest.raises(UserError) as error:
        checkpoint_blocks(Objective(network, {"ce": 1}), "net", compiles=compiles)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unsupported_students_are_refused():
    assert "timm does not support it for net" in refused(nn.Linear(3, 2))
    assert "timm does not support it for net" in refused(timm.create_model("inception_v4", num_classes=2))
    resnet = timm.create_model("resnet10t", num_classes=10)
    assert "norms with running statistics" in refused(resnet, compiles=True)
    assert "gates" in refused(add_gates(resnet, "resnet10t"))


@pytest.mark.slow
def test_a_compiled_vit_takes_the_same_steps():
    tasks = [objective("vit", "ce", recomputes=recomputes) for recomputes in (True, False)]
    for task in tasks:
        torch.compiler.reset()
        task.compile(backend="aot_eager")
    found, wanted = (steps(task)[1] for task in tasks)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)
