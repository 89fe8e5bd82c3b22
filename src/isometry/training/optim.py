"""timm's optimizers and schedules, from a config."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.grow.schedule import Schedule, Stage
from isometry.training.objective import Objective


def at_stage(config: RunConfig, schedule: Schedule, stage: Stage) -> RunConfig:
    """The config as optimizer and schedule see it at a stage of growth.

    ``--grow.lr restart`` gives the stage a schedule of its own, ``--grow.weight-decay depth`` its share of the decay.
    """
    full = schedule.stages[-1].size
    if config.grow.weight_decay == "depth" and stage.size is not None and full is not None:
        share = sum(stage.size.depth) / sum(full.depth)
        config = replace(config, weight_decay=config.weight_decay * share)
    if config.grow.lr == "restart":
        config = replace(
            config, epochs=stage.epochs, warmup_epochs=min(config.warmup_epochs, stage.epochs // 2)
        )
    return config


def build_optimizer(config: RunConfig, objective: Objective) -> torch.optim.Optimizer:
    """timm's optimizer of that name over all that trains, in its fused form, else foreach, else plain.

    Weight decay spares biases, norms, and what the student itself exempts (timm's ``no_weight_decay``:
    position embeddings and class tokens, as in DeiT, arXiv:2012.12877).

    Raises:
        UserError: timm has no such optimizer, or it refuses a value.
    """
    options: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "momentum": config.momentum,
    }
    if config.opt_eps is not None:
        options["eps"] = config.opt_eps
    if config.opt_betas is not None:
        options["betas"] = tuple(config.opt_betas)
    groups = partial(
        param_groups_weight_decay, weight_decay=config.weight_decay, no_weight_decay_list=_exempt(objective)
    )
    refusal: Exception | None = None
    for speed in ({"fused": True}, {"foreach": True}, {}):
        try:
            optimizer = create_optimizer_v2(
                objective.trainable_module, opt=config.opt, param_group_fn=groups, **options, **speed
            )
        except (TypeError, RuntimeError) as error:
            # This optimizer has no such form, or not on this device.
            refusal = error
        except (ValueError, AssertionError) as error:
            raise UserError(f"--opt {config.opt}: {' '.join(str(error).split())}") from error
        else:
            if getattr(optimizer, "is_second_order", False):
                raise UserError(
                    f"--opt {config.opt}: needs second derivatives, which the loop does not compute"
                )
            return optimizer
    raise UserError(
        f"--opt {config.opt}: timm could not build it from these options ({refusal})"
    ) from refusal


def _exempt(objective: Objective) -> list[str]:
    """Names of the trainable parameters that the student wants without weight decay."""
    student = objective.student
    wanted: set[str] = getattr(student, "no_weight_decay", set)()
    spared = {id(parameter) for name, parameter in student.named_parameters() if name in wanted}
    return [
        name for name, parameter in objective.trainable_module.named_parameters() if id(parameter) in spared
    ]


def build_schedule(config: RunConfig, optimizer: torch.optim.Optimizer, steps_an_epoch: int) -> Scheduler:
    """timm's schedule of that name, in steps: ``step_update(k)`` sets step k's rate, whatever came before.

    Raises:
        UserError: timm has no such schedule, or it needs a metric.
    """
    if config.sched == "plateau":
        raise UserError("--sched plateau: needs a metric after each epoch; use cosine, step, poly or tanh")
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=config.sched,
            num_epochs=config.epochs,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_epochs=config.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=steps_an_epoch,
        )
    except (AssertionError, ValueError) as error:
        raise UserError(f"--sched {config.sched}: {' '.join(str(error).split())}") from error
    if schedule is None:
        raise UserError(f"--sched {config.sched}: timm has no such schedule; use cosine, step, poly or tanh")
    return schedule


def take_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip_grad: float | None,
) -> None:
    """One step on the gradients that there are, of at most the norm ``clip_grad``; takes them away."""
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(objective.get_clip_parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
