"""Depth: new blocks at the end, which compute the identity at first."""

from isometry.grow.operators.base import DepthOperator, Placed


class Identity(DepthOperator):
    """New blocks, which start as the identity, follow the last block: 4→6 is 1 2 3 4 new new."""

    preserves = True

    def order(self, depth: int, larger: int) -> list[Placed]:
        return [*map(Placed, range(depth)), *[Placed(None)] * (larger - depth)]
