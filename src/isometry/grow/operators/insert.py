"""Depth: copies of the last blocks, each after its block (Ding et al., CVPR 2023)."""

from isometry.grow.operators.base import DepthOperator, Placed, last_blocks


class Insert(DepthOperator):
    """The last k blocks are each followed by a copy of their moving average: 4→6 is 1 2 3 3' 4 4'."""

    def order(self, depth: int, larger: int) -> list[Placed]:
        copied = last_blocks(depth, larger)
        order = []
        for block in range(depth):
            order.append(Placed(block))
            if block in copied:
                order.append(Placed(block, averaged=True))
        return order
