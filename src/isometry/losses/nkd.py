"""Normalised knowledge distillation (Yang et al., ICCV 2023, arXiv:2303.13005)."""

from torch import Tensor

from isometry.functional.target_class import nkd_loss
from isometry.losses.base import Loss, check_range

CITATION = """@inproceedings{yang2023nkd,
  title     = {From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and
               Customized Soft Labels},
  author    = {Yang, Zhendong and Zeng, Ailing and Li, Zhe and Zhang, Tianke and Yuan, Chun and Li, Yu},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year      = {2023},
  note      = {arXiv:2303.13005}
}"""


class NormalisedKD(Loss):
    """``−T_t · log S_t − γ · τ² · Σ_{i≠t} N(T)_i · log N(S)_i``; on the distillation head if there is one.

    See :func:`isometry.functional.target_class.nkd_loss`. The target t is the label; under mixup, the one of the larger
    share. The paper adds cross-entropy: ``{ce: 1, nkd: 1}`` in a recipe, with γ = 1.5 and τ = 1.
    Shapes: student (B, K), teacher (B, K), labels (B,) or (B, K) -> scalar.
    """

    citation = CITATION
    inputs = ("student_distilled_logits", "teacher_logits", "labels")

    def __init__(self, temperature: float = 1.0, gamma: float = 1.5) -> None:
        super().__init__()
        check_range("temperature", temperature, 0.001)
        check_range("gamma", gamma, 0)
        self.temperature, self.gamma = temperature, gamma

    def forward(self, student_BK: Tensor, teacher_BK: Tensor, labels: Tensor) -> Tensor:
        return nkd_loss(student_BK, teacher_BK, labels, self.temperature, self.gamma)
