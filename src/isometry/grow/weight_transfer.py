"""Weights, their moving average and the optimizer's state, carried over to a larger network."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.functional.growth import along
from isometry.grow.architectures import Architecture
from isometry.grow.operators import DepthOperator, Placed, WidthOperator
from isometry.seeding import derive_seed

Tensors = dict[str, Tensor]


class Degree(NamedTuple):
    """The powers of the gradients and of the weights that a tensor in an optimizer's state scales with."""

    of_gradients: int = 1
    of_weights: int = 0


Degrees = Mapping[frozenset[str], Mapping[str, Degree]]
"""Degrees of the tensors in a parameter's state, by the set of their names: an optimizer such as Muon keeps other
tensors for matrices than for vectors, and the same name may mean another quantity there."""


@dataclass(frozen=True)
class TrainingState:
    """All tensors that are carried over, by the names of parameters and buffers.

    ``average`` is the moving average of ``weights``, if there is one; ``optimizer`` the optimizer's state of each
    parameter that has one; ``degrees`` how its tensors scale, as far as it is known.
    """

    weights: Tensors
    average: Tensors | None = None
    optimizer: dict[str, dict[str, Any]] = field(default_factory=dict)
    degrees: Degrees = field(default_factory=dict)


def deepen(
    operator: DepthOperator,
    architecture: Architecture,
    orders: dict[str, list[Placed]],
    large: nn.Module,
    state: TrainingState,
) -> TrainingState:
    """The state of a deeper network.

    Copies take the optimizer's state of their source. New blocks are initialised as in ``large``, except that their
    branches end in zeros, and have no optimizer state.

    Args:
        operator, architecture: of the growth.
        orders: where each block comes from, by the name of the module that holds the blocks.
        large: a new network of the larger size.
        state: of the smaller network.

    Raises:
        UserError: a block can't be where the operator puts it.
    """
    _check_fit(operator, orders, large.state_dict(), state.weights)
    zeros = {
        f"{holder}.{position}.{parameter}"
        for holder, order in orders.items()
        for position, placed in enumerate(order)
        if placed.source is None
        for parameter in architecture.identity_parameters(large.get_submodule(f"{holder}.{position}"))
    }
    averages = state.weights if state.average is None else state.average
    weights: Tensors = {}
    average: Tensors = {}
    optimizer: dict[str, dict[str, Any]] = {}
    for name, initial in large.state_dict().items():
        placed, source = _origin(name, orders)
        if source is None:
            weights[name] = torch.zeros_like(initial) if name in zeros else initial.clone()
            average[name] = weights[name].clone()
            continue
        weights[name] = (averages if placed.averaged else state.weights)[source].clone()
        average[name] = averages[source].clone()
        if source in state.optimizer:
            optimizer[name] = deepcopy(state.optimizer[source])
    moving = None if state.average is None else average
    return replace(state, weights=weights, average=moving, optimizer=optimizer)


