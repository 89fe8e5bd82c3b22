"""The teacher's decision as the label (arXiv:2107.01378v1, eq. 6; Touvron et al. 2021)."""

from torch import Tensor

from isometry.functional.labels import hard_label_loss
from isometry.losses.base import Loss


class HardLabel(Loss):
    """``CE(student, argmax teacher)``; on the distillation head if there is one, as in DeiT.

    Eq. 6 is ``{ce: 0.5, hard: 0.5}`` in a recipe. Shapes: student (B, K), teacher (B, K) -> scalar.
    """

    inputs = ("student_distilled_logits", "teacher_logits")

    def forward(self, student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        return hard_label_loss(student_BK, teacher_BK)
