"""timm's optimizers and learning rate schedules."""

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from isometry.config import GrowConfig, OptimConfig
from isometry.errors import UserError
from isometry.grow.schedule import Schedule, Stage


class Trainable(Protocol):
    """What is trained: all of it, and the network of timm in it."""

    @property
    def trainable_module(self) -> nn.Module: ...

    @property
    def student(self) -> nn.Module: ...

    def get_clip_parameters(self) -> list[Tensor]:
        """The parameters whose gradients are clipped together."""


def at_stage(config: OptimConfig, grow: GrowConfig, schedule: Schedule, stage: Stage) -> OptimConfig:
    """The options of optimizer and learning rate schedule at a stage of growth.

    ``--grow.lr restart`` gives the stage its own schedule, ``--grow.weight-decay depth`` a fraction of the decay.
    """
    full = schedule.stages[-1].size
    if grow.weight_decay == "depth" and stage.size is not None and full is not None:
        share = sum(stage.size.depth) / sum(full.depth)
        config = replace(config, weight_decay=config.weight_decay * share)
    if grow.lr == "restart":
        config = replace(
            config, epochs=stage.epochs, warmup_epochs=min(config.warmup_epochs, stage.epochs // 2)
        )
    return config


def build_optimizer(config: OptimConfig, objective: Trainable) -> torch.optim.Optimizer:
    """timm's optimizer over all trainable parameters, in its fused form, else foreach, else plain.

    Weight decay is not applied to biases, norms, and timm's ``no_weight_decay`` of the student (position embeddings and
    class tokens, as in DeiT, arXiv:2012.12877).

    Raises:
        UserError: timm has no such optimizer, or it rejects a value.
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
            # This optimizer has no such form on this device.
            refusal = error
        except (ValueError, AssertionError, ImportError) as error:
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


def _exempt(objective: Trainable) -> list[str]:
    """Names of the trainable parameters without weight decay."""
    student = objective.student
    names: set[str] = getattr(student, "no_weight_decay", set)()
    exempt = {id(parameter) for name, parameter in student.named_parameters() if name in names}
    return [
        name for name, parameter in objective.trainable_module.named_parameters() if id(parameter) in exempt
    ]


def build_schedule(config: OptimConfig, optimizer: torch.optim.Optimizer, steps_an_epoch: int) -> Scheduler:
    """timm's learning rate schedule, in steps: ``step_update(k)`` sets the rate of step k.

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
    objective: Trainable,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip_grad: float | None,
) -> None:
    """One step on the accumulated gradients, clipped to the norm ``clip_grad``, which are then cleared."""
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(objective.get_clip_parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
