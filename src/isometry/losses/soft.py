"""The teacher's softened class distribution (arXiv:2107.01378v1, eq. 5; Hinton et al. 2015)."""

from torch import Tensor

from isometry.functional.labels import soft_label_loss
from isometry.losses.base import Loss, check_range


class SoftLabel(Loss):
    """``τ² · KL(softmax(teacher / τ) ‖ softmax(student / τ))``, on the distillation head if there is one (DeiT).

    Shapes: student (B, K), teacher (B, K) -> scalar.
    """

    inputs = ("student_distilled_logits", "teacher_logits")

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_range("temperature", temperature, 0.001)
        self.temperature = temperature

    def forward(self, student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        return soft_label_loss(student_BK, teacher_BK, self.temperature)
