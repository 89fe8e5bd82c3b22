"""Losses on a teacher's soft or hard labels (arXiv:2107.01378v1, eq. 5 and 6), and cross-entropy.

Shape suffixes: B images, K classes.
"""

import torch.nn.functional as F
from torch import Tensor


def soft_label_loss(student_BK: Tensor, teacher_BK: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the student's softened class distribution from the teacher's.

    ``τ² · KL(softmax(teacher / τ) ‖ softmax(student / τ))``, averaged over the batch: the second part of eq. 5.
    τ² keeps the gradient's size independent of τ (Hinton et al. 2015).

    Args:
        student_BK: logits (B, K), any floating dtype; computed in float32.
        teacher_BK: logits (B, K) over the same classes in the same order.
        temperature: τ > 0.

    Returns:
        A float32 scalar (nats), 0 exactly when both distributions are equal.

    Raises:
        ValueError: shapes differ, or the temperature is not positive.
    """
    check_same_classes(student_BK, teacher_BK)
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    student_log_BK = F.log_softmax(student_BK.float() / temperature, dim=-1)
    teacher_log_BK = F.log_softmax(teacher_BK.float() / temperature, dim=-1)
    return F.kl_div(student_log_BK, teacher_log_BK, reduction="batchmean", log_target=True) * temperature**2


def hard_label_loss(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Cross-entropy of the student to the teacher's predicted class, ``CE(student, argmax teacher)`` (eq. 6).

    Args and errors as in :func:`soft_label_loss`; returns a float32 scalar (nats), averaged over the batch.
    """
    check_same_classes(student_BK, teacher_BK)
    return F.cross_entropy(student_BK.float(), teacher_BK.argmax(dim=-1))


def check_same_classes(student_BK: Tensor, teacher_BK: Tensor) -> None:
    """Raises ValueError unless both are logits (B, K) of the same images and classes."""
    if student_BK.shape != teacher_BK.shape or student_BK.ndim != 2:
        raise ValueError(
            f"student logits {tuple(student_BK.shape)} and teacher logits {tuple(teacher_BK.shape)} "
            "must both be (images, classes) over the same classes"
        )


def cross_entropy(student_BK: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to given labels, averaged over the batch; arguments as in :func:`cross_entropy_each`."""
    return F.cross_entropy(student_BK.float(), _targets(labels))


def cross_entropy_each(student_BK: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image to given labels (B,), nats, in float32.

    Args:
        student_BK: logits (B, K).
        labels: class indices (B,), or class probabilities (B, K), e.g. from mixup.
    """
    return F.cross_entropy(student_BK.float(), _targets(labels), reduction="none")


def _targets(labels: Tensor) -> Tensor:
    return labels if labels.ndim == 1 else labels.float()
