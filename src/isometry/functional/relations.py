"""Cosine relation maps of tokens, and the exact squared distance between two of them.

Shape suffixes: P problems (leading dimensions, flattened), N tokens, C channels.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from isometry.functional._batched_gap import BatchedChannelGap, BatchedTokenGap
from isometry.functional._gap import ChannelGap, TokenGap, normalise, result_dtype
from isometry.functional._precision import full_precision

Form = Literal["auto", "tokens", "channels"]
Precision = Literal["highest", "high", "medium"]

# Up to this many multiplications float64 is used: it costs milliseconds on two CPU cores.
_SMALL = 2**28


def gram_gap(
    student: Tensor,
    teacher: Tensor,
    *,
    form: Form = "auto",
    group: ProcessGroup | None = None,
    precision: Precision | None = None,
) -> Tensor:
    """Squared Frobenius distance between two cosine relation maps, ‖M(student) − M(teacher)‖²_F.

    M(x) = x̂ x̂ᵀ, a hat meaning each token divided by its L2 norm; the sum runs over all N×N entries. Leading
    dimensions are independent problems. Invariant to each token's scale and to a rotation of either side's channels.
    Tokens flattened to (B·N, C) give the whole-batch map of Hao et al. (2021, https://arxiv.org/abs/2107.01378, eq. 8),
    without its (B·N)² entries: the identity used (``_gap.py`` cites it) was not found in prior toolkits for this map.

    - ``form="tokens"`` builds the N×N maps, with N²(2Cs + Ct) multiplications for value and student gradient;
      ``"channels"`` never does, with N(2Cs² + Ct² + 2CsCt) and no memory beyond small matrices, a tile of
      tokens and the gradient; ``"auto"`` takes the fewer.
    - Precision, with scale = ‖M(student)‖²_F + ‖M(teacher)‖²_F: the value is never below 0. With ``"highest"`` it is
      within 1e-7 of the scale, and within 1e-5 relative where it is at least 1 % of the scale; the gradient is within
      1e-5 (relative norm) where the value is at least 0.1 % of the scale, and within 1e-3 down to a millionth of it.
      ``"high"`` allows 1e-4 of the scale, and 5e-3 for the gradient where the value is at least 0.5 % of the scale: a
      GPU multiplies float16 unit tokens with float32 sums then. On a CPU both compute the same. The gradient vanishes
      as unit tokens approach one line, and its relative error grows: the bound of ``"high"`` is for tokens that are
      farther than 1 % from it, or on one side of it; that of ``"highest"`` in float32, on a CPU, for those farther
      than 2 %.
    - A zero token has a zero row and column, and a zero gradient. Finite tokens
      never give NaN.
    - With ``group`` the rows of the map are the tokens of all its ranks, in any split; every rank must
      call, and the form is "channels". All ranks return the gap of the global maps, after one all-reduce of
      (Cs + Ct)(Cs + Ct + 1)/2 float64 numbers a problem. Each rank's gradient is the group's size times the
      derivative of that gap in its own tokens, so that the mean over ranks, which DDP takes of parameters'
      gradients, is that of the global gap.

    Args:
        student: (..., N, Cs), floating point.
        teacher: (..., N, Ct), floating point. Gradients are computed for whichever of the two requires one.
        form: ``"auto"``, ``"tokens"`` or ``"channels"``.
        group: process group over which the tokens are spread.
        precision: ``"highest"``, ``"high"`` or ``"medium"`` (as high), as of torch.set_float32_matmul_precision, whose
            setting is the default; under autocast the default is ``"high"``. float64 tokens take ``"highest"``.

    Returns:
        (...), float64 if an input is and float32 otherwise. The device must have float64. Not differentiable twice.

    Raises:
        ValueError: shapes or dtypes that don't match, an unknown form or precision, or ``form="tokens"`` with a group.
    """
    _check_tokens("student", student)
    _check_tokens("teacher", teacher)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            "student and teacher must have the same dimensions up to the channels, "
            f"not {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if form not in ("auto", "tokens", "channels"):
        raise ValueError(f"form must be 'auto', 'tokens' or 'channels', not {form!r}")
    if form == "tokens" and group is not None:
        raise ValueError("form='tokens' needs all tokens on one rank; with a group take 'channels' or 'auto'")
    if precision not in (None, "highest", "high", "medium"):
        raise ValueError(f"precision must be 'highest', 'high' or 'medium', not {precision!r}")
    *lead, n_tokens, _ = student.shape
    student_PNC, teacher_PNC = (x.reshape(math.prod(lead), n_tokens, x.shape[-1]) for x in (student, teacher))
    return _gram_gap(student_PNC, teacher_PNC, form, group, precision).reshape(lead)


def relation_map(tokens: Tensor) -> Tensor:
    """Cosine relation map M(x) = x̂ x̂ᵀ: (..., N, C) -> (..., N, N), entries in [−1, 1] up to rounding.

    Differentiable; a zero token has a zero row and column, and a zero gradient. float64 for float64 tokens, computed in
    float32 otherwise. Raises ValueError for fewer than two dimensions or tokens that are not floating point.
    """
    _check_tokens("tokens", tokens)
    with full_precision(tokens.device):
        unit = normalise(tokens, result_dtype(tokens))
        return unit @ unit.mT


def linear_cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment of two feature matrices (Kornblith et al., 2019, https://arxiv.org/abs/1905.00414).

    ‖ãᵀb̃‖²_F / (‖ãᵀã‖_F ‖b̃ᵀb̃‖_F), a tilde meaning columns minus their means: a (n, Ca), b (n, Cb) ->
    scalar in [0, 1], 0 where a side doesn't vary. Invariant to a rotation and to one scale of either side.
    No n×n matrix is formed. Computed in float64; float64 if an input is, float32 otherwise. Raises
    ValueError for anything but two floating-point matrices with equal numbers of rows.
    """
    _check_tokens("a", a)
    _check_tokens("b", b)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"a and b must be (n, Ca) and (n, Cb), not {tuple(a.shape)} and {tuple(b.shape)}")
    with full_precision(a.device):
        a64, b64 = (x.double() - x.double().mean(0) for x in (a, b))
        cross = (a64.mT @ b64).square().sum()
        own = torch.linalg.vector_norm(a64.mT @ a64) * torch.linalg.vector_norm(b64.mT @ b64)
        return (cross / torch.where(own > 0, own, 1)).to(result_dtype(a, b))


