"""Gaps between relation maps in float64, straight from their definition, and tokens hard on rounding."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

RATIOS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


class Gap(NamedTuple):
    """The gap, its scale ‖M(s)‖²_F + ‖M(t)‖²_F, and its gradients in both sides, all float64."""

    value: Tensor
    scale: Tensor
    student_grad: Tensor
    teacher_grad: Tensor


def explicit_gap(student_NC: Tensor, teacher_NC: Tensor) -> Gap:
    """By N×N maps and plain autograd."""
    return _with_gradients(_explicit, student_NC, teacher_NC)


def channel_gap(student_NC: Tensor, teacher_NC: Tensor) -> Gap:
    """By matrices of channels and plain autograd, for numbers of tokens whose maps would not fit."""
    return _with_gradients(_by_channels, student_NC, teacher_NC)


def explicit_map(tokens_NC: Tensor) -> Tensor:
    """All cosines; 0 with a zero token."""
    unit_NC = _unit(tokens_NC.double())
    return unit_NC @ unit_NC.mT


def explicit_cka(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels (Kornblith et al. 2019, eq. 3 and 4)."""
    n = len(a_NC)
    centring_NN = torch.eye(n, dtype=torch.float64) - 1 / n
    k_NN, l_NN = (x.double() @ x.double().mT for x in (a_NC, b_NC))

    def hsic(x_NN: Tensor, y_NN: Tensor) -> Tensor:
        return torch.trace(x_NN @ centring_NN @ y_NN @ centring_NN) / (n - 1) ** 2

    return hsic(k_NN, l_NN) / (hsic(k_NN, k_NN) * hsic(l_NN, l_NN)).sqrt()


def relative_error(found: Tensor, true: Tensor) -> float:
    """‖found − true‖ / ‖true‖."""
    return float((found.double() - true).norm() / true.norm())


def hard_tokens(n: int, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Student tokens (n, channels) by what is hard about them."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def clusters(number: int, spread: float) -> Tensor:
        labels = torch.randint(number, (n,), generator=generator)
        return normal(number, channels)[labels] + spread * normal(n, channels)

    massive, massive_signed = normal(n, channels), normal(n, channels)
    massive[:, 0] = 300
    massive_signed[:, 0] *= 100
    outliers = normal(n, channels)
    outliers[: n // 20 + 1, -1] += 200
    return {
        "isotropic": normal(n, channels),
        "common mean": normal(n, channels) + 4 * normal(channels),  # mean cosine 0.94
        "strong common mean": normal(n, channels) + 10 * normal(channels),  # mean cosine 0.99
        "massive channel": massive,
        "massive channel of both signs": massive_signed,
        "outlier tokens": outliers,
        "10 clusters": clusters(10, 0.3),
        "10 tight clusters": clusters(10, 0.05),
    }


def teacher_at(student_NC: Tensor, ratio: float, channels: int, generator: torch.Generator) -> Tensor:
    """The student's tokens rotated into as many channels or more, with noise for gap ≈ ratio · scale."""
    n, width = student_NC.shape
    rotation, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))
    rotated_NC = student_NC.double() @ rotation[:width]
    noise_NC = torch.randn(n, channels, generator=generator, dtype=torch.float64) / math.sqrt(channels)
    noise_NC *= rotated_NC.norm(dim=-1, keepdim=True)
    amplitude = math.sqrt(ratio)
    for _ in range(6):  # the gap grows about as the square of the noise
        teacher_NC = rotated_NC + amplitude * noise_NC
        ours, theirs, cross = _squares(student_NC.double(), teacher_NC)
        amplitude *= math.sqrt(ratio * (ours + theirs) / (ours + theirs - 2 * cross))
    return teacher_NC.float()


def _with_gradients(gap: Callable[[Tensor, Tensor], Tensor], student_NC: Tensor, teacher_NC: Tensor) -> Gap:
    student_NC, teacher_NC = (x.detach().double().requires_grad_() for x in (student_NC, teacher_NC))
    value = gap(student_NC, teacher_NC)
    grads = torch.autograd.grad(value, (student_NC, teacher_NC))
    return Gap(value.detach(), _scale(student_NC.detach(), teacher_NC.detach()), *grads)


def _explicit(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    return (explicit_map(student_NC) - explicit_map(teacher_NC)).square().sum()


def _by_channels(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    ours, theirs, cross = _squares(student_NC, teacher_NC)
    return ours + theirs - 2 * cross


def _scale(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    ours, theirs, _ = _squares(student_NC, teacher_NC)
    return ours + theirs


def _squares(student_NC: Tensor, teacher_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """‖AᵀA‖²_F, ‖BᵀB‖²_F and ‖AᵀB‖²_F."""
    a_NC, b_NC = _unit(student_NC), _unit(teacher_NC)
    ours, theirs, cross = ((x.mT @ y).square().sum() for x, y in ((a_NC, a_NC), (b_NC, b_NC), (a_NC, b_NC)))
    return ours, theirs, cross


def _unit(tokens_NC: Tensor) -> Tensor:
    norm_N1 = tokens_NC.norm(dim=-1, keepdim=True)
    return tokens_NC * torch.where(norm_N1 > 0, 1 / torch.where(norm_N1 > 0, norm_N1, 1), 0)
