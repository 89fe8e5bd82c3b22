"""Relations between the patches of one image (arXiv:2107.01378v1, eq. 11: L_cp, cross-patch)."""

from torch import Tensor

from isometry.functional import gram_gap
from isometry.losses.base import Loss, Reduction, check_same_tokens


class IntraImage(Loss):
    """``Σ_b ‖M(s_b) − M(t_b)‖²_F / B`` over the images b of the batch.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar, or (K, B, N, C) of K blocks -> (K,).
    ``reduction="paper"``: as above, eq. 11. ``"mean"``: the mean over all B·N² entries.
    """

    inputs = ("student_tokens", "teacher_tokens")
    batched = True
    scale_invariant = True

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        per_image = gram_gap(student_BNC, teacher_BNC).mean(-1)
        return per_image if self.reduction == "paper" else per_image / student_BNC.shape[-2] ** 2
