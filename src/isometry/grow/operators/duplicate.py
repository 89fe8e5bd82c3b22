"""Width: copies of units (Chen et al., "Net2Net", arXiv:1511.05641)."""

import torch
from torch import Tensor

from isometry.functional.growth import repeats, tiled, uneven_shares
from isometry.grow.operators.base import WidthOperator


class Duplicate(WidthOperator):
    """Units are copied; copies divide their outgoing weights among them in unequal parts, and so learn apart."""

    preserves = True

    def stretch(self, x: Tensor, dim: int, size: int, groups: int) -> Tensor:
        return tiled(x, dim, size, groups)

    def mean_shares(self, old: int, size: int, groups: int) -> Tensor:
        return 1 / repeats(old, size, groups)

    def shares(self, weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
        return uneven_shares(weight.shape[dim], old, weight, dim, groups, generator)
