"""Width: new units between the old ones."""

import torch
from torch import Tensor

from isometry.functional.growth import interpolated
from isometry.grow.operators.base import WidthOperator


class Interpolate(WidthOperator):
    """Units are interpolated linearly between the old ones, and outgoing weights are scaled by old over new width."""

    def stretch(self, x: Tensor, dim: int, size: int, groups: int) -> Tensor:
        return interpolated(x, dim, size, groups)

    def mean_shares(self, old: int, size: int, groups: int) -> Tensor:
        return torch.full((size,), old / size, dtype=torch.float64)

    def shares(self, weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
        return weight.new_tensor(old / weight.shape[dim])
