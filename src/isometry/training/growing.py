"""Growth in the loop: a new network and a new optimizer that carry on from the old ones."""

import torch

from isometry.assemble import Run, enter_stage
from isometry.distributed import World
from isometry.grow.schedule import Stage
from isometry.grow.transfer import Baggage, Tensors
from isometry.student import surgeries
from isometry.training.moments import state_by_name, state_degrees, take_over_state
from isometry.training.optim import at_stage, build_optimizer


def build_stage_optimizer(run: Run, world: World) -> torch.optim.Optimizer:
    """The optimizer of the run's present stage; moves what it trains to the world's device."""
    run.objective.to(world.device)
    return build_optimizer(at_stage(run.config, run.schedule, run.stage), run.objective)


def grow(
    run: Run, stage: Stage, optimizer: torch.optim.Optimizer, world: World
) -> tuple[Run, torch.optim.Optimizer, Tensors | None]:
    """The run at its next stage, with an optimizer for it, and the moving average grown alike, if there is one.

    Args:
        run: as it was trained.
        stage: the next one.
        optimizer: with the moments of what was trained.
        world: where to put the new network.
    """
    surgery = surgeries(run.config, run.schedule)[stage.number - 1]
    old, new = run.objective, enter_stage(run, stage)
    carries = run.config.grow.optimizer == "carry"
    degrees = state_degrees(run.config) if carries else {}
    student = surgery.carry(
        Baggage(
            old.student.state_dict(),
            old.trainable_module_ema.module.state_dict() if old.has_ema() else None,
            state_by_name(optimizer, old.student) if carries else {},
            degrees,
        ),
        new.student,
    )
    losses = surgery.carry_terms(
        Baggage(
            old.losses.state_dict(), None, state_by_name(optimizer, old.losses) if carries else {}, degrees
        ),
        new.objective.losses,
        _places(run, new),
    )
    new.student.load_state_dict(student.weights)
    new.objective.losses.load_state_dict(losses.weights)
    grown = build_stage_optimizer(new, world)
    if carries:
        moments = [(new.student, student.moments), (new.objective.losses, losses.moments)]
        take_over_state(grown, moments, optimizer)
    return new, grown, student.average


def _places(run: Run, new: Run) -> dict[int, int]:
    """Where each pair of blocks is now, known by its teacher's block, which stays."""
    now = {pair.teacher.block: place for place, pair in enumerate(new.objective.pairs)}
    # Losses without blocks have one place, the first.
    before = [pair.teacher.block for pair in run.objective.pairs]
    return {place: now[block] for place, block in enumerate(before) if block in now} or {0: 0}
