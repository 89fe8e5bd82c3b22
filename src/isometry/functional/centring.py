"""Tokens without their mean, over all processes where they are spread.

Shape suffixes: N tokens, C channels.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from isometry.functional._gap import result_dtype


def centred(tokens: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Tokens (..., N, C) minus their mean over N; float64 for float64 tokens, float32 otherwise.

    What all tokens share, such as a constant channel, is gone from the cosines between them then. With ``group`` the
    mean is that of the tokens of all processes, equally many in each; every process must call, and the gradient is
    exact.
    """
    tokens = tokens.to(result_dtype(tokens))
    mean = tokens.mean(-2, keepdim=True)
    return tokens - (mean if group is None else _Total.apply(mean, group) / group.size())


class _Total(torch.autograd.Function):
    """A sum over processes whose gradient is the sum of theirs, as each does something else with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _summed(value, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.group), None


def _summed(value: Tensor, group: ProcessGroup) -> Tensor:
    total = value.clone().contiguous()
    dist.all_reduce(total, group=group)
    return total
