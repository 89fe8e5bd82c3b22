"""The gap where a launch costs more than the arithmetic: all problems in a few large operations.

The equations are those of ``_gap.py``. Precision comes from the type of the unit tokens instead of from splitting them:
float64 for ``highest``, and for ``high`` float16 with float32 sums, which keeps as many bits as TF32 at half the
traffic. Unit tokens are at most 1, and the factors of the gradient's products are scaled to at most 1, so float16 does
not overflow.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from isometry.functional._gap import Sides, all_reduce, inverse, result_dtype
from isometry.functional._precision import full_precision

# Numbers of a tile: the unit tokens of 8 pairs of blocks of DeiT-Tiny and CaiT-S24 at a batch of 256 are one tile.
_TILE = 2**28


class BatchedTokenGap(torch.autograd.Function):
    """D = AAᵀ − BBᵀ, gap = ‖D‖²_F, d gap / d A = 4DA, d gap / d B = −4DB."""

    @staticmethod
    def forward(ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype) -> Tensor:
        sides, (problems, n_tokens, _) = (student_PNC, teacher_PNC), student_PNC.shape
        result = result_dtype(*sides)
        inverse_PNS = _inverse_norms(sides, dtype)
        gap_P = student_PNC.new_empty(problems, dtype=torch.float64)
        # Entries lie in [−2, 2] and are multiplied once: the unit tokens' own precision is enough.
        kept_PNN = student_PNC.new_empty(
            problems, n_tokens, n_tokens, dtype=dtype if dtype == torch.float16 else result
        )
        with full_precision(student_PNC.device):
            for some in _problems(n_tokens * (n_tokens + sum(side.shape[-1] for side in sides)), problems):
                a_PNN, b_PNN = (
                    _own_product(_unit(sides[i][some], inverse_PNS[some, :, i, None], dtype))
                    for i in range(2)
                )
                map_PNN = a_PNN.sub_(b_PNN)
                gap_P[some] = torch.linalg.vector_norm(map_PNN, dim=(1, 2), dtype=torch.float64).square_()
                kept_PNN[some] = map_PNN
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*sides, kept_PNN, inverse_PNS)
        ctx.dtype = dtype
        return gap_P.to(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, difference_PNN, inverse_PNS = ctx.saved_tensors
        sides, (problems, n_tokens, _) = (student_PNC, teacher_PNC), student_PNC.shape
        grads = {i: torch.empty_like(sides[i]) for i in range(2) if ctx.needs_input_grad[i]}
        with full_precision(student_PNC.device):
            for i, grad_PNC in grads.items():
                scale_P11 = (4 if i == 0 else -4) * grad_P[:, None, None]
                for some in _problems(n_tokens * (n_tokens + 2 * sides[i].shape[-1]), problems):
                    inverse_PN1 = inverse_PNS[some, :, i, None]
                    unit_PNC = _unit(sides[i][some], inverse_PN1, ctx.dtype)
                    slope_PNC = _product(difference_PNN[some].to(ctx.dtype), unit_PNC)
                    tangent = _tangent(slope_PNC, sides[i][some], inverse_PN1)
                    torch.mul(tangent, inverse_PN1 * scale_P11[some], out=grad_PNC[some])
        return grads.get(0), grads.get(1), None


class BatchedChannelGap(torch.autograd.Function):
    """The gap and its gradient from G = ZᵀZ, Z = [A | B], all problems and tokens at once."""

    @staticmethod
    def forward(
        ctx: Any, student_PNC: Tensor, teacher_PNC: Tensor, dtype: torch.dtype, group: ProcessGroup | None
    ) -> Tensor:
        sides, n = (student_PNC, teacher_PNC), student_PNC.shape[-1]
        inverse_PNS = _inverse_norms(sides, dtype)
        with full_precision(student_PNC.device):
            student_PZC, teacher_PCC = _gram(sides, inverse_PNS, dtype)
            if dtype == torch.float16:
                _restore_traces(student_PZC, teacher_PCC, inverse_PNS)
            if group is not None:
                gram_PZZ = all_reduce(_whole(student_PZC, teacher_PCC).double(), group)
                student_PZC, teacher_PCC = gram_PZZ[..., :n], gram_PZZ[:, n:, n:]
            student_P, teacher_P, both_P = (
                torch.linalg.vector_norm(block_PCC, dim=(1, 2), dtype=torch.float64).square_()
                for block_PCC in (student_PZC[:, :n], teacher_PCC, student_PZC[:, n:])
            )
            gap_P = student_P.add_(teacher_P).sub_(both_P, alpha=2).clamp_min_(0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*sides, student_PZC, teacher_PCC, inverse_PNS)
        ctx.dtype, ctx.ranks = dtype, 1 if group is None else group.size()
        return gap_P.to(result_dtype(*sides))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, student_PZC, teacher_PCC, inverse_PNS = ctx.saved_tensors
        sides, n = (student_PNC, teacher_PNC), student_PNC.shape[-1]
        grads = {i: torch.empty_like(sides[i]) for i in range(2) if ctx.needs_input_grad[i]}
        own = slice(None, n), slice(n, None)
        with full_precision(student_PNC.device):
            for i, grad_PNC in grads.items():
                gram_PZC = student_PZC if i == 0 else _whole(student_PZC, teacher_PCC)[..., n:]
                slope_PZC = 4 * ctx.ranks * gram_PZC
                slope_PZC[:, own[1 - i]].neg_()
                # A multiple of the identity gives a radial slope, which the tangent lacks anyway: the mean of the
                # diagonal is left out, and with it its rounding error.
                diagonal_PC = slope_PZC[:, own[i]].diagonal(dim1=1, dim2=2)
                diagonal_PC.sub_(diagonal_PC.mean(1, keepdim=True))
                # Of zero tokens alone all are zeros.
                largest_P11 = torch.linalg.vector_norm(slope_PZC, torch.inf, dim=(1, 2), keepdim=True)
                largest_P11.clamp_min_(torch.finfo(torch.float32).tiny)
                factor_PZC = (slope_PZC / largest_P11).to(ctx.dtype)
                scale_P11 = grad_P[:, None, None] * largest_P11
                for some, rows in _tiles(sides):
                    unit_PRZ = _units(sides, inverse_PNS, ctx.dtype, some, rows)
                    slope_PRC = _product(unit_PRZ, factor_PZC[some])
                    inverse_PR1 = inverse_PNS[some, rows, i, None]
                    tangent = _tangent(slope_PRC, sides[i][some, rows], inverse_PR1)
                    torch.mul(tangent, inverse_PR1 * scale_P11[some], out=grad_PNC[some, rows])
        return grads.get(0), grads.get(1), None, None


def _gram(sides: Sides, inverse_PNS: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The student's columns of G = ZᵀZ, (P, Z, Cs), and the teacher's block, (P, Ct, Ct)."""
    (problems, _, n), m = sides[0].shape, sides[1].shape[-1]
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    student_PZC = sides[0].new_empty(problems, n + m, n, dtype=sums)
    teacher_PCC = sides[0].new_empty(problems, m, m, dtype=sums)
    for some, rows in _tiles(sides):
        unit_PRZ = _units(sides, inverse_PNS, dtype, some, rows)
        add = torch.Tensor.copy_ if rows.start == 0 else torch.Tensor.add_
        add(student_PZC[some], _product(unit_PRZ.mT, unit_PRZ[..., :n]))
        add(teacher_PCC[some], _product(unit_PRZ[..., n:].mT, unit_PRZ[..., n:]))
    return student_PZC, teacher_PCC


