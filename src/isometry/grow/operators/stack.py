"""Depth: copies of the last blocks, after all others (Ding et al., CVPR 2023)."""

from isometry.functional.growth import Placed, stacked
from isometry.grow.operators.base import DepthOperator


class Stack(DepthOperator):
    """Copies of the moving average of the last k blocks follow the last block: 4→6 is 1 2 3 4 3' 4'."""

    def order(self, depth: int, larger: int) -> list[Placed]:
        return stacked(depth, larger)
