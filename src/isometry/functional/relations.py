"""Cosine relation maps of tokens, and the exact squared distance between two of them.

Shape suffixes: P problems (leading dimensions, flattened), N tokens, R rows of one tile of tokens, C channels of one
side, Z = Cs + Ct channels of both, S the two sides (student, teacher).

The identity ‖AAᵀ − BBᵀ‖²_F = ‖AᵀA‖²_F + ‖BᵀB‖²_F − 2‖AᵀB‖²_F behind the channel form is that of linear CKA (Kornblith
et al., 2019, https://arxiv.org/abs/1905.00414) and of neuron selectivity transfer with a quadratic kernel (Huang & Wang,
2017, https://arxiv.org/abs/1707.01219). Here the two sides stand next to each other as one matrix Z = [A | B] with a
sign for each channel, + for the student's and − for the teacher's, so that with G = ZᵀZ

    gap = Σ_jk sign_j sign_k G_jk²,      d gap / d Z = 4 Z (sign signᵀ ∘ G).

It subtracts large numbers that are nearly equal, and rounding is kept out of the difference in four ways. Sums over
tokens and over the small matrices are taken in float64. Every token is split into its part along an axis that dominates
its side (the common mean direction of real features, or one massive channel) and the small rest; only the rest goes
through float32 matrix products. The gradient along that axis is carried apart. Long products are added in short blocks.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

Form = Literal["auto", "tokens", "channels"]

# Multiplications under which float64 costs so little that nothing is worth saving: some milliseconds on two CPU cores.
_SMALL = 2**27
# Tokens in a tile: on a CPU a tile stays in the cache; elsewhere launching a kernel costs more than memory traffic.
_CPU_ROWS, _ROWS = 512, 4096
# Numbers in a tile, which bounds the scratch memory when there are many problems.
_TILE = 2**21
# Columns of a block of G: upper blocks alone are computed, so narrow ones save work and wide ones multiply faster.
_GRAM_BLOCK = 96
# Terms added in float32 at a time in the gradient's products.
_SUM_BLOCK = 64


def gram_gap(
    student: Tensor, teacher: Tensor, *, form: Form = "auto", group: ProcessGroup | None = None
) -> Tensor:
    """Squared Frobenius distance between the cosine relation maps of two sets of tokens: ‖M(student) − M(teacher)‖²_F.

    M(x) = x̂ x̂ᵀ, a hat meaning each token divided by its L2 norm; summed over all N×N entries. Leading dimensions are
    independent problems. Invariant to the scale of each token and to a rotation of either side's channels. For the
    whole-batch map (Hao et al., 2021, https://arxiv.org/abs/2107.01378, eq. 8) flatten images and patches to (B·N, C).

    - ``form="tokens"`` builds the N×N maps: N²(2Cs + Ct) multiplications for value and gradient. ``"channels"`` never
      does: N(2Cs² + Ct² + 2CsCt), linear in N, and no memory beyond the gradient and a tile. ``"auto"`` counts.
    - Precision: with scale = ‖M(student)‖²_F + ‖M(teacher)‖²_F, the value is within 1e-7 of the scale and never below 0,
      and within 1e-5 relative where it is at least 1 % of the scale; the gradient is within 1e-5 (relative norm) where
      the value is at least 0.1 % of the scale and within 1e-3 down to a millionth of it.
    - A zero token relates to nothing (a zero row) and gets a zero gradient. Finite tokens never give NaN.
    - With ``group`` the rows are those of all its ranks together, which may hold different numbers of them (channel form
      only, and every rank must call). Every rank returns the gap of the global maps, after one all-reduce of
      (Cs + Ct)(Cs + Ct + 1)/2 float64 numbers a problem. A rank's gradient is the group's size times the derivative of
      that gap in its own tokens, so that DDP's mean over ranks is the gradient of the global gap; no all-reduce there.

    Args:
        student: (..., N, Cs), floating point. teacher: (..., N, Ct). Both get a gradient if they require one.

    Returns:
        (...), float64 if an input is, float32 otherwise. bfloat16, float16 and float32 are computed in float32 or
        better, without TF32, whatever autocast and the global settings say; the device must have float64.

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown form, or ``form="tokens"`` with a group.
    """
    _check_pair(student, teacher, form, group)
    *lead, n_tokens, _ = student.shape
    problems = math.prod(lead)
    gap_P = _gram_gap(
        student.reshape(problems, n_tokens, student.shape[-1]),
        teacher.reshape(problems, n_tokens, teacher.shape[-1]),
        form,
        group,
    )
    return gap_P.reshape(lead)


def relation_map(tokens: Tensor) -> Tensor:
    """Cosine relation map M(x) = x̂ x̂ᵀ: (..., N, C) -> (..., N, N), entries in [−1, 1] up to rounding.

    Differentiable; a zero token has a zero row and column and a zero gradient. float64 for float64 tokens, otherwise
    float32. Raises ValueError for fewer than two dimensions or tokens that are not floating point.
    """
    _check_tokens("tokens", tokens)
    with _full_precision(tokens.device):
        unit, _ = _normalise(tokens, _result_dtype(tokens))
        return unit @ unit.mT


def linear_cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment of two feature matrices (Kornblith et al., 2019, sec. 3, "linear CKA").

    ‖ãᵀb̃‖²_F / (‖ãᵀã‖_F ‖b̃ᵀb̃‖_F), a tilde meaning columns minus their means: a (n, Ca), b (n, Cb) -> scalar in [0, 1].
    Invariant to rotations and to one scale of either side. No n×n matrix is formed. Computed in float64, returned in
    float64 if an input is and float32 otherwise; 0 where a side does not vary at all. Raises ValueError for inputs that
    are not floating-point matrices with equal numbers of rows.
    """
    _check_tokens("a", a)
    _check_tokens("b", b)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(
            f"linear_cka takes (n, Ca) and (n, Cb) with one n, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with _full_precision(a.device):
        a64, b64 = a.double(), b.double()
        a64, b64 = a64 - a64.mean(0), b64 - b64.mean(0)
        cross = (a64.mT @ b64).square().sum()
        # Frobenius norm that has a gradient of zero, not NaN, at zero.
        own = torch.linalg.vector_norm(a64.mT @ a64) * torch.linalg.vector_norm(b64.mT @ b64)
        return (cross / torch.where(own > 0, own, 1)).to(_result_dtype(a, b))


# Dynamo sees one opaque call: the tile loop would unroll into a very long graph, and the precision settings are global.
@torch.compiler.disable
def _gram_gap(student_PNC: Tensor, teacher_PNC: Tensor, form: Form, group: ProcessGroup | None) -> Tensor:
    problems, n_tokens, n_student = student_PNC.shape
    n_teacher = teacher_PNC.shape[-1]
    by_tokens = n_tokens**2 * (2 * n_student + n_teacher)
    by_channels = n_tokens * (2 * n_student**2 + n_teacher**2 + 2 * n_student * n_teacher)
    if form == "auto":
        form = "tokens" if by_tokens < by_channels and group is None else "channels"
    dtype = _result_dtype(student_PNC, teacher_PNC)
    if problems * (by_tokens if form == "tokens" else by_channels) <= _SMALL:
        dtype = torch.float64
    if form == "tokens":
        return _TokenGap.apply(student_PNC, teacher_PNC, dtype)
    return _ChannelGap.apply(student_PNC, teacher_PNC, dtype, group)


class _TokenGap(torch.autograd.Function):
    """D = AAᵀ − BBᵀ, gap = ‖D‖²_F, d gap / d A = 4DA, d gap / d B = −4DB."""

    @staticmethod
    def forward(ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype) -> Tensor:
        problems, n_tokens, _ = student_PNC.shape
        gap_P = student_PNC.new_zeros(problems, dtype=torch.float64)
        with _full_precision(student_PNC.device):
            difference_PNN = student_PNC.new_empty(problems, n_tokens, n_tokens, dtype=dtype)
            for some, _ in _tiles(student_PNC, teacher_PNC, whole=True):
                a_PNC, _ = _normalise(student_PNC[some], dtype)
                b_PNC, _ = _normalise(teacher_PNC[some], dtype)
                map_PNN = torch.bmm(a_PNC, a_PNC.mT)
                torch.baddbmm(map_PNN, b_PNC, b_PNC.mT, alpha=-1, out=difference_PNN[some])
                row_norms_PN = torch.linalg.vector_norm(difference_PNN[some], dim=-1)
                gap_P[some] = row_norms_PN.double().square().sum(-1)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(student_PNC, teacher_PNC, difference_PNN)
        return gap_P.to(_result_dtype(student_PNC, teacher_PNC))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, difference_PNN = ctx.saved_tensors
        grads: list[Tensor | None] = [None, None, None]
        with _full_precision(student_PNC.device):
            for side, (tokens_PNC, sign) in enumerate(((student_PNC, 4.0), (teacher_PNC, -4.0))):
                if not ctx.needs_input_grad[side]:
                    continue
                grad_PNC = torch.empty_like(tokens_PNC)
                for some, _ in _tiles(student_PNC, teacher_PNC, whole=True):
                    unit_PNC, inverse_PN1 = _normalise(tokens_PNC[some], difference_PNN.dtype)
                    slope_PNC = torch.bmm(difference_PNN[some], unit_PNC)
                    radial_PN1 = (slope_PNC * unit_PNC).sum(-1, keepdim=True)
                    scale_PN1 = inverse_PN1 * (sign * grad_P[some, None, None]).to(inverse_PN1)
                    grad_PNC[some] = slope_PNC.addcmul_(unit_PNC, radial_PN1, value=-1).mul_(scale_PN1)
                grads[side] = grad_PNC
        return tuple(grads)


class _ChannelGap(torch.autograd.Function):
    """The gap and its gradient from G = ZᵀZ, as the module's docstring says."""

    @staticmethod
    def forward(
        ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype, group: ProcessGroup | None
    ) -> Tensor:
        with _full_precision(student_PNC.device):
            axes = [_dominant_axis(tokens, dtype) for tokens in (student_PNC, teacher_PNC)]
            gram_PZZ = _gram(student_PNC, teacher_PNC, axes, dtype)
            if group is not None:
                gram_PZZ = _all_reduce(gram_PZZ, group)
            signs_Z = _signs(student_PNC, teacher_PNC)
            gap_P = (gram_PZZ.square() @ signs_Z @ signs_Z).clamp_min(0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(student_PNC, teacher_PNC, gram_PZZ, *axes)
        ctx.dtype, ctx.ranks = dtype, 1 if group is None else group.size()
        return gap_P.to(_result_dtype(student_PNC, teacher_PNC))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, gram_PZZ, *axes = ctx.saved_tensors
        needed = [side for side in range(2) if ctx.needs_input_grad[side]]
        grads: list[Tensor | None] = [None, None, None, None]
        for side in needed:
            grads[side] = torch.empty_like((student_PNC, teacher_PNC)[side])
        signs_Z = _signs(student_PNC, teacher_PNC)
        with _full_precision(student_PNC.device):
            slope_PZZ = 4 * ctx.ranks * grad_P[:, None, None] * torch.outer(signs_Z, signs_Z) * gram_PZZ
            slopes = {side: _Slope.of(slope_PZZ, axes, side, ctx.dtype) for side in needed}
            for some, rows in _tiles(student_PNC, teacher_PNC):
                tile = _split(student_PNC[some, rows], teacher_PNC[some, rows], [u[some] for u in axes], ctx.dtype)
                for side in needed:
                    grads[side][some, rows] = slopes[side].tangent(tile, side, some)  # type: ignore[index]
        return tuple(grads)


class _Tile(NamedTuple):
    """Some tokens, split: unit token = along · axis + rest, exactly as these numbers stand."""

    units: list[Tensor]  # each (P, R, C)
    inverse_norms: list[Tensor]  # each (P, R, 1)
    along_PRS: Tensor
    rest_PRZ: Tensor
    channels: list[slice]  # which of Z belong to each side


class _Slope(NamedTuple):
    """The matrix that takes Z to one side's gradient, 4 (sign signᵀ ∘ G) restricted to that side's columns.

    The columns' component along the side's axis is kept apart: what a float32 product would round there is as large as
    the whole gradient when the axis dominates, and nearly all of it vanishes once the radial part is taken out.
    """

    axis_P1C: Tensor
    across_PZC: Tensor  # multiplies rest, orthogonal to the axis
    across_PSC: Tensor  # multiplies along, orthogonal to the axis
    axial_PZ1: Tensor  # multiplies rest, along the axis
    axial_PS1: Tensor  # multiplies along, along the axis, float64

    @classmethod
    def of(cls, slope_PZZ: Tensor, axes: list[Tensor], side: int, dtype: torch.dtype) -> "_Slope":
        n_student = axes[0].shape[-1]
        slope_PZC = slope_PZZ[..., :n_student] if side == 0 else slope_PZZ[..., n_student:]
        axis_PC1 = axes[side].double().mT
        axial_PZ1 = slope_PZC @ axis_PC1
        across_PZC = slope_PZC - axial_PZ1 @ axis_PC1.mT
        both_PSZ = _block_axes(axes)
        return cls(
            axes[side],
            across_PZC.to(dtype),
            (both_PSZ @ across_PZC).to(dtype),
            axial_PZ1.to(dtype),
            both_PSZ @ axial_PZ1,
        )

    def tangent(self, tile: _Tile, side: int, some: slice) -> Tensor:
        """The gradient in the raw tokens: (slope − unit (unit · slope)) / norm, slope = across + axial · axis."""
        unit, along = tile.units[side], tile.along_PRS[..., side : side + 1]
        rest = tile.rest_PRZ[..., tile.channels[side]]
        across = torch.bmm(tile.along_PRS, self.across_PSC[some])
        for start in range(0, tile.rest_PRZ.shape[-1], _SUM_BLOCK):
            block = slice(start, start + _SUM_BLOCK)
            across.baddbmm_(tile.rest_PRZ[..., block], self.across_PZC[some, block])
        axial = torch.bmm(tile.along_PRS.double(), self.axial_PS1[some])
        axial = (axial + torch.bmm(tile.rest_PRZ, self.axial_PZ1[some])).to(along)
        radial = (across * rest).sum(-1, keepdim=True)
        # The axis' own tangent is |unit|² axis − unit (unit · axis) = (rest · unit) axis − (unit · axis) rest.
        on_axis = axial * (rest * unit).sum(-1, keepdim=True) - along * radial
        across.addcmul_(rest, radial + axial * along, value=-1).addcmul_(on_axis, self.axis_P1C[some])
        return across.mul_(tile.inverse_norms[side])


def _gram(student_PNC: Tensor, teacher_PNC: Tensor, axes: list[Tensor], dtype: torch.dtype) -> Tensor:
    """G = ZᵀZ (P, Z, Z) in float64."""
    problems, width = len(student_PNC), student_PNC.shape[-1] + teacher_PNC.shape[-1]
    rest_PZZ = student_PNC.new_zeros(problems, width, width, dtype=torch.float64)
    mixed_PZS = student_PNC.new_zeros(problems, width, 2, dtype=torch.float64)
    along_PSS = student_PNC.new_zeros(problems, 2, 2, dtype=torch.float64)
    for some, rows in _tiles(student_PNC, teacher_PNC):
        tile = _split(student_PNC[some, rows], teacher_PNC[some, rows], [u[some] for u in axes], dtype)
        for start in range(0, width, _GRAM_BLOCK):
            block = slice(start, start + _GRAM_BLOCK)
            rest_PZZ[some, block, start:] += torch.bmm(tile.rest_PRZ[..., block].mT, tile.rest_PRZ[..., start:])
        mixed_PZS[some] += torch.bmm(tile.rest_PRZ.mT, tile.along_PRS)
        along_PRS = tile.along_PRS.double()
        along_PSS[some] += torch.bmm(along_PRS.mT, along_PRS)
    axes_PSZ = _block_axes(axes)
    mixed_PZZ = mixed_PZS @ axes_PSZ
    upper_PZZ = rest_PZZ.triu_()
    return upper_PZZ + upper_PZZ.triu(1).mT + mixed_PZZ + mixed_PZZ.mT + axes_PSZ.mT @ along_PSS @ axes_PSZ


def _split(student_PRC: Tensor, teacher_PRC: Tensor, axes: list[Tensor], dtype: torch.dtype) -> _Tile:
    n_student, n_teacher = student_PRC.shape[-1], teacher_PRC.shape[-1]
    channels = [slice(0, n_student), slice(n_student, n_student + n_teacher)]
    units, inverse_norms = zip(*(_normalise(x, dtype) for x in (student_PRC, teacher_PRC)), strict=True)
    along_PRS = torch.cat([unit @ axis.mT for unit, axis in zip(units, axes, strict=True)], dim=-1)
    rest_PRZ = along_PRS.new_empty(*along_PRS.shape[:-1], n_student + n_teacher)
    for side, (unit, axis) in enumerate(zip(units, axes, strict=True)):
        torch.addcmul(unit, along_PRS[..., side : side + 1], axis, value=-1, out=rest_PRZ[..., channels[side]])
    return _Tile(list(units), list(inverse_norms), along_PRS, rest_PRZ, channels)


def _dominant_axis(tokens_PNC: Tensor, dtype: torch.dtype, rows: int = 256, steps: int = 6) -> Tensor:
    """(P, 1, C): a unit vector near the leading right singular vector of the unit tokens, by power iteration on a sample.

    Nothing but rounding depends on it, so a rough one will do.
    """
    sample_PRC, _ = _normalise(tokens_PNC[:, :: -(-tokens_PNC.shape[1] // rows) or 1], dtype)
    strongest_P11 = sample_PRC.square().sum(1, keepdim=True).argmax(-1, keepdim=True)
    axis_PC1 = sample_PRC.mT @ sample_PRC.gather(-1, strongest_P11.expand(-1, sample_PRC.shape[1], -1))
    for _ in range(steps):
        axis_PC1 = sample_PRC.mT @ (sample_PRC @ _normalise(axis_PC1.mT, dtype)[0].mT)
    return _normalise(axis_PC1.mT, dtype)[0]


def _block_axes(axes: list[Tensor]) -> Tensor:
    """(P, S, Z) float64: each side's axis in its own channels, zero in the other's."""
    student_P1C, teacher_P1C = (axis.double() for axis in axes)
    return torch.cat(
        [
            torch.cat([student_P1C, torch.zeros_like(teacher_P1C)], dim=-1),
            torch.cat([torch.zeros_like(student_P1C), teacher_P1C], dim=-1),
        ],
        dim=1,
    )


def _signs(student_PNC: Tensor, teacher_PNC: Tensor) -> Tensor:
    signs_Z = student_PNC.new_ones(student_PNC.shape[-1] + teacher_PNC.shape[-1], dtype=torch.float64)
    signs_Z[student_PNC.shape[-1] :] = -1
    return signs_Z


def _all_reduce(gram_PZZ: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over ranks; only the upper triangle of the symmetric matrices travels."""
    row, column = torch.triu_indices(*gram_PZZ.shape[-2:], device=gram_PZZ.device)
    upper_PK = gram_PZZ[:, row, column].contiguous()
    torch.distributed.all_reduce(upper_PK, group=group)
    gram_PZZ[:, row, column] = upper_PK
    gram_PZZ[:, column, row] = upper_PK
    return gram_PZZ


def _normalise(tokens: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unit tokens and inverse norms (..., 1); both zero for a zero token. Differentiable."""
    tokens = tokens.to(dtype)
    # Squares of tokens far from 1 in size leave float32's range; dividing by the largest entry keeps them in.
    largest = torch.linalg.vector_norm(tokens.detach(), ord=math.inf, dim=-1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    norm = largest * torch.linalg.vector_norm(tokens / largest, dim=-1, keepdim=True)
    is_zero = norm < torch.finfo(dtype).tiny  # whose inverse would overflow
    inverse = torch.where(is_zero, 0, 1 / torch.where(is_zero, 1, norm))
    return tokens * inverse, inverse


def _tiles(student_PNC: Tensor, teacher_PNC: Tensor, whole: bool = False) -> Iterator[tuple[slice, slice]]:
    """Slices of problems and of tokens that cover all of them; ``whole`` keeps a problem's tokens together."""
    problems, n_tokens, n_student = student_PNC.shape
    rows = n_tokens if whole else _CPU_ROWS if student_PNC.device.type == "cpu" else _ROWS
    rows = max(1, min(rows, n_tokens))
    some = max(1, _TILE // (rows * (n_student + teacher_PNC.shape[-1])))
    for problem in range(0, problems, some):
        for row in range(0, n_tokens, rows):
            yield slice(problem, problem + some), slice(row, row + rows)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products in float32: no autocast, no TF32 on CUDA, no bfloat16 on CPU; as it was afterwards."""
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _result_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _check_tokens(name: str, tokens: Tensor) -> None:
    if not tokens.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {tokens.dtype}")
    if tokens.ndim < 2:
        raise ValueError(f"{name} must be (..., tokens, channels), not {tuple(tokens.shape)}")


def _check_pair(student: Tensor, teacher: Tensor, form: str, group: ProcessGroup | None) -> None:
    _check_tokens("student", student)
    _check_tokens("teacher", teacher)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            "student and teacher must agree in all dimensions but the channels, "
            f"not {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if form not in ("auto", "tokens", "channels"):
        raise ValueError(f"form must be 'auto', 'tokens' or 'channels', not {form!r}")
    if form == "tokens" and group is not None:
        raise ValueError("form='tokens' cannot be spread over a group; use form='channels' or 'auto'")
