"""Plain cross-entropy to the data's labels."""

from torch import Tensor

from isometry.functional.labels import cross_entropy
from isometry.losses.base import Loss


class CrossEntropy(Loss):
    """``CE(student, labels)``; labels are class indices (B,) or probabilities (B, K) from mixup and smoothing.

    Shapes: student (B, K) -> scalar.
    """

    inputs = ("student_logits", "labels")

    def forward(self, student_BK: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(student_BK, labels)
