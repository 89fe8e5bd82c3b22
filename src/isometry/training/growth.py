"""Growth in the loop: a larger network and its optimizer, with the state of the old ones."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isometry.config import OptimConfig
from isometry.distributed import World
from isometry.grow.schedule import Stage
from isometry.grow.weight_transfer import Degree, Degrees, Tensors, TrainingState
from isometry.training.assemble import Run, enter_stage
from isometry.training.checkpoint.run_state import LoopState
from isometry.training.objective import Objective
from isometry.training.optim import at_stage, build_optimizer


def build_stage_optimizer(run: Run, world: World) -> torch.optim.Optimizer:
    """The optimizer of the run's present stage; moves the objective to the world's device."""
    run.objective.to(world.device)
    return build_optimizer(at_stage(run.config, run.config.grow, run.schedule, run.stage), run.objective)


def grow(
    run: Run, stage: Stage, optimizer: torch.optim.Optimizer, world: World
) -> tuple[Run, torch.optim.Optimizer, Tensors | None]:
    """The run at its next stage, its optimizer, and the grown moving average, if there is one.

    ``run`` and ``optimizer`` are those of the present stage.
    """
    surgery = run.plan.surgeries()[stage.number - 1]
    old, new = run.objective, enter_stage(run, stage)
    carries = run.config.grow.optimizer == "carry"
    degrees = state_degrees(run.config) if carries else {}

    def state(module: nn.Module, average: Tensors | None) -> TrainingState:
        moments = state_by_name(optimizer, module) if carries else {}
        return TrainingState(module.state_dict(), average, moments, degrees)

    average = old.trainable_module_ema.module.state_dict() if old.has_ema() else None
    student = surgery.transfer(state(old.student, average), new.student)
    places = _block_places(run, new)
    losses = surgery.transfer_losses(state(old.losses, None), new.objective.losses, places)
    new.student.load_state_dict(student.weights)
    new.objective.losses.load_state_dict(losses.weights)
    grown = build_stage_optimizer(new, world)
    if carries:
        moments = [(new.student, student.optimizer), (new.objective.losses, losses.optimizer)]
        take_over_state(grown, moments, optimizer)
    return new, grown, student.average


def _block_places(run: Run, new: Run) -> dict[int, int]:
    """New place of each pair of blocks, which keeps its teacher block."""
    now = {pair.teacher.block: place for place, pair in enumerate(new.objective.pairs)}
    # Losses without blocks have one place.
    before = [pair.teacher.block for pair in run.objective.pairs]
    return {place: now[block] for place, block in enumerate(before) if block in now} or {0: 0}


State = dict[str, Any]

STEPS = 120
SMALL, LARGE = (5, 4), (150, 140)
"""Steps and sizes of the layers that :func:`state_degrees` measures."""


def state_by_name(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, State]:
    """The optimizer's state of the module's parameters, by name."""
    state = optimizer.state_dict()["state"]
    return {name: state[place] for name, place in _places(optimizer, module).items() if place in state}


def take_over_state(
    optimizer: torch.optim.Optimizer,
    moments: Iterable[tuple[nn.Module, Mapping[str, State]]],
    former: torch.optim.Optimizer,
) -> None:
    """Gives a new optimizer the state of modules' parameters, and the former one's global state (its steps).

    The first step adds the state of other parameters.
    """
    whole, earlier = optimizer.state_dict(), former.state_dict()
    whole |= {key: value for key, value in earlier.items() if key not in ("state", "param_groups")}
    # Some optimizers have state before their first step, which new parameters keep.
    whole["state"] |= {
        places[name]: state
        for module, states in moments
        for places in [_places(optimizer, module)]
        for name, state in states.items()
    }
    if isinstance(optimizer, torch.optim.SGD) and any(
        "momentum_buffer" in state for state in whole["state"].values()
    ):
        # Its fused form needs momentum for all parameters or for none; its first step starts from 0.
        for place, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            whole["state"].setdefault(place, {"momentum_buffer": torch.zeros_like(parameter)})
    for group, before in zip(whole["param_groups"], earlier["param_groups"], strict=True):
        group |= {key: value for key, value in before.items() if key not in group}
    optimizer.load_state_dict(whole)


def state_degrees(config: OptimConfig) -> Degrees:
    """How the optimizer's tensors scale with gradients and weights, measured on a small layer after some steps.

    Names don't determine it: ``exp_avg`` averages gradients in one optimizer and normalised gradients in another.
    Empty for an optimizer that keeps other tensors for large matrices than for small ones (Adafactor).
    """
    plain = replace(config, weight_decay=0.0, lr=1e-9)
    if list(_sizes(plain, LARGE, steps=1)) != list(_sizes(plain, SMALL, steps=1)):
        return {}
    once, twice, heavy = (_sizes(plain, SMALL, *scales) for scales in ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0)))
    return {
        kept: {
            name: Degree(_exponent(twice[kept][name], size), _exponent(heavy[kept][name], size))
            for name, size in sizes.items()
        }
        for kept, sizes in once.items()
    }


def _sizes(
    config: OptimConfig,
    shape: tuple[int, int],
    gradients: float = 1.0,
    weights: float = 1.0,
    steps: int = STEPS,
) -> dict[frozenset[str], dict[str, float]]:
    """The sums of absolute values in an optimizer's state of a layer's weight and bias."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(*shape)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(weights * torch.randn(parameter.shape, generator=generator))
    optimizer = build_optimizer(config, Objective(layer, {"ce": 1.0}))
    # Many, so that averages that start with 1 have decayed.
    for _ in range(steps):
        for parameter in layer.parameters():
            # Small, because some optimizers clip.
            parameter.grad = 0.05 * gradients * torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return {
        frozenset(state): {
            name: float(value.double().abs().sum())
            for name, value in state.items()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        }
        for name, parameter in layer.named_parameters()
        for state in [state_by_name(optimizer, layer).get(name, {})]
    }


def _exponent(doubled: float, size: float) -> int:
    return round(math.log2(doubled / size)) if size and doubled else 0


def _places(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, int]:
    """The index of each parameter in ``state_dict``."""
    order = {
        id(parameter): place
        for place, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
    }
    return {name: order[id(p)] for name, p in module.named_parameters() if id(p) in order}


def stage_rows(run: Run, state: LoopState) -> list[dict[str, Any]]:
    """A row for each stage of growth; ``full_seconds`` from the time of an epoch at full size."""
    begun = [0.0, *(growth["seconds"] for growth in state.growths)]
    ended = [*begun[1:], state.seconds]
    full_epoch = (ended[-1] - begun[-1]) / run.schedule.stages[-1].epochs
    networks = run.plan.costs(run.spec.input_size)
    score, key = ("top-1", "val/top1") if run.sources.labelled else ("loss", "val/loss")
    growths: list[dict[str, Any]] = [{"before": {}, "after": {}}, *state.growths]
    return [
        {
            "stage": stage.number + 1,
            **network,
            "first_epoch": stage.first_epoch,
            "epochs": stage.epochs,
            "seconds": end - begin,
            "full_seconds": full_epoch * stage.epochs,
            "before": growth["before"].get(key),
            "after": growth["after"].get(key),
            "score": score,
        }
        for stage, network, begin, end, growth in zip(
            run.schedule.stages, networks, begun, ended, growths, strict=True
        )
    ]
