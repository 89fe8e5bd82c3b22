"""Cosines of all pairs of N vectors, a block of rows at a time, so that no N×N matrix is in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_BYTES = 2**25
"""Of one block of cosines: it is read several times, and large matrix products are quick from about 100 rows on."""


def cosine_blocks(features_ND: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of consecutive rows of the N×N matrix of cosines: (row numbers (B,), cosines (B, N)), float32.

    A row's own column is -2, below any cosine, so that nothing is its own neighbour. A vector of zeros has the cosine 0
    with all others. The matrix of a block is overwritten by the next one.
    """
    unit_ND = F.normalize(features_ND.float(), dim=1)
    count = len(unit_ND)
    rows = max(1, min(count, BLOCK_BYTES // (4 * count)))
    room_BN = torch.empty(rows, count, device=unit_ND.device)
    for numbers_B in torch.arange(count, device=unit_ND.device).split(rows):
        cosines_BN = torch.mm(unit_ND[numbers_B], unit_ND.T, out=room_BN[: len(numbers_B)])
        cosines_BN.scatter_(1, numbers_B[:, None], -2.0)
        yield numbers_B, cosines_BN


def nearest(features_ND: Tensor, count: int) -> Tensor:
    """The numbers of each vector's nearest others by cosine, int64 (N, count) in no particular order.

    Of equally near ones at the edge, those with the lowest numbers.
    """
    return torch.cat([_largest(cosines_BN, count) for _, cosines_BN in cosine_blocks(features_ND)])


def _largest(values_BN: Tensor, count: int) -> Tensor:
    found = values_BN.topk(count, dim=1, sorted=False)
    edge_B = found.values.amin(1, keepdim=True)
    tied_B = (values_BN >= edge_B).sum(1) > count
    if tied_B.any():
        # topk promises no order among equal values.
        found.indices[tied_B] = values_BN[tied_B].argsort(dim=1, descending=True, stable=True)[:, :count]
    return found.indices
