"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679)."""

from torch import Tensor

from isometry.functional.target_class import dkd_loss
from isometry.losses.base import Loss, check_range

CITATION = """@inproceedings{zhao2022decoupled,
  title     = {Decoupled Knowledge Distillation},
  author    = {Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022},
  note      = {arXiv:2203.08679}
}"""


class DecoupledKD(Loss):
    """``τ² · (α · TCKD + β · NCKD)``: target class and other classes weighted apart; on a distillation head if any.

    See :func:`isometry.functional.target_class.dkd_loss`. The target is the label; under mixup, the one of the larger
    share. The paper adds cross-entropy, ``{ce: 1, dkd: 1}`` in a recipe, and chooses β for each pair of networks,
    between 0.5 and 10. Shapes: student (B, K), teacher (B, K), labels (B,) or (B, K) -> scalar.
    """

    citation = CITATION
    inputs = ("student_distilled_logits", "teacher_logits", "labels")

    def __init__(self, temperature: float = 1.0, alpha: float = 1.0, beta: float = 2.0) -> None:
        super().__init__()
        check_range("temperature", temperature, 0.001)
        check_range("alpha", alpha, 0)
        check_range("beta", beta, 0)
        self.temperature, self.alpha, self.beta = temperature, alpha, beta

    def forward(self, student_BK: Tensor, teacher_BK: Tensor, labels: Tensor) -> Tensor:
        return dkd_loss(student_BK, teacher_BK, labels, self.temperature, self.alpha, self.beta)
