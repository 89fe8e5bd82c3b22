"""One growth: from the network of one stage to that of the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from isometry.config import GrowConfig
from isometry.errors import UserError
from isometry.grow.architectures import Architecture, Size
from isometry.grow.operators import DepthOperator, Placed, WidthOperator, find_operators
from isometry.grow.weight_transfer import TrainingState, deepen, widen

Build = Callable[[Size], nn.Module]
"""Builds a network of a size."""


@dataclass(frozen=True)
class Surgery:
    """The growth between two stages. An operator is None where its dimension stays.

    ``build`` gives a new network of any size of the architecture.
    """

    architecture: Architecture
    depth_operator: DepthOperator | None
    width_operator: WidthOperator | None
    before: Size
    after: Size
    seed: int
    build: Build

    @property
    def between(self) -> Size:
        """The size after the depth has grown, and before the width has."""
        return Size(self.after.depth, self.before.width)

    @property
    def label(self) -> str:
        """The operators: ``insert + duplicate``."""
        return " + ".join(operator.name for operator in self._operators)

    @property
    def preserves(self) -> bool:
        """Whether the grown network computes the same function."""
        return all(operator.preserves for operator in self._operators)

    @property
    def copies_average(self) -> bool:
        """Whether blocks are copied from the moving average of the weights."""
        return any(placed.averaged for order in self._orders() for placed in order)

    @property
    def _operators(self) -> list[DepthOperator | WidthOperator]:
        return [operator for operator in (self.depth_operator, self.width_operator) if operator is not None]

    def orders(self, large: nn.Module) -> dict[str, list[Placed]]:
        """Where each block of the deeper network ``large`` comes from, by the name of the module that holds the blocks.

        Raises:
            UserError: the operator can't add that many blocks.
        """
        if self.depth_operator is None:
            return {}
        return dict(zip(self.architecture.blocks(large), self._orders(), strict=True))

    def _orders(self) -> list[list[Placed]]:
        if self.depth_operator is None:
            return []
        return list(map(partial(_order, self.depth_operator), self.before.depth, self.after.depth))

    def transfer(self, state: TrainingState, large: nn.Module) -> TrainingState:
        """The state for ``large``, a new network of the size after: grown in depth first, then in width.

        Args:
            state: of the network of the size before.
            large: gives initial values to new parameters; it is not changed.

        Raises:
            UserError: a block can't be where the depth operator puts it.
        """
        if self.depth_operator is not None:
            deep = large if self.width_operator is None else self.build(self.between)
            state = deepen(self.depth_operator, self.architecture, self.orders(deep), deep, state)
        return state if self.width_operator is None else widen(self.width_operator, large, state, self.seed)

    def transfer_losses(
        self, state: TrainingState, large: nn.Module, places: Mapping[int, int]
    ) -> TrainingState:
        """The same for the losses' own parameters, one set for each pair of blocks: ``TERM.PAIR.NAME``.

        Args:
            state: of the losses before.
            large: the losses after.
            places: new place of each pair of before; pairs that are gone are left out.
        """

        def moved(name: str) -> str | None:
            term, pair, rest = name.split(".", 2)
            return f"{term}.{places[int(pair)]}.{rest}" if int(pair) in places else None

        weights = {new: value for name, value in state.weights.items() if (new := moved(name))}
        optimizer = {new: value for name, value in state.optimizer.items() if (new := moved(name))}
        kept = replace(state, weights=weights, optimizer=optimizer)
        if self.width_operator is not None:
            return widen(self.width_operator, large, kept, self.seed)
        return replace(kept, weights=large.state_dict() | weights)


def plan_surgery(
    grow: GrowConfig, architecture: Architecture, before: Size, after: Size, seed: int, build: Build
) -> Surgery:
    """The growth from one size to another, by the operators that the options name.

    Raises:
        UserError: there is no such operator.
    """
    depth, width = find_operators(grow)
    deeper = depth if before.depth != after.depth else None
    wider = width if before.width != after.width else None
    return Surgery(architecture, deeper, wider, before, after, seed, build)


def _order(operator: DepthOperator, old: int, new: int) -> list[Placed]:
    try:
        return operator.order(old, new)
    except ValueError as error:
        raise UserError(
            f"--grow.depth: {operator.name} from {old} to {new}: {error}; grow in smaller steps, "
            "or use --grow.depth-operator identity"
        ) from error