def _whole(student_PZC: Tensor, teacher_PCC: Tensor) -> Tensor:
    """The symmetric G, (P, Z, Z), from what :func:`_gram` returns."""
    n = student_PZC.shape[-1]
    return torch.cat([student_PZC, torch.cat([student_PZC[:, n:].mT, teacher_PCC], 1)], 2)


def _restore_traces(student_PZC: Tensor, teacher_PCC: Tensor, inverse_PNS: Tensor) -> None:
    """Scales each side so that the trace of its block of G is the number of its tokens, in place.

    Tokens that are alike are rounded alike, so the error of their norms doesn't average out.
    """
    n = student_PZC.shape[-1]
    traces_PS = student_PZC.new_empty(len(student_PZC), 2)
    for side, block_PCC in enumerate((student_PZC[:, :n], teacher_PCC)):
        torch.sum(block_PCC.diagonal(dim1=1, dim2=2), 1, out=traces_PS[:, side])
    ratio_PS = inverse_PNS.count_nonzero(1) / traces_PS.clamp_min_(1e-3)
    student_PZC[:, :n].mul_(ratio_PS[:, :1, None])
    student_PZC[:, n:].mul_(ratio_PS.prod(1).sqrt_()[:, None, None])
    teacher_PCC.mul_(ratio_PS[:, 1:, None])


