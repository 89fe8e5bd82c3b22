"""The manifold terms as the paper writes them: explicit maps and sums, float64 (arXiv:2107.01378v1, eq. 7 to 12)."""

import torch
from torch import Tensor


def explicit_map(tokens_NC: Tensor) -> Tensor:
    """Eq. 7, entry by entry."""
    tokens_NC = tokens_NC.double()
    n = len(tokens_NC)
    cosines = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            a, b = tokens_NC[i], tokens_NC[j]
            lengths = a.norm() * b.norm()
            cosines[i, j] = (a @ b) / lengths if lengths > 0 else 0.0
    return cosines


def gap(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    """‖M(s) − M(t)‖²_F."""
    return ((explicit_map(student_NC) - explicit_map(teacher_NC)) ** 2).sum()


def whole(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 8."""
    return gap(student_BNC.flatten(0, 1), teacher_BNC.flatten(0, 1))


def inter(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 10."""
    positions = student_BNC.shape[1]
    return sum(gap(student_BNC[:, j], teacher_BNC[:, j]) for j in range(positions)) / positions


def intra(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 11."""
    images = len(student_BNC)
    return sum(gap(student_BNC[b], teacher_BNC[b]) for b in range(images)) / images


def random(student_BNC: Tensor, teacher_BNC: Tensor, drawn: Tensor) -> Tensor:
    """Eq. 12, for given tokens."""
    return gap(student_BNC.flatten(0, 1)[drawn], teacher_BNC.flatten(0, 1)[drawn])
