"""The gap where a launch costs more than the arithmetic: all problems in a few large operations.

The equations are those of ``_gap.py``. Precision comes from the type of the unit tokens instead of from splitting them:
float64 for ``highest``, and for ``high`` float16 with float32 sums, which keeps as many bits as TF32 at half the
traffic. Unit tokens are at most 1, and the factors of the gradient's products are scaled to at most 1, so float16 does
not overflow.

Unit tokens that are alike have small gradients, in which their rounding would show. So what is rounded is r = û + o, o
being minus the mean of a few of them, and with R = Σ r − oN/2 the products become

    ÛᵀÛ = rᵀr − oRᵀ − Roᵀ,        ÛF = rF − 1(oF),        DÛ = Dr − (D1)o.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from isometry.functional._gap import Sides, all_reduce, inverse, result_dtype
from isometry.functional._precision import full_precision

# Tokens whose mean is taken off.
_SAMPLE = 32
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
                    _own_product(_units((sides[i],), inverse_PNS[..., i : i + 1], dtype, None, some))
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
                own, own_inverse_PN1 = (sides[i],), inverse_PNS[..., i : i + 1]
                offset_P1C = _offset(own, own_inverse_PN1, ctx.dtype)
                scale_P11 = (4 if i == 0 else -4) * grad_P[:, None, None]
                for some in _problems(n_tokens * (n_tokens + 2 * sides[i].shape[-1]), problems):
                    map_PNN = difference_PNN[some].to(ctx.dtype)
                    unit_PNC = _units(own, own_inverse_PN1, ctx.dtype, offset_P1C, some)
                    slope_PNC = _product(map_PNN, unit_PNC)
                    if offset_P1C is not None:
                        rows_PN1 = map_PNN.sum(-1, keepdim=True, dtype=torch.float32)
                        slope_PNC.addcmul_(rows_PN1, offset_P1C[some], value=-1)
                    tangent = _tangent(slope_PNC, sides[i][some], own_inverse_PN1[some])
                    torch.mul(tangent, own_inverse_PN1[some] * scale_P11[some], out=grad_PNC[some])
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
            offset_P1Z = _offset(sides, inverse_PNS, dtype)
            student_PZC, teacher_PCC, unit_PNZ = _gram(sides, inverse_PNS, dtype, offset_P1Z)
            if group is not None:
                gram_PZZ = all_reduce(_whole(student_PZC, teacher_PCC).double(), group)
                student_PZC, teacher_PCC = gram_PZZ[..., :n], gram_PZZ[:, n:, n:]
            blocks = student_PZC[:, :n], teacher_PCC, student_PZC[:, n:]
            squares_3P = student_PZC.new_empty(3, len(student_PZC), dtype=torch.float64)
            for block_PCC, out_P in zip(blocks, squares_3P, strict=True):
                torch.linalg.vector_norm(block_PCC, dim=(1, 2), dtype=torch.float64, out=out_P)
            student_P, teacher_P, both_P = squares_3P.square_()
            gap_P = student_P.add_(teacher_P).sub_(both_P, alpha=2).clamp_min_(0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*sides, student_PZC, teacher_PCC, inverse_PNS, offset_P1Z, unit_PNZ)
        ctx.dtype, ctx.ranks = dtype, 1 if group is None else group.size()
        return gap_P.to(result_dtype(*sides))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PNC, teacher_PNC, student_PZC, teacher_PCC, inverse_PNS, offset_P1Z, unit_PNZ = (
            ctx.saved_tensors
        )
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
                factor_PZC = slope_PZC.div_(largest_P11)
                offset_P1C = None if offset_P1Z is None else torch.bmm(offset_P1Z, factor_PZC)
                factor_PZC = factor_PZC.to(ctx.dtype)
                scale_P11 = grad_P[:, None, None] * largest_P11
                for some, rows in _tiles(sides):
                    unit_PRZ = unit_PNZ
                    if unit_PRZ is None:
                        unit_PRZ = _units(sides, inverse_PNS, ctx.dtype, offset_P1Z, some, rows)
                    slope_PRC = _product(unit_PRZ, factor_PZC[some])
                    if offset_P1C is not None:
                        slope_PRC.sub_(offset_P1C[some])
                    inverse_PR1 = inverse_PNS[some, rows, i, None]
                    tangent = _tangent(slope_PRC, sides[i][some, rows], inverse_PR1)
                    torch.mul(tangent, inverse_PR1 * scale_P11[some], out=grad_PNC[some, rows])
        return grads.get(0), grads.get(1), None, None


def _gram(
    sides: Sides, inverse_PNS: Tensor, dtype: torch.dtype, offset_P1Z: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The student's columns of G = ZᵀZ, (P, Z, Cs), the teacher's block, (P, Ct, Ct), and what was rounded.

    That is a quarter of the size of float64, so it is kept for the gradient if it is one tile.
    """
    (problems, n_tokens, n), m = sides[0].shape, sides[1].shape[-1]
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    student_PZC = sides[0].new_empty(problems, n + m, n, dtype=sums)
    teacher_PCC = sides[0].new_empty(problems, m, m, dtype=sums)
    rest_P1Z = sides[0].new_empty(problems, 1, n + m, dtype=sums)
    for some, rows in _tiles(sides):
        unit_PRZ = _units(sides, inverse_PNS, dtype, offset_P1Z, some, rows)
        add = torch.Tensor.copy_ if rows.start == 0 else torch.Tensor.add_
        add(student_PZC[some], _product(unit_PRZ.mT, unit_PRZ[..., :n]))
        add(teacher_PCC[some], _product(unit_PRZ[..., n:].mT, unit_PRZ[..., n:]))
        if offset_P1Z is not None:
            add(rest_P1Z[some], unit_PRZ.sum(1, keepdim=True, dtype=sums))
    if offset_P1Z is not None:
        rest_P1Z.sub_(offset_P1Z, alpha=n_tokens / 2)
        both_P2Z, turned_P2Z = torch.cat([offset_P1Z, rest_P1Z], 1), torch.cat([rest_P1Z, offset_P1Z], 1)
        student_PZC.baddbmm_(both_P2Z.mT, turned_P2Z[..., :n], alpha=-1)
        teacher_PCC.baddbmm_(both_P2Z[..., n:].mT, turned_P2Z[..., n:], alpha=-1)
    whole = offset_P1Z is not None and unit_PRZ.shape[:2] == inverse_PNS.shape[:2]
    return student_PZC, teacher_PCC, unit_PRZ if whole else None


