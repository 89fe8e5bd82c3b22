"""Depth: copies of the last blocks, after all others (Ding et al., CVPR 2023)."""

from isometry.grow.operators.base import DepthOperator, Placed, last_blocks


class Stack(DepthOperator):
    """Copies of the moving average of the last k blocks follow the last block: 4→6 is 1 2 3 4 3' 4'."""

    def order(self, depth: int, larger: int) -> list[Placed]:
        copies = (Placed(block, averaged=True) for block in last_blocks(depth, larger))
        return [*map(Placed, range(depth)), *copies]
