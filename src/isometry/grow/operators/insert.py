"""Depth: copies of the last blocks, each after its block (Ding et al., CVPR 2023)."""

from isometry.functional.growth import Placed, inserted
from isometry.grow.operators.base import DepthOperator


class Insert(DepthOperator):
    """The last k blocks are each followed by a copy of their moving average: 4→6 is 1 2 3 3' 4 4'."""

    def order(self, depth: int, larger: int) -> list[Placed]:
        return inserted(depth, larger)
