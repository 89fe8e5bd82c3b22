"""An optimizer's state by the names of the parameters, and how it scales."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.grow.transfer import Degree, Degrees
from isometry.objective import Objective
from isometry.training.optim import build_optimizer

State = dict[str, Any]

STEPS = 120
SMALL, LARGE = (5, 4), (150, 140)


def state_by_name(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, State]:
    """The state of each of the module's parameters that has one."""
    state = optimizer.state_dict()["state"]
    return {name: state[place] for name, place in _places(optimizer, module).items() if place in state}


def take_over_state(
    optimizer: torch.optim.Optimizer,
    moments: Iterable[tuple[nn.Module, Mapping[str, State]]],
    former: torch.optim.Optimizer,
) -> None:
    """Gives a new optimizer the state of modules' parameters, and what the former one keeps for all (its steps).

    A parameter without state gets one with its first step.
    """
    whole, earlier = optimizer.state_dict(), former.state_dict()
    whole |= {key: value for key, value in earlier.items() if key not in ("state", "param_groups")}
    # Some begin with a state of their own, which what is new keeps.
    whole["state"] |= {
        places[name]: state
        for module, states in moments
        for places in [_places(optimizer, module)]
        for name, state in states.items()
    }
    if isinstance(optimizer, torch.optim.SGD) and any(
        "momentum_buffer" in state for state in whole["state"].values()
    ):
        # Its fused form takes momentum for all parameters or for none; 0 is what its first step begins with.
        for place, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            whole["state"].setdefault(place, {"momentum_buffer": torch.zeros_like(parameter)})
    for group, before in zip(whole["param_groups"], earlier["param_groups"], strict=True):
        group |= {key: value for key, value in before.items() if key not in group}
    optimizer.load_state_dict(whole)


def state_degrees(config: RunConfig) -> Degrees:
    """How the optimizer's tensors scale with gradients and with weights, seen on a small layer after some steps.

    Names would not tell: ``exp_avg`` averages gradients in one optimizer and normalised gradients in another.
    Nothing is said of an optimizer that keeps other things of large matrices than of small ones (Adafactor).
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
    config: RunConfig,
    shape: tuple[int, int],
    gradients: float = 1.0,
    weights: float = 1.0,
    steps: int = STEPS,
) -> dict[frozenset[str], dict[str, float]]:
    """The sizes of what an optimizer keeps of a layer's weight and of its bias."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(*shape)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(weights * torch.randn(parameter.shape, generator=generator))
    optimizer = build_optimizer(config, Objective(layer, {"ce": 1.0}))
    # Many: averages that begin with 1 must have forgotten it.
    for _ in range(steps):
        for parameter in layer.parameters():
            # Small ones: some optimizers clip.
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
    """Where ``state_dict`` has each parameter."""
    order = {
        id(parameter): place
        for place, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
    }
    return {name: order[id(p)] for name, p in module.named_parameters() if id(p) in order}
