"""A recipe's losses by name, with their weights and options."""

import math
from dataclasses import dataclass
from typing import Any

from isometry.errors import UserError
from isometry.losses import find_loss

RESERVED = ("loss", "output", "saliencies", "cross_entropy")


@dataclass(frozen=True)
class Term:
    """A loss's name, weight and options, as a recipe gives them."""

    name: str
    weight: float
    options: dict[str, Any]


def parse_terms(losses: dict[str, float | dict[str, Any]]) -> list[Term]:
    """``{"whole": 4, "soft": {"weight": 1, "temperature": 2}}`` -> terms in order, those of weight 0 left out.

    Raises:
        UserError: an unknown loss, or a weight that is no finite number of at least 0.
    """
    terms = []
    for name, given in losses.items():
        options = dict(given) if isinstance(given, dict) else {"weight": given}
        weight = options.pop("weight", 1.0)
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not math.isfinite(weight)
            or weight < 0
        ):
            raise UserError(f"losses.{name}: the weight must be a number of at least 0, not {weight!r}")
        if name in RESERVED:
            raise UserError(f"losses.{name}: this name is taken by the result's own keys; rename the file")
        find_loss(name)
        if weight > 0:
            terms.append(Term(name, float(weight), options))
    return terms
