"""Relations between patches drawn at random from the batch (arXiv:2107.01378v1, eq. 12: L_rs)."""

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
    scale_invariant = True
    relates_images = True

    def __init__(
        self, k: int = 192, reduction: Reduction = "mean", generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self.reduction = reduction
        self.generator = generator

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        student_MC, teacher_MC = student_BNC.flatten(0, 1), teacher_BNC.flatten(0, 1)
        drawn = torch.randperm(len(student_MC), generator=self.generator)[: self.k].to(
            student_MC.device, non_blocking=True
        )
        gap = gram_gap(student_MC[drawn], teacher_MC[drawn])
        return gap if self.reduction == "paper" else gap / len(drawn) ** 2
