"""Relations between images at one patch position (arXiv:2107.01378v1, eq. 10: L_ci, cross-image)."""

from torch import Tensor

from isometry.functional import gram_gap
from isometry.losses.base import Loss, Reduction, check_same_tokens


class InterImage(Loss):
    """``Σ_j ‖M(s[:, j]) − M(t[:, j])‖²_F / N`` over the patch positions j.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar.
    ``reduction="paper"``: as above, eq. 10. ``"mean"``: the mean over all N·B² entries.
    """

    inputs = ("student_tokens", "teacher_tokens")

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        per_position = gram_gap(student_BNC.transpose(0, 1), teacher_BNC.transpose(0, 1)).mean()
        return per_position if self.reduction == "paper" else per_position / student_BNC.shape[0] ** 2
