"""Memory of a run's training step, as ``isometry check`` shows it, and what would make it smaller."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from isometry.config import OptimConfig
from isometry.distributed import World
from isometry.errors import UserError, first_line
from isometry.training.activation_checkpointing import checkpoint_blocks
from isometry.training.assemble import Run
from isometry.training.objective import Objective
from isometry.training.optim import build_optimizer
from isometry.training.step_memory import StepMemory, step_memory


def memory(run: Run, world: World) -> StepMemory:
    """Memory of a training step on this run's device.

    Raises:
        UserError: the optimizer can't be built.
    """
    config, view = run.config, run.objective.view
    run.objective.to(world.device)
    return step_memory(
        run.objective,
        (view.images if view else run.spec).input_size,
        config.batch_size,
        moments=optimizer_moments(config),
        moving_average=config.model_ema,
        amp_dtype=getattr(torch, config.amp_dtype) if config.amp else None,
        recomputes=config.grad_checkpointing,
    )


def savings(run: Run, world: World, needed: StepMemory) -> Iterator[tuple[str, int]]:
    """What would take less memory than ``needed``, and how many bytes it would save; checkpointing stays switched on.

    The networks must not be compiled, nor distributed over several processes.
    """
    config = run.config
    if config.batch_size > 1:
        half = replace(config, batch_size=config.batch_size // 2)
        smaller = memory(replace(run, config=half), world)
        steps = 2 * config.grad_accum_steps
        named = f"-b {half.batch_size} instead of {config.batch_size} (with --grad-accum-steps {steps})"
        yield named, needed.total - smaller.total
    if not config.grad_checkpointing:
        try:
            checkpoint_blocks(run.objective, config.model, compiles=config.compile)
            recomputing = memory(replace(run, config=replace(config, grad_checkpointing=True)), world)
            yield "--grad-checkpointing", needed.total - recomputing.total
        except UserError:
            pass
    if run.objective.teacher is not None and not run.objective.teacher.narrow:
        yield "--teacher-dtype bfloat16", needed.teacher // 2


def optimizer_moments(config: OptimConfig) -> float:
    """Values that the optimizer keeps for each parameter (AdamW: 2, SGD: 0 or 1), counted after a step on a layer.

    Raises:
        UserError: the optimizer is unknown, or its step fails.
    """
    width = 64
    probe = Objective(nn.Linear(width, width, bias=False), {"ce": 1.0})
    optimizer = build_optimizer(config, probe)
    probe(torch.ones(2, width), torch.zeros(2, dtype=torch.long))["loss"].backward()
    try:
        optimizer.step()
    except (TypeError, RuntimeError) as error:
        raise UserError(f"--opt {config.opt}: its first step fails ({first_line(error)})") from error
    states = [value for state in optimizer.state.values() for value in state.values()]
    # Step counters are scalars.
    return sum(value.numel() for value in states if isinstance(value, Tensor) and value.dim()) / width**2
