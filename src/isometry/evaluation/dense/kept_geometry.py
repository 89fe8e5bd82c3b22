"""Kept geometry: the share of the nearest neighbours that two networks agree on."""

import torch
from torch import Tensor

from isometry.evaluation.dense.neighbours import nearest

NEIGHBOURS = 10


def neighbours_compared(others: int, wanted: int = NEIGHBOURS) -> int:
    """k: ``wanted``, or half of the others where they are fewer than twice as many, since with all of them any two
    networks agree; at least 1."""
    return max(1, min(wanted, others // 2))


@torch.no_grad()
def agreement(student_ND: Tensor, teacher_NE: Tensor, count: int) -> Tensor:
    """The share of each vector's neighbours that both agree on, float64 (N,):  |N_k^S(i) ∩ N_k^T(i)| / k.

    N_k(i) are the k = ``count`` other vectors with the largest cosine to vector i (of equal ones, the first). By chance
    it is k / (N − 1).
    """
    return shared(nearest(student_ND, count), nearest(teacher_NE, count))


def shared(ours_NK: Tensor, theirs_NK: Tensor) -> Tensor:
    """The share of each row's K different numbers that are in the same row of both, float64 (N,)."""
    both_N = torch.zeros(len(ours_NK), dtype=torch.int64, device=ours_NK.device)
    for column_N in theirs_NK.T:
        both_N += (ours_NK == column_N[:, None]).any(1)
    return both_N.double() / ours_NK.shape[1]


def patch_agreement(student_BNC: Tensor, teacher_BND: Tensor, count: int) -> Tensor:
    """The mean over each image's patches of :func:`agreement` among the patches of the same image, float64 (B,)."""
    pairs = zip(student_BNC, teacher_BND, strict=True)
    return torch.stack([agreement(ours_NC, theirs_ND, count).mean() for ours_NC, theirs_ND in pairs])
