"""timm's optimizers and schedules: fused forms, weight decay groups, rates as a function of the step."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.runs import DIGITS, STUDENT_KWARGS, config_of
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec
from isometry.training.objective import Objective
from isometry.training.optim import build_optimizer, build_schedule, take_step


@pytest.fixture(scope="module")
def objective() -> Objective:
    """A student that learns from labels alone."""
    kwargs = {key: int(value) for key, value in (pair.split("=") for pair in STUDENT_KWARGS)}
    student, _ = build_model(
        ModelSpec("vit_tiny_patch16_224", kwargs, num_classes=10, in_chans=1, img_size=8)
    )
    return Objective(student, {"ce": 1.0}, img_size=8)


def config(**changes: object) -> RunConfig:
    """A RunConfig with some options changed."""
    return replace(config_of(*DIGITS, "--model", "vit_tiny_patch16_224", "--out", "x"), **changes)


@pytest.mark.parametrize(
    ("name", "form"),
    [("adamw", "fused"), ("sgd", "fused"), ("nadamw", "foreach"), ("lamb", "foreach"), ("madgrad", None)],
)
def test_the_fastest_form_is_taken(name: str, form: str | None, objective: Objective) -> None:
    optimizer = build_optimizer(config(opt=name), objective)
    for group in optimizer.param_groups:
        assert [key for key in ("fused", "foreach") if group.get(key)] == ([form] if form else [])


@pytest.mark.parametrize("clip_grad", [None, 0.1])
def test_the_fused_form_takes_scaled_gradients(clip_grad: float | None, objective: Objective) -> None:
    """It divides by the scale itself, but for clipping that is done before."""
    objectives = [copy.deepcopy(objective) for _ in range(2)]
    for scaled, each in enumerate(objectives):
        optimizer = build_optimizer(config(opt="adamw", lr=1e-2), each)
        assert optimizer.param_groups[0]["fused"]
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=bool(scaled))
        for step in range(3):
            images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(step))
            # An infinite loss is a step that scaled gradients skip.
            spoiled = torch.inf if scaled and step == 1 else 1.0
            if not scaled and step == 1:
                continue
            loss = each(images, torch.arange(4))["loss"]
            scaler.scale(loss * spoiled).backward()
            take_step(each, optimizer, scaler, clip_grad)
    for one, other in zip(*(each.student.parameters() for each in objectives), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(next(objectives[0].student.parameters()), next(objective.student.parameters()))


def test_matrices_decay_and_biases_norms_positions_and_class_tokens_do_not(objective: Objective) -> None:
    optimizer = build_optimizer(config(weight_decay=0.3), objective)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    student = objective.student
    assert len(decays) == len(list(student.parameters()))
    for name, parameter in student.named_parameters():
        spared = parameter.ndim == 1 or name in ("pos_embed", "cls_token")
        assert decays[id(parameter)] == (0.0 if spared else 0.3), name


def test_options_reach_the_optimizer(objective: Objective) -> None:
    group = build_optimizer(config(lr=0.5, opt_eps=1e-5, opt_betas=[0.8, 0.9]), objective).param_groups[0]
    assert (group["lr"], group["eps"], tuple(group["betas"])) == (0.5, 1e-5, (0.8, 0.9))
    assert build_optimizer(config(opt="sgd", momentum=0.7), objective).param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize(
    "changes",
    [{"opt": "adamm"}, {"opt_betas": [2.0, 3.0]}, {"opt": "adahessian"}],
)
def test_what_cannot_be_built_is_an_error_of_one_line(
    changes: dict[str, object], objective: Objective
) -> None:
    with pytest.raises(UserError, match="--opt") as caught:
        build_optimizer(config(**changes), objective)
    assert len(str(caught.value).splitlines()) == 1


def rates(sched: str, steps: list[int], **changes: object) -> list[float]:
    """The learning rates that a schedule gives at these steps, asked in this order."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = build_schedule(config(sched=sched, lr=1.0, epochs=10, **changes), optimizer, steps_an_epoch=5)
    found = []
    for step in steps:
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("sched", ["cosine", "poly", "tanh", "step", "multistep"])
def test_the_rate_depends_on_the_step_alone(sched: str) -> None:
    """Resuming needs no state of the schedule."""
    inside = list(range(50))
    in_order = rates(sched, inside, warmup_epochs=2)
    assert rates(sched, inside[::-1], warmup_epochs=2)[::-1] == in_order
    assert all(rate > 0 for rate in in_order)


def test_cosine_warms_up_and_ends_at_its_minimum() -> None:
    found = rates("cosine", list(range(51)), warmup_epochs=2, warmup_lr=0.1, min_lr=0.01)
    assert found[0] == pytest.approx(0.1)
    assert found[:10] == sorted(found[:10])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[30] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 0.6)) / 2)
    assert found[50] == pytest.approx(0.01)


@pytest.mark.parametrize("sched", ["plateau", "cosin"])
def test_an_impossible_schedule_is_an_error(sched: str) -> None:
    with pytest.raises(UserError, match=f"--sched {sched}"):
        rates(sched, [0])
