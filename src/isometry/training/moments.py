"""An optimizer's state by the names of the parameters, and how it scales."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.grow.transfer import Degree
from isometry.objective import Objective
from isometry.training.optim import build_optimizer

State = dict[str, Any]


def state_by_name(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, State]:
    """The state of each of the module's parameters that has one."""
    state = optimizer.state_dict()["state"]
    return {name: state[place] for name, place in _places(optimizer, module).items() if place in state}


def take_over_state(
    optimizer: torch.optim.Optimizer,
    moments: Iterable[tuple[nn.Module, Mapping[str, State]]],
    former: torch.optim.Optimizer,
) -> None:
    """Gives a new optimizer the state of modules' parameters, and what the former one counts for all (its steps)."""
    whole = optimizer.state_dict()
    whole["state"] = {
        places[name]: state
        for module, states in moments
        for places in [_places(optimizer, module)]
        for name, state in states.items()
    }
    for group, before in zip(whole["param_groups"], former.state_dict()["param_groups"], strict=True):
        group |= {key: value for key, value in before.items() if key not in group}
    optimizer.load_state_dict(whole)


def state_degrees(config: RunConfig) -> dict[str, Degree]:
    """How the optimizer's tensors scale with gradients and with weights, seen on a small layer after three steps.

    Names would not tell: ``exp_avg`` averages gradients in one optimizer and normalised gradients in another.
    """
    plain = replace(config, weight_decay=0.0, lr=1e-9)
    once, twice, heavy = (_sizes(plain, *scales) for scales in ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0)))
    return {
        name: Degree(_exponent(twice[name], size), _exponent(heavy[name], size))
        for name, size in once.items()
    }


def _sizes(config: RunConfig, gradients: float, weights: float) -> dict[str, float]:
    """The sizes of what an optimizer keeps of a layer's weight."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights * torch.randn(4, 5, generator=generator))
    optimizer = build_optimizer(config, Objective(layer, {"ce": 1.0}))
    for _ in range(3):
        # Small ones: some optimizers clip.
        layer.weight.grad = 0.01 * gradients * torch.randn(4, 5, generator=generator)
        optimizer.step()
    (state,) = optimizer.state_dict()["state"].values() or ({},)
    return {
        name: float(value.double().abs().sum())
        for name, value in state.items()
        if isinstance(value, Tensor) and value.shape == layer.weight.shape
    }


def _exponent(doubled: float, size: float) -> int:
    return round(math.log2(doubled / size)) if size and doubled else 0


def _places(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, int]:
    """Where ``state_dict`` has each parameter."""
    order = {
        id(parameter): place
        for place, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
    }
    return {name: order[id(p)] for name, p in module.named_parameters() if id(p) in order}
