"""The gap between two relation maps as autograd functions: the numerics behind ``relations.gram_gap``.

Shape suffixes: P problems (leading dimensions, flattened), N tokens, R tokens of one tile, C channels of
one side, Z = Cs + Ct channels of both, S = 2 sides (student, teacher).

The channel form rests on ‖AAᵀ − BBᵀ‖²_F = ‖AᵀA‖²_F + ‖BᵀB‖²_F − 2‖AᵀB‖²_F, as linear CKA does (Kornblith et
al., 2019, https://arxiv.org/abs/1905.00414), and neuron selectivity transfer with a quadratic kernel (Huang
& Wang, 2017, https://arxiv.org/abs/1707.01219). Both sides are concatenated in one matrix
Z = [A | B], and each channel has a sign, + for the student's and − for the teacher's. Then, with G = ZᵀZ,

    gap = Σ_jk sign_j sign_k G_jk²,        d gap / d Z = 4 Z (sign signᵀ ∘ G).

Nearly equal large numbers are subtracted here. Four measures keep their rounding error out of the difference:
sums over tiles of tokens are float64; each token is split into its part along an axis that dominates its side
(a common mean direction, one massive channel) and a small rest, and only the rest goes through float32
products; the gradient along that axis is computed separately; and long float32 sums are sums of short ones.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from isometry.functional._precision import full_precision

# Tokens of a problem and numbers in a tile, which stays in a CPU's cache.
_ROWS, _TILE = 1024, 2**18
# Columns of a block of G. Only blocks on and above the diagonal are computed: narrow ones save more work,
# wide ones multiply faster.
_GRAM_BLOCK = 96
# Terms summed in float32 at a time in the gradient's products.
_SUM_BLOCK = 64

Sides = tuple[Tensor, Tensor]  # student (P, N, Cs) and teacher (P, N, Ct)


class TokenGap(torch.autograd.Function):
    """D = AAᵀ − BBᵀ, gap = ‖D‖²_F, d gap / d A = 4DA, d gap / d B = −4DB."""

    @staticmethod
    def forward(ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype) -> Tensor:
        sides, (problems, n_tokens, _) = (student_PNC, teacher_PNC), student_PNC.shape
        gap_P = student_PNC.new_zeros(problems, dtype=torch.float64)
        with full_precision(student_PNC.device):
            difference_PNN = student_PNC.new_empty(problems, n_tokens, n_tokens, dtype=dtype)
            inverse_norms = [student_PNC.new_empty(problems, n_tokens, 1, dtype=dtype) for _ in range(2)]
            for some, rows in _tiles(sides, whole=True):
                _measure(sides, inverse_norms, some, rows)
                a_PNC, b_PNC = _units(sides, inverse_norms, some, rows)
                map_PNN = torch.bmm(a_PNC, a_PNC.mT, out=difference_PNN[some])
                map_PNN.baddbmm_(b_PNC, b_PNC.mT, alpha=-1)
                row_norms_PN = torch.linalg.vector_norm(map_PNN, dim=-1)
                gap_P[some] = row_norms_PN.double().square().sum(-1)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(student_PNC, teacher_PNC, difference_PNN, *inverse_norms)
        return gap_P.to(result_dtype(student_PNC, teacher_PNC))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, difference_PNN, *inverse_norms = ctx.saved_tensors
        sides = student_PNC, teacher_PNC
        grads = {i: torch.empty_like(sides[i]) for i in range(2) if ctx.needs_input_grad[i]}
        with full_precision(student_PNC.device):
            for side, grad_PNC in grads.items():
                for some, _ in _tiles(sides, whole=True):
                    inverse_PN1 = inverse_norms[side][some]
                    unit_PNC = sides[side][some].to(inverse_PN1) * inverse_PN1
                    slope_PNC = torch.bmm(difference_PNN[some], unit_PNC)
                    for _ in range(2):  # twice, because rounding leaves some of a large radial part
                        radial_PN1 = (slope_PNC * unit_PNC).sum(-1, keepdim=True)
                        slope_PNC.addcmul_(unit_PNC, radial_PN1, value=-1)
                    above_P11 = (4 if side == 0 else -4) * grad_P[some, None, None]
                    grad_PNC[some] = slope_PNC.mul_(inverse_PN1 * above_P11)
        return grads.get(0), grads.get(1), None


class ChannelGap(torch.autograd.Function):
    """The gap and its gradient from G = ZᵀZ, as the module's docstring says."""

    @staticmethod
    def forward(
        ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype, group: ProcessGroup | None
    ) -> Tensor:
        sides = student_PNC, teacher_PNC
        with full_precision(student_PNC.device):
            axes = [_dominant_axis(tokens, dtype) for tokens in sides]
            inverse_norms = [tokens.new_empty(*tokens.shape[:-1], 1, dtype=dtype) for tokens in sides]
            gram_PZZ = _gram(sides, axes, inverse_norms)
            if group is not None:
                gram_PZZ = all_reduce(gram_PZZ, group)
            gap_P = _signed_square(gram_PZZ, n=student_PNC.shape[-1]).clamp_min(0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(student_PNC, teacher_PNC, gram_PZZ, *axes, *inverse_norms)
        ctx.ranks = 1 if group is None else group.size()
        return gap_P.to(result_dtype(student_PNC, teacher_PNC))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, gram_PZZ, *saved = ctx.saved_tensors
        axes, inverse_norms = saved[:2], saved[2:]
        sides = student_PNC, teacher_PNC
        grads = {i: torch.empty_like(sides[i]) for i in range(2) if ctx.needs_input_grad[i]}
        with full_precision(student_PNC.device):
            weights_PZ = 4 * ctx.ranks * grad_P.double()[:, None] * _signs(sides)
            slopes = {side: _Slope.of(gram_PZZ, weights_PZ, axes, side) for side in grads}
            for some, rows in _tiles(sides):
                tile = _split(_units(sides, inverse_norms, some, rows), axes, some)
                for side, grad_PNC in grads.items():
                    tangent = slopes[side].tangent(tile, side, some)
                    torch.mul(tangent, inverse_norms[side][some, rows], out=grad_PNC[some, rows])
        return grads.get(0), grads.get(1), None, None


class _Tile(NamedTuple):
    """Some tokens of both sides, split: unit token = along · axis + rest."""

    units: list[Tensor]  # per side (P, R, C)
    channels: list[slice]  # per side, its channels in Z
    along: Tensor  # (P, R, S)
    rest: Tensor  # (P, R, Z)


class _Slope(NamedTuple):
    """The map from Z to the gradient of one side's unit tokens: that side's columns of 4 (sign signᵀ ∘ G).

    The component along the side's axis is kept separate: where the axis dominates it is far larger than the
    rest, and nearly all of it is radial and cancels in the gradient, but its rounding error would not.
    """

    axis: Tensor  # (P, 1, C)
    rest_across: Tensor  # (P, Z, C), from rest to the gradient's part orthogonal to the axis
    along_across: Tensor  # (P, S, C), from along to the same
    rest_axial: Tensor  # (P, Z, 1), from rest to the gradient's coefficient of the axis
    along_axial: Tensor  # (P, S, 1), from along to the same, float64

    @classmethod
    def of(cls, gram_PZZ: Tensor, weights_PZ: Tensor, axes: list[Tensor], side: int) -> "_Slope":
        n_student, dtype = axes[0].shape[-1], axes[0].dtype
        if side == 0:
            slope_PZC = gram_PZZ[..., :n_student] * weights_PZ[..., None]
        else:
            slope_PZC = gram_PZZ[..., n_student:] * -weights_PZ[..., None]
        axis_PC1 = axes[side].double().mT
        squared_P11 = axis_PC1.square().sum(1, keepdim=True)  # is 1 only up to float32's rounding
        axial_PZ1 = slope_PZC @ axis_PC1 / torch.where(squared_P11 > 0, squared_P11, 1)
        across_PZC = slope_PZC - axial_PZ1 @ axis_PC1.mT
        axes_PSZ = _block_axes(axes)
        along_across = (axes_PSZ @ across_PZC).to(dtype)
        return cls(axes[side], across_PZC.to(dtype), along_across, axial_PZ1.to(dtype), axes_PSZ @ axial_PZ1)

    def tangent(self, tile: _Tile, side: int, some: slice) -> Tensor:
        """slope − unit (unit · slope), slope = across + axial · axis."""
        unit, along, rest = tile.units[side], tile.along[..., side, None], tile.rest[..., tile.channels[side]]
        across = torch.bmm(tile.along, self.along_across[some])
        for start in range(0, tile.rest.shape[-1], _SUM_BLOCK):
            block = slice(start, start + _SUM_BLOCK)
            across.baddbmm_(tile.rest[..., block], self.rest_across[some, block])
        axial = torch.bmm(tile.along.double(), self.along_axial[some])
        axial = (axial + torch.bmm(tile.rest, self.rest_axial[some])).to(along)
        radial = (across * rest).sum(-1, keepdim=True)
        # The axis' own tangent is |unit|² axis − (unit · axis) unit = (rest · unit) axis − (unit · axis)
        # rest, in which nothing large cancels.
        on_axis = axial * (rest * unit).sum(-1, keepdim=True) - along * radial
        return across.addcmul_(rest, radial + axial * along, value=-1).addcmul_(on_axis, self.axis[some])


def _gram(sides: Sides, axes: list[Tensor], inverse_norms: list[Tensor]) -> Tensor:
    """G = ZᵀZ, (P, Z, Z) in float64; fills ``inverse_norms``."""
    problems, width = len(sides[0]), sides[0].shape[-1] + sides[1].shape[-1]
    rest_PZZ = sides[0].new_zeros(problems, width, width, dtype=torch.float64)
    mixed_PSZ = sides[0].new_zeros(problems, 2, width, dtype=torch.float64)
    along_PSS = sides[0].new_zeros(problems, 2, 2, dtype=torch.float64)
    for some, rows in _tiles(sides):
        _measure(sides, inverse_norms, some, rows)
        tile = _split(_units(sides, inverse_norms, some, rows), axes, some)
        for start in range(0, width, _GRAM_BLOCK):
            block = slice(start, start + _GRAM_BLOCK)
            rest_PZZ[some, block, start:] += torch.bmm(tile.rest[..., block].mT, tile.rest[..., start:])
        mixed_PSZ[some] += torch.bmm(tile.along.mT, tile.rest)
        along_PRS = tile.along.double()
        along_PSS[some] += torch.bmm(along_PRS.mT, along_PRS)
    # Half of the symmetric G: the blocks' upper triangle, and the terms of the axes.
    axes_PSZ = _block_axes(axes)
    half_PZZ = rest_PZZ.triu_()
    half_PZZ.diagonal(dim1=1, dim2=2).mul_(0.5)
    half_PZZ.baddbmm_((mixed_PSZ + 0.5 * along_PSS @ axes_PSZ).mT, axes_PSZ)
    return half_PZZ + half_PZZ.mT


def _signed_square(gram_PZZ: Tensor, n: int) -> Tensor:
    """Σ_jk sign_j sign_k G_jk², by norms of blocks, which need no second matrix; n channels are the student's."""
    blocks = gram_PZZ[:, :n, :n], gram_PZZ[:, n:, n:], gram_PZZ[:, :n, n:]
    student_P, teacher_P, both_P = (torch.linalg.matrix_norm(block_PCC).square() for block_PCC in blocks)
    return student_P + teacher_P - 2 * both_P


def _measure(sides: Sides, inverse_norms: list[Tensor], some: slice, rows: slice) -> None:
    for tokens_PNC, inverse_PN1 in zip(sides, inverse_norms, strict=True):
        inverse_PN1[some, rows] = inverse_norm(tokens_PNC[some, rows], inverse_PN1.dtype)


def _units(sides: Sides, inverse_norms: list[Tensor], some: slice, rows: slice) -> list[Tensor]:
    pairs = zip(sides, inverse_norms, strict=True)
    return [tokens[some, rows].to(inverse) * inverse[some, rows] for tokens, inverse in pairs]


def _split(units: list[Tensor], axes: list[Tensor], some: slice) -> _Tile:
    n_student, width = units[0].shape[-1], units[0].shape[-1] + units[1].shape[-1]
    channels = [slice(0, n_student), slice(n_student, width)]
    rest_PRZ = units[0].new_empty(*units[0].shape[:-1], width)
    along_PRS = units[0].new_empty(*units[0].shape[:-1], 2)
    for side, unit_PRC in enumerate(units):
        axis_P1C, along_PR1 = axes[side][some], along_PRS[..., side, None]
        along_PR1.copy_(torch.bmm(unit_PRC, axis_P1C.mT))
        torch.addcmul(unit_PRC, along_PR1, axis_P1C, value=-1, out=rest_PRZ[..., channels[side]])
    return _Tile(units, channels, along_PRS, rest_PRZ)


def _dominant_axis(tokens_PNC: Tensor, dtype: torch.dtype, rows: int = 256, steps: int = 4) -> Tensor:
    """(P, 1, C): about the leading right singular vector of the unit tokens, by power iteration on a sample.

    The results do not depend on the axis except through rounding, so a rough one is enough.
    """
    stride = max(1, -(-tokens_PNC.shape[1] // rows))
    sample_PRC = normalise(tokens_PNC[:, ::stride], dtype)
    strongest_P11 = sample_PRC.square().sum(1, keepdim=True).argmax(-1, keepdim=True)
    start_PR1 = sample_PRC.gather(-1, strongest_P11.expand(-1, sample_PRC.shape[1], -1))
    axis_P1C = normalise(start_PR1.mT @ sample_PRC, dtype)
    for _ in range(steps):
        axis_P1C = normalise((axis_P1C @ sample_PRC.mT) @ sample_PRC, dtype)
    return axis_P1C


def _block_axes(axes: list[Tensor]) -> Tensor:
    """(P, S, Z) in float64: each side's axis in its own channels, zeros in the other's."""
    student_P1C, teacher_P1C = (axis.double() for axis in axes)
    student_P1Z = torch.cat([student_P1C, torch.zeros_like(teacher_P1C)], dim=-1)
    teacher_P1Z = torch.cat([torch.zeros_like(student_P1C), teacher_P1C], dim=-1)
    return torch.cat([student_P1Z, teacher_P1Z], dim=1)


def _signs(sides: Sides) -> Tensor:
    ones = [side.new_ones(side.shape[-1], dtype=torch.float64) for side in sides]
    return torch.cat([ones[0], -ones[1]])


def all_reduce(gram_PZZ: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over ranks, in one call; only the upper triangle of the symmetric matrix is sent."""
    row, column = torch.triu_indices(*gram_PZZ.shape[1:], device=gram_PZZ.device)
    upper = gram_PZZ[:, row, column]
    torch.distributed.all_reduce(upper, group=group)
    gram_PZZ[:, row, column] = upper
    gram_PZZ[:, column, row] = upper
    return gram_PZZ


def normalise(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """Tokens divided by their norms, in ``dtype``; zero for a zero token. Differentiable."""
    return tokens.to(dtype) * inverse_norm(tokens, dtype)


def inverse_norm(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / ‖token‖ (..., 1) in ``dtype``, zero for a zero token. Differentiable."""
    # In float64: squares of float32 numbers stay in its range, and a norm's rounding error is shared by all
    # relations of its token, and by similar tokens, so it doesn't average out.
    return inverse(torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=torch.float64), dtype)


def inverse(norm: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / norm in ``dtype``, zero where that would overflow. Differentiable."""
    return norm.masked_fill(norm < torch.finfo(dtype).tiny, torch.inf).reciprocal().to(dtype)


def _tiles(sides: Sides, whole: bool = False) -> Iterator[tuple[slice, slice]]:
    """Slices of problems and of tokens that cover them all; ``whole`` keeps a problem's tokens together."""
    problems, n_tokens, n_student = sides[0].shape
    rows = max(1, n_tokens if whole else min(_ROWS, n_tokens))
    some = max(1, _TILE // (rows * max(1, n_student + sides[1].shape[-1])))
    for problem in range(0, problems, some):
        for row in range(0, n_tokens, rows):
            yield slice(problem, problem + some), slice(row, row + rows)


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