def _whole(student_PZC: Tensor, teacher_PCC: Tensor) -> Tensor:
    """The symmetric G, (P, Z, Z), from what :func:`_gram` returns."""
    n = student_PZC.shape[-1]
    return torch.cat([student_PZC, torch.cat([student_PZC[:, n:].mT, teacher_PCC], 1)], 2)


def _own_product(unit_PNC: Tensor) -> Tensor:
    """The map of unit tokens; of rounded ones scaled so that its trace is the number of those that are not zero.

    Tokens that are alike are rounded alike, so the error of their norms doesn't average out.
    """
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


def _offset(sides: Sequence[Tensor], inverse_PNS: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Minus the mean of some unit tokens of all sides, beside each other, (P, 1, Z); None where nothing is rounded."""
    if dtype != torch.float16:
        return None
    step = max(1, inverse_PNS.shape[1] // _SAMPLE)
    units = _units([tokens[:, ::step] for tokens in sides], -inverse_PNS[:, ::step], torch.float32, None)
    return units.mean(1, keepdim=True)


def _units(
    sides: Sequence[Tensor],
    inverse_PNS: Tensor,
    dtype: torch.dtype,
    offset_P1Z: Tensor | None,
    some: slice = slice(None),
    rows: slice = slice(None),
) -> Tensor:
    """Unit tokens of all sides beside each other, plus their offset if it is given, (P, R, Z)."""
    widths = [tokens.shape[-1] for tokens in sides]
    unit_PRZ = sides[0].new_empty(*sides[0][some, rows].shape[:2], sum(widths), dtype=dtype)
    for side, own_PRC in enumerate(unit_PRZ.split(widths, 2)):
        tokens_PRC, inverse_PR1 = sides[side][some, rows], inverse_PNS[some, rows, side, None]
        if offset_P1Z is None:
            torch.mul(tokens_PRC, inverse_PR1, out=own_PRC)
        else:
            offset_P1C = offset_P1Z[some].split(widths, 2)[side]
            torch.addcmul(offset_P1C, tokens_PRC, inverse_PR1, out=own_PRC)
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
