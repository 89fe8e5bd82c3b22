"""Losses that compare the target class and the other classes apart: NKD and DKD.

Shape suffixes: B images, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.functional.labels import check_same_classes


def nkd_loss(
    student_BK: Tensor, teacher_BK: Tensor, labels: Tensor, temperature: float = 1.0, gamma: float = 1.5
) -> Tensor:
    """Normalised knowledge distillation (Yang et al., ICCV 2023, arXiv:2303.13005).

    ``−T_t · log S_t − γ · τ² · Σ_{i≠t} N(T)_i · log N(S)_i``, averaged over the batch. t is the target class, T and S
    are the softmax of teacher and student, and N is the softmax at temperature τ over the other K − 1 classes, which
    therefore sums to 1 on both sides.

    Args:
        student_BK: logits (B, K), any floating dtype; computed in float32.
        teacher_BK: logits (B, K) over the same classes in the same order.
        labels: class indices (B,), or probabilities (B, K), whose largest class is the target.
        temperature: τ > 0.
        gamma: weight of the other classes.

    Returns:
        A float32 scalar (nats), at least 0. Like a cross-entropy, it is not 0 for equal logits.

    Raises:
        ValueError: shapes differ, there are fewer than two classes, or the temperature is not positive.
    """
    targets_B1 = _targets(student_BK, teacher_BK, labels, temperature)
    student_BK, teacher_BK = student_BK.float(), teacher_BK.float()
    of_teacher_B = teacher_BK.softmax(-1).gather(1, targets_B1)[:, 0]
    of_student_B = student_BK.log_softmax(-1).gather(1, targets_B1)[:, 0]
    wanted_BK1 = (_others(teacher_BK, targets_B1) / temperature).softmax(-1)
    given_BK1 = (_others(student_BK, targets_B1) / temperature).log_softmax(-1)
    others_B = (wanted_BK1 * given_BK1).sum(-1)
    return -(of_teacher_B * of_student_B + gamma * temperature**2 * others_B).mean()


def dkd_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 2.0,
) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679, eq. 7).

    ``τ² · (α · TCKD + β · NCKD)``, averaged over the batch. TCKD is the KL divergence between the two-way distributions
    (target class, all others) of teacher and student at temperature τ, NCKD the one between their distributions over
    the other K − 1 classes. With α = 1 and β = 1 − T_t, T_t the teacher's probability of the target class, it would be
    the KL divergence of :func:`~isometry.functional.labels.soft_label_loss`.

    Args:
        student_BK, teacher_BK, labels, temperature: as in :func:`nkd_loss`.
        alpha: weight of TCKD.
        beta: weight of NCKD.

    Returns:
        A float32 scalar (nats), at least 0; 0 for equal distributions.

    Raises:
        ValueError: as :func:`nkd_loss`.
    """
    targets_B1 = _targets(student_BK, teacher_BK, labels, temperature)
    student_BK, teacher_BK = student_BK.float() / temperature, teacher_BK.float() / temperature
    student_others_BK1, teacher_others_BK1 = (_others(each, targets_B1) for each in (student_BK, teacher_BK))
    target = _kl(
        _two_way(teacher_BK, teacher_others_BK1, targets_B1),
        _two_way(student_BK, student_others_BK1, targets_B1),
    )
    others = _kl(teacher_others_BK1.log_softmax(-1), student_others_BK1.log_softmax(-1))
    return temperature**2 * (alpha * target + beta * others)


def _kl(teacher_log: Tensor, student_log: Tensor) -> Tensor:
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)


def _two_way(logits_BK: Tensor, others_BK1: Tensor, targets_B1: Tensor) -> Tensor:
    """Log-probabilities (B, 2) of the target class and of all others together."""
    # From the sum over the others, as 1 − p loses all digits where p is close to 1.
    both_B2 = torch.cat([logits_BK.gather(1, targets_B1), others_BK1.logsumexp(-1, keepdim=True)], dim=1)
    return both_B2.log_softmax(-1)


def _others(logits_BK: Tensor, targets_B1: Tensor) -> Tensor:
    """Logits (B, K − 1) of all classes but the target."""
    places_K1 = torch.arange(logits_BK.shape[1] - 1, device=logits_BK.device)
    return logits_BK.gather(1, places_K1 + (places_K1 >= targets_B1))


def _targets(student_BK: Tensor, teacher_BK: Tensor, labels: Tensor, temperature: float) -> Tensor:
    check_same_classes(student_BK, teacher_BK)
    if student_BK.shape[1] < 2:
        raise ValueError("there must be two classes at least, as the others are compared with the target")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    return (labels if labels.ndim == 1 else labels.argmax(-1)).unsqueeze(1)
