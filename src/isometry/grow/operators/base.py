"""What a growth operator is, and how it is found by the name of its file."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from isometry.config import GrowConfig
from isometry.discovery import choose, discover


class Operator(ABC):
    """Adds blocks or units to a network. A subclass of one of the two kinds below sits alone in its file.

    Attributes:
        preserves: whether the grown network computes the same function. Every run checks that before it starts.
        option: that chooses among operators of the kind.
    """

    preserves: ClassVar[bool] = False
    option: ClassVar[str]

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]


class Placed(NamedTuple):
    """A block of the grown network: a copy of block ``source`` (None: a new block).

    ``averaged``: whether it is copied from the moving average of the weights.
    """

    source: int | None
    averaged: bool = False


class DepthOperator(Operator):
    """Adds blocks. New ones start as the identity."""

    option = "--grow.depth-operator"

    @abstractmethod
    def order(self, depth: int, larger: int) -> list[Placed]:
        """Where each of the ``larger`` network's blocks comes from.

        Raises:
            ValueError: ``larger - depth`` blocks can't be added.
        """


class WidthOperator(Operator):
    """Adds units to axes of tensors.

    Every axis that grows is stretched. Where a layer reads it (dimension 1 of its weight), the weight is also
    multiplied by shares, so that the sum over the units stays as large as it was. ``groups`` is the number of equal
    parts of an axis that are stretched separately, such as queries, keys and values in one layer.
    """

    option = "--grow.width-operator"

    @abstractmethod
    def stretch(self, x: Tensor, dim: int, size: int, groups: int) -> Tensor:
        """``x`` with ``size`` units along ``dim``."""

    @abstractmethod
    def mean_shares(self, old: int, size: int, groups: int) -> Tensor:
        """Mean share of each unit of an axis that grew from ``old`` to ``size``: (size,), float64.

        The gradient with respect to a layer's output shrinks by the same factor.
        """

    @abstractmethod
    def shares(self, weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
        """Factors that broadcast with ``weight``, which was stretched along ``dim`` from ``old`` units."""


def last_blocks(depth: int, larger: int) -> range:
    """The last ``larger - depth`` of ``depth`` blocks.

    Raises:
        ValueError: there are fewer blocks.
    """
    if larger > 2 * depth:
        raise ValueError(f"{larger - depth} blocks to add, but only {depth} to copy")
    return range(2 * depth - larger, depth)


Kind = TypeVar("Kind", bound=Operator)


def available(kind: type[Kind]) -> dict[str, Kind]:
    """Every operator of a kind by name."""
    return {name: found() for name, found in discover(Operator).items() if issubclass(found, kind)}


def find_operators(grow: GrowConfig) -> tuple[DepthOperator, WidthOperator]:
    """The operators that the options name, in ``operators/<name>.py``.

    Raises:
        UserError: there is no such file; near names are given.
    """
    return _find(DepthOperator, grow.depth_operator), _find(WidthOperator, grow.width_operator)


def _find(kind: type[Kind], name: str) -> Kind:
    return choose(available(kind), name, f"{kind.option} {name}", "operator")
