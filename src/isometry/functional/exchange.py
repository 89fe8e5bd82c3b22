"""All-to-all exchange: from all patch positions of some images to some positions of all images.

Shape suffixes: B images, N patch positions, C channels; one process's share unless it says "all".
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup


def exchange_images_for_positions(tokens_BNC: Tensor, group: ProcessGroup) -> Tensor:
    """This process's share of the positions, of the images of all processes: (B, N, C) -> (N here, all B, C).

    (K, B, N, C) of several blocks -> (K, N here, all B, C): they travel together, as channels of one token.
    Differentiable; gradients return through the reverse exchange. Each process sends its tokens once, unlike an
    all-gather, which sends all tokens to all processes. Every process must call it, with equally many images.
    """
    if tokens_BNC.ndim == 3:
        return _Exchange.apply(tokens_BNC, group)
    *blocks, _, _, channels = tokens_BNC.shape
    together_BNC = tokens_BNC.permute(1, 2, 0, 3).flatten(2)
    return _Exchange.apply(together_BNC, group).unflatten(2, (*blocks, channels)).permute(2, 0, 1, 3)


def sum_over(value: Tensor, group: ProcessGroup) -> Tensor:
    """The sum of a tensor over processes; each process gets the gradient of the sum times the number of processes.

    DistributedDataParallel averages parameters' gradients over processes, which then gives the gradient of the sum.
    """
    return _Sum.apply(value, group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens_BNC: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group, ctx.images, ctx.positions = group, *tokens_BNC.shape[:2]
        n_images, n_positions, width = tokens_BNC.shape
        shares = _shares(n_positions, group)
        here, processes = shares[group.rank()], group.size()
        exchanged = tokens_BNC.new_empty(processes * here, n_images, width)
        dist.all_to_all_single(
            exchanged, tokens_BNC.transpose(0, 1).contiguous(), [here] * processes, shares, group=group
        )
        by_process = exchanged.view(processes, here, n_images, width)
        return by_process.transpose(0, 1).reshape(here, processes * n_images, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shares, processes = _shares(ctx.positions, ctx.group), ctx.group.size()
        here, width = len(grad), grad.shape[-1]
        by_process = grad.reshape(here, processes, ctx.images, width).transpose(0, 1)
        returned_NBC = grad.new_empty(ctx.positions, ctx.images, width)
        dist.all_to_all_single(
            returned_NBC,
            by_process.reshape(processes * here, ctx.images, width),
            shares,
            [here] * processes,
            group=ctx.group,
        )
        return returned_NBC.transpose(0, 1), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup) -> Tensor:
        ctx.processes = group.size()
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.processes, None


def _shares(positions: int, group: ProcessGroup) -> list[int]:
    """Positions of each process, split as evenly as possible."""
    whole, left = divmod(positions, group.size())
    return [whole + (rank < left) for rank in range(group.size())]