def widen(operator: WidthOperator, large: nn.Module, state: TrainingState, seed: int) -> TrainingState:
    """The state of a wider network.

    A weight w(out, in) becomes w stretched along both, times the operator's shares along ``in``. Its gradient
    is then the old one stretched along both, times the mean shares along ``out``; a tensor of degree d in the
    gradients is multiplied by their d-th power. A parameter that changes loses its optimizer state if a tensor in it
    has another shape than the parameter, or depends on weights: an optimizer that computes weights from old ones and
    sums of gradients (MADGRAD) would undo the shares.

    Args:
        operator: how axes are stretched and shared.
        large: a new network of the larger size; tensors that ``state`` lacks are initialised as there.
        state: of the smaller network.
        seed: of uneven shares; each tensor draws from (seed, its name).
    """
    axes = _grown_axes(large, state.weights)

    def weight(name: str, old: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        new = _stretch(operator, old, axes[name])
        for axis in axes[name]:
            if axis.read:
                new = new * operator.shares(new, axis.dim, old.shape[axis.dim], axis.groups, generator)
        return new

    def moment(name: str, old: Tensor, degree: Degree) -> Tensor:
        new = _stretch(operator, old, axes[name])
        for axis in axes[name]:
            if not axis.read:
                shares = operator.mean_shares(old.shape[axis.dim], axis.size, axis.groups)
                new = new * along(shares**degree.of_gradients, new, axis.dim)
        return new

    def moments(name: str, old: dict[str, Any]) -> dict[str, Any]:
        shape, degrees = state.weights[name].shape, state.degrees[frozenset(old)]
        return {
            key: moment(name, value, degrees[key])
            if isinstance(value, Tensor) and value.shape == shape
            else value
            for key, value in deepcopy(old).items()
        }

    def all_weights(old: Tensors) -> Tensors:
        return {
            name: weight(name, old[name]) if name in old else initial.clone()
            for name, initial in large.state_dict().items()
        }

    return replace(
        state,
        weights=all_weights(state.weights),
        average=None if state.average is None else all_weights(state.average),
        optimizer={
            name: moments(name, old) if axes[name] else deepcopy(old)
            for name, old in state.optimizer.items()
            if not axes[name] or _can_stretch(old, state.weights[name].shape, state.degrees)
        },
    )


class Axis(NamedTuple):
    """An axis that grows: its new size, the number of equal parts, and whether its layer reads or writes it."""

    dim: int
    size: int
    groups: int
    read: bool


def _grown_axes(large: nn.Module, small: Tensors) -> dict[str, list[Axis]]:
    """The axes whose sizes differ, by tensor. A layer's input is dimension 1 of its weight."""
    fused = {id(module.qkv) for module in large.modules() if hasattr(module, "qkv")}
    axes = {}
    for path, module in large.named_modules():
        layer = isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            name = f"{path}.{own}" if path else own
            if name in small:
                axes[name] = [
                    Axis(
                        dim,
                        size,
                        # Queries, keys and values are concatenated in one layer's output.
                        groups=3 if id(module) in fused and dim == 0 else 1,
                        read=layer and own == "weight" and dim == 1,
                    )
                    for dim, (size, old) in enumerate(zip(tensor.shape, small[name].shape, strict=True))
                    if size != old
                ]
    return axes


def _stretch(operator: WidthOperator, old: Tensor, axes: list[Axis]) -> Tensor:
    new = old.clone()
    for axis in axes:
        new = operator.stretch(new, axis.dim, axis.size, axis.groups)
    return new


def _origin(name: str, orders: dict[str, list[Placed]]) -> tuple[Placed, str | None]:
    """Where a tensor of the larger network comes from: its block's place, and its name in the smaller one."""
    for holder, order in orders.items():
        if name.startswith(f"{holder}."):
            position, _, rest = name.removeprefix(f"{holder}.").partition(".")
            placed = order[int(position)]
            return placed, None if placed.source is None else f"{holder}.{placed.source}.{rest}"
    return Placed(0), name


def _check_fit(
    operator: DepthOperator, orders: dict[str, list[Placed]], large: Tensors, small: Tensors
) -> None:
    """A copy must have all tensors of its source, and no others."""
    for holder, order in orders.items():
        for position, placed in enumerate(order):
            source, copy = f"{holder}.{placed.source}", f"{holder}.{position}"
            if placed.source is not None and _shapes(small, source) != _shapes(large, copy):
                raise UserError(
                    f"--grow.depth-operator {operator.name}: {source} is unlike the blocks after it and can't be "
                    f"copied to {copy}; use identity"
                )


def _shapes(tensors: Tensors, block: str) -> dict[str, torch.Size]:
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{block}.")}
    return {name.removeprefix(block): tensor.shape for name, tensor in own.items()}


def _can_stretch(state: dict[str, Any], shape: torch.Size, degrees: Degrees) -> bool:
    """Whether the degrees of a parameter's state are known, all values have its shape or are numbers, and none depends
    on weights."""
    known = degrees.get(frozenset(state))
    if known is None or any(degree.of_weights for degree in known.values()):
        return False
    return all(
        value.shape == shape or value.numel() == 1
        if isinstance(value, Tensor)
        else isinstance(value, int | float)
        for value in state.values()
    )