# For torch.compile this is one opaque call: tiles would unroll into a very long graph, and it sets global
# precision.
@torch.compiler.disable
def _gram_gap(
    student_PNC: Tensor,
    teacher_PNC: Tensor,
    form: Form,
    group: ProcessGroup | None,
    precision: Precision | None,
) -> Tensor:
    high = (precision or _default_precision(student_PNC.device)) != "highest"
    problems, n_tokens, n_student = student_PNC.shape
    n_teacher = teacher_PNC.shape[-1]
    cost = {
        "tokens": n_tokens**2 * (2 * n_student + n_teacher),
        "channels": n_tokens * (2 * n_student**2 + n_teacher**2 + 2 * n_student * n_teacher),
    }
    if form == "auto":
        form = "tokens" if cost["tokens"] < cost["channels"] and group is None else "channels"
    precise = result_dtype(student_PNC, teacher_PNC)
    small = problems * cost[form] <= _SMALL
    if launches_dominate(student_PNC.device):
        dtype = torch.float16 if high and precise == torch.float32 and not small else torch.float64
        if form == "tokens":
            return BatchedTokenGap.apply(student_PNC, teacher_PNC, dtype)
        return BatchedChannelGap.apply(student_PNC, teacher_PNC, dtype, group)
    dtype = torch.float64 if small else precise
    if form == "tokens":
        return TokenGap.apply(student_PNC, teacher_PNC, dtype)
    return ChannelGap.apply(student_PNC, teacher_PNC, dtype, group)


def launches_dominate(device: torch.device) -> bool:
    """Whether small operations cost their launch: on a GPU, where tiles that fit a cache win nothing either."""
    return device.type != "cpu"


def _default_precision(device: torch.device) -> str:
    # Of a device without autocast, such as meta, is_autocast_enabled raises.
    autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    # get_float32_matmul_precision raises where the setting was made by another name of it than its own.
    return "high" if autocast or torch.backends.cuda.matmul.fp32_precision == "tf32" else "highest"


def _check_tokens(name: str, tokens: Tensor) -> None:
    if not tokens.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {tokens.dtype}")
    if tokens.ndim < 2:
        raise ValueError(
            f"{name} must have at least two dimensions (tokens, channels), not {tuple(tokens.shape)}"
        )