def _own_product(unit_PNC: Tensor) -> Tensor:
    """The map of unit tokens; of rounded ones with the trace restored, see :func:`_restore_traces`."""
    map_PNN = _product(unit_PNC, unit_PNC.mT)
    if unit_PNC.dtype == torch.float16:
        diagonal_PN = map_PNN.diagonal(dim1=1, dim2=2)
        map_PNN.mul_((diagonal_PN.round().sum(-1) / diagonal_PN.sum(-1).clamp_min(1e-3))[:, None, None])
    return map_PNN


def _inverse_norms(sides: Sides, dtype: torch.dtype) -> Tensor:
    """Those of both sides' tokens, (P, N, S), as :func:`isometry.functional._gap.inverse_norm` has them."""
    norm_PNS = sides[0].new_empty(*sides[0].shape[:2], 2, dtype=torch.float64)
    for side, tokens in enumerate(sides):
        torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float64, out=norm_PNS[..., side])
    return inverse(norm_PNS, torch.float64 if dtype == torch.float64 else torch.float32)


def _unit(tokens: Tensor, inverse_norm: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.mul(tokens, inverse_norm, out=tokens.new_empty(tokens.shape, dtype=dtype))


def _units(sides: Sides, inverse_PNS: Tensor, dtype: torch.dtype, some: slice, rows: slice) -> Tensor:
    """Unit tokens of both sides beside each other, (P, R, Z)."""
    n, width = sides[0].shape[-1], sides[0].shape[-1] + sides[1].shape[-1]
    unit_PRZ = sides[0].new_empty(*sides[0][some, rows].shape[:2], width, dtype=dtype)
    for side, own in enumerate((slice(None, n), slice(n, None))):
        torch.mul(sides[side][some, rows], inverse_PNS[some, rows, side, None], out=unit_PRZ[..., own])
    return unit_PRZ


def _tangent(slope: Tensor, tokens: Tensor, inverse_norm: Tensor) -> Tensor:
    """slope − unit (unit · slope), in place."""
    unit = tokens * inverse_norm
    radial = torch.linalg.vecdot(slope, unit)[..., None]
    return slope.addcmul_(unit, radial, value=-1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, of float16 numbers with sums in float32."""
    if a.dtype != torch.float16:
        return torch.bmm(a, b)
    if a.device.type == "cuda":
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


def _problems(numbers: int, problems: int) -> Iterator[slice]:
    """Slices of problems that have so many numbers each."""
    some = max(1, _TILE // max(1, numbers))
    for problem in range(0, problems, some):
        yield slice(problem, problem + some)


def _tiles(sides: Sides) -> Iterator[tuple[slice, slice]]:
    """Slices of problems and of tokens that cover them all."""
    problems, n_tokens, n_student = sides[0].shape
    rows = max(1, min(n_tokens, _TILE // max(1, n_student + sides[1].shape[-1])))
    for some in _problems(rows * (n_student + sides[1].shape[-1]), problems):
        # Without any tokens the sums are over an empty tile.
        for row in range(0, max(1, n_tokens), rows):
            yield some, slice(row, row + rows)
