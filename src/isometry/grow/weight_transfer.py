"""What a network takes with it when it grows: weights, their moving average, and the optimizer's state."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.functional.growth import Placed, along
from isometry.grow.architectures import silent_parameters
from isometry.grow.operators import DepthOperator, WidthOperator
from isometry.seeding import derive_seed

Tensors = dict[str, Tensor]


class Degree(NamedTuple):
    """How a tensor in an optimizer's state scales: with which power of the gradients, and of the weights."""

    of_gradients: int = 1
    of_weights: int = 0


Degrees = Mapping[frozenset[str], Mapping[str, Degree]]
"""Degrees by all the names in a parameter's state: an optimizer may keep one thing of matrices and another of
vectors (Muon), under names that mean one thing here and another there."""


@dataclass(frozen=True)
class Baggage:
    """All tensors that go along, by the names of parameters and buffers.

    Attributes:
        weights: parameters and buffers.
        average: their moving average, where there is one.
        moments: the optimizer's state of each parameter that has one.
        degrees: how the tensors in ``moments`` scale, where that is known.
    """

    weights: Tensors
    average: Tensors | None = None
    moments: dict[str, dict[str, Any]] = field(default_factory=dict)
    degrees: Degrees = field(default_factory=dict)


def deepen(
    operator: DepthOperator, orders: dict[str, list[Placed]], large: nn.Module, baggage: Baggage
) -> Baggage:
    """What a deeper network gets.

    Copies take the optimizer's state of their source along; new blocks are as ``large`` initialises them, but
    silent, and without optimizer state.

    Args:
        operator: its name is for errors.
        orders: where each block comes from, by the name of the module that holds the blocks.
        large: a new network of the larger size.
        baggage: of the smaller one.

    Raises:
        UserError: a block can't be where the operator wants it.
    """
    _check_fit(operator, orders, large.state_dict(), baggage.weights)
    silent = {
        f"{holder}.{position}.{parameter}"
        for holder, order in orders.items()
        for position, placed in enumerate(order)
        if placed.source is None
        for parameter in silent_parameters(large.get_submodule(f"{holder}.{position}"))
    }
    averages = baggage.weights if baggage.average is None else baggage.average
    weights: Tensors = {}
    average: Tensors = {}
    moments: dict[str, dict[str, Any]] = {}
    for name, fresh in large.state_dict().items():
        placed, source = _origin(name, orders)
        if source is None:
            weights[name] = torch.zeros_like(fresh) if name in silent else fresh.clone()
            average[name] = weights[name].clone()
            continue
        weights[name] = (averages if placed.averaged else baggage.weights)[source].clone()
        average[name] = averages[source].clone()
        if source in baggage.moments:
            moments[name] = deepcopy(baggage.moments[source])
    return replace(
        baggage, weights=weights, average=None if baggage.average is None else average, moments=moments
    )


def widen(operator: WidthOperator, large: nn.Module, baggage: Baggage, seed: int) -> Baggage:
    """What a wider network gets.

    A weight w(out, in) becomes w stretched along both, times the operator's shares along ``in``. Its gradient
    is then the old one stretched along both, times the even shares along ``out``; a tensor of degree d in the
    gradients is multiplied by their d-th power. Where a parameter changes, its optimizer state is left behind if
    some of it has another shape than the parameter, or is made of weights: an optimizer that computes weights
    from old ones and sums of gradients (MADGRAD) would undo the shares.

    Args:
        operator: how axes are stretched and shared.
        large: a new network of the larger size; what the baggage lacks stays as it is there.
        baggage: of the smaller one.
        seed: of the uneven shares; each tensor draws from (seed, its name).
    """
    axes = _grown_axes(large, baggage.weights)

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
                even = operator.even(old.shape[axis.dim], axis.size, axis.groups) ** degree.of_gradients
                new = new * along(even, new, axis.dim)
        return new

    def state(name: str, old: dict[str, Any]) -> dict[str, Any]:
        shape, degrees = baggage.weights[name].shape, baggage.degrees[frozenset(old)]
        return {
            key: moment(name, value, degrees[key]) if _has_shape(value, shape) else value
            for key, value in deepcopy(old).items()
        }

    def all_weights(old: Tensors) -> Tensors:
        return {
            name: weight(name, old[name]) if name in old else fresh.clone()
            for name, fresh in large.state_dict().items()
        }

    return replace(
        baggage,
        weights=all_weights(baggage.weights),
        average=None if baggage.average is None else all_weights(baggage.average),
        moments={
            name: state(name, old) if axes[name] else deepcopy(old)
            for name, old in baggage.moments.items()
            if not axes[name] or _can_stretch(old, baggage.weights[name].shape, baggage.degrees)
        },
    )


class Axis(NamedTuple):
    """An axis that grows: to which size, in how many equal parts, and whether its layer reads or writes it."""

    dim: int
    size: int
    groups: int
    read: bool


def _grown_axes(large: nn.Module, small: Tensors) -> dict[str, list[Axis]]:
    """By tensor: the axes whose sizes differ. A layer's input is dimension 1 of its weight."""
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
                        # Queries, keys and values lie one after the other in one layer's output.
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
    return {
        name.removeprefix(block): tensor.shape
        for name, tensor in tensors.items()
        if name.startswith(f"{block}.")
    }


def _has_shape(value: object, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def _can_stretch(state: dict[str, Any], shape: torch.Size, degrees: Degrees) -> bool:
    """Whether it is known how a parameter's state scales, all of it has the parameter's shape or is a number, and
    none is made of weights."""
    known = degrees.get(frozenset(state))
    return (
        known is not None
        and not any(degree.of_weights for degree in known.values())
        and all(
            value.shape == shape or value.numel() == 1
            if isinstance(value, Tensor)
            else isinstance(value, int | float)
            for value in state.values()
        )
    )
