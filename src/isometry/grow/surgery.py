"""One growth: from one stage's network to the next one's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from isometry.config import GrowConfig
from isometry.errors import UserError
from isometry.functional.growth import Placed
from isometry.grow.architectures import Family, Size
from isometry.grow.operators import DEPTH_OPERATORS, WIDTH_OPERATORS, DepthOperator, WidthOperator
from isometry.grow.weight_transfer import Baggage, deepen, widen

Build = Callable[[Size], nn.Module]
"""Builds a network of a size."""


@dataclass(frozen=True)
class Surgery:
    """What is done between two stages; an operator is None where its dimension stays.

    ``build`` gives a new network of any size in the family.
    """

    family: Family
    deeper: DepthOperator | None
    wider: WidthOperator | None
    before: Size
    after: Size
    seed: int
    build: Build

    @property
    def between(self) -> Size:
        """Deeper and not yet wider."""
        return Size(self.after.depth, self.before.width)

    @property
    def words(self) -> str:
        """``insert + duplicate``."""
        return " + ".join(operator.name for operator in (self.deeper, self.wider) if operator is not None)

    @property
    def preserves(self) -> bool:
        """Whether the grown network computes the same function."""
        return all(operator.preserves for operator in (self.deeper, self.wider) if operator is not None)

    def orders(self, large: nn.Module) -> dict[str, list[Placed]]:
        """Where each block of the deeper network ``large`` comes from, by the name of what holds the blocks.

        Raises:
            UserError: the operator can't add that many blocks.
        """
        if self.deeper is None:
            return {}
        depths = zip(self.family.blocks(large), self.before.depth, self.after.depth, strict=True)
        return {holder: _order(self.deeper, old, new) for holder, old, new in depths}

    def carry(self, baggage: Baggage, large: nn.Module) -> Baggage:
        """What ``large``, a new network of the size after, gets: depth first, then width.

        Args:
            baggage: of the network of the size before.
            large: gives initial values to what is new, and is not changed.

        Raises:
            UserError: a block can't be where the depth operator wants it.
        """
        if self.deeper is not None:
            deep = large if self.wider is None else self.build(self.between)
            baggage = deepen(self.deeper, self.orders(deep), deep, baggage)
        return baggage if self.wider is None else widen(self.wider, large, baggage, self.seed)

    def carry_terms(self, baggage: Baggage, large: nn.Module, places: Mapping[int, int]) -> Baggage:
        """The same for the losses' own weights, which exist once a pair of blocks: ``TERM.PAIR.NAME``.

        Args:
            baggage: of the losses before.
            large: the losses after.
            places: where the pairs of before are now; those that are gone are left out.
        """

        def moved(name: str) -> str | None:
            term, pair, rest = name.split(".", 2)
            return f"{term}.{places[int(pair)]}.{rest}" if int(pair) in places else None

        weights = {new: value for name, value in baggage.weights.items() if (new := moved(name))}
        moments = {new: state for name, state in baggage.moments.items() if (new := moved(name))}
        kept = replace(baggage, weights=weights, moments=moments)
        if self.wider is not None:
            return widen(self.wider, large, kept, self.seed)
        return replace(kept, weights=large.state_dict() | weights)


def plan_surgery(
    grow: GrowConfig, family: Family, before: Size, after: Size, seed: int, build: Build
) -> Surgery:
    """The growth from one size to another, by the operators that the options name."""
    return Surgery(
        family,
        DEPTH_OPERATORS[grow.depth_operator] if before.depth != after.depth else None,
        WIDTH_OPERATORS[grow.width_operator] if before.width != after.width else None,
        before,
        after,
        seed,
        build,
    )


def _order(operator: DepthOperator, old: int, new: int) -> list[Placed]:
    try:
        return operator.order(old, new)
    except ValueError as error:
        raise UserError(
            f"--grow.depth: {operator.name} from {old} to {new}: {error}; grow in smaller steps, "
            "or use --grow.depth-operator identity"
        ) from error
