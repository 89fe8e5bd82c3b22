"""The operators by name: how blocks are added, how units are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isometry.functional.growth import (
    Placed,
    Stretch,
    appended,
    inserted,
    interpolated,
    repeats,
    stacked,
    tiled,
    uneven_shares,
)


@dataclass(frozen=True)
class DepthOperator:
    """Adds blocks: ``order(depth, larger)`` says where each block of the larger network comes from.

    ``preserves``: the grown network computes the same function, because new blocks start as the identity.
    """

    name: str
    preserves: bool
    order: Callable[[int, int], list[Placed]]


@dataclass(frozen=True)
class WidthOperator:
    """Adds units: ``stretch`` gives an axis more of them, and weights on an axis that is read (a layer's input)
    are multiplied by ``shares``, so that what is summed over it keeps its size.

    ``even`` are the shares on average: by them, a gradient with respect to a layer's output shrinks, too.
    """

    name: str
    preserves: bool
    stretch: Stretch
    even: Callable[[int, int, int], Tensor]
    """(old, size, groups) -> (size,)."""
    shares: Callable[[Tensor, int, int, int, torch.Generator], Tensor]
    """(stretched weight, dim, old, groups, generator) -> factors that broadcast with it."""


def _even_copies(old: int, size: int, groups: int) -> Tensor:
    return 1 / repeats(old, size, groups)


def _uneven(weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
    return uneven_shares(weight.shape[dim], old, weight, dim, groups, generator)


def _even_spread(old: int, size: int, groups: int) -> Tensor:
    return torch.full((size,), old / size, dtype=torch.float64)


def _same(weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
    return weight.new_tensor(old / weight.shape[dim])


DEPTH_OPERATORS = {
    operator.name: operator
    for operator in (
        DepthOperator("insert", False, inserted),
        DepthOperator("stack", False, stacked),
        DepthOperator("identity", True, appended),
    )
}

WIDTH_OPERATORS = {
    operator.name: operator
    for operator in (
        WidthOperator("duplicate", True, tiled, _even_copies, _uneven),
        WidthOperator("interpolate", False, interpolated, _even_spread, _same),
    )
}
