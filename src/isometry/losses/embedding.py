"""Matches block features through a learned projection (arXiv:2107.01378v1, Table 7)."""

from torch import Tensor, nn
from torch.nn import functional as F

from isometry.losses.base import Loss, check_same_tokens


class Embedding(Loss):
    """``mean (P s − t)²`` over all tokens and channels, with a learned linear projection P: Cs -> Ct.

    The projection trains with the student and is not part of the saved student.
    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar, in float32.
    """

    inputs = ("student_tokens", "teacher_tokens")

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(student_width, teacher_width)

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        return F.mse_loss(self.projection(student_BNC).float(), teacher_BNC.float())
