"""Relations between patches drawn at random from the batch (arXiv:2107.01378v1, eq. 12: L_rs)."""

import math

import torch
from torch import Tensor

from isometry.functional import gram_gap
from isometry.losses.base import Loss, Reduction, check_same_tokens


class RandomPatches(Loss):
    """``‖M(s_R) − M(t_R)‖²_F`` for k tokens R drawn without replacement from all B·N, the same on both sides.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar. All tokens are taken where there are fewer than k.
    Under torch.distributed each process draws from its own images.
    ``reduction="paper"``: as above, eq. 12. ``"mean"``: divided by its k² entries.

    Args:
        k: tokens to draw (192 in the paper, Table 6).
        generator: CPU generator of the draw, so that a GPU run draws the same tokens.
    """

    inputs = ("student_tokens", "teacher_tokens")
    batched = True
    scale_invariant = True
    relates_images = True

    def __init__(
        self, k: int = 192, reduction: Reduction = "mean", generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if not 1 <= k <= 10**9:
            raise ValueError(f"k must be at least 1 and at most 10**9, not {k}")
        self.k = k
        self.reduction = reduction
        self.generator = generator

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        sides = student_BNC.flatten(-3, -2), teacher_BNC.flatten(-3, -2)
        *lead, tokens, _ = sides[0].shape
        draws = [self._draw(tokens) for _ in range(math.prod(lead))]
        drawn = torch.stack(draws).reshape(*lead, -1, 1).to(student_BNC.device, non_blocking=True)
        gap = gram_gap(*(torch.take_along_dim(side, drawn, -2) for side in sides))
        return gap if self.reduction == "paper" else gap / drawn.shape[-2] ** 2

    def _draw(self, tokens: int) -> Tensor:
        return torch.randperm(tokens, generator=self.generator)[: self.k]
