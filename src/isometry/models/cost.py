"""Parameters and multiply-accumulates of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Forward = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> network outputs (B, ...)."""


def parameter_count(model: nn.Module) -> int:
    """Parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image: half of the FLOPs that torch counts in matrix products.

    Counted on the meta device where the architecture allows it, with the same result; ``input_size`` is (C, H, W). The
    model may be there if its forward does not depend on values.
    """
    return macs_and_answer(model, input_size)[0]


def macs_and_answer(model: nn.Module, input_size: tuple[int, int, int]) -> tuple[int, Any]:
    """:func:`macs`, and the model's answer to the image, of which the shape alone means anything."""
    was_training = model.training
    model.eval()
    try:
        return _count(model, input_size, torch.device("meta"))
    except (RuntimeError, TypeError):
        # A forward that depends on values, or that creates tensors on a fixed device, needs real tensors.
        return _count(model, input_size, next(model.parameters()).device)
    finally:
        model.train(was_training)


@torch.no_grad()
def _count(model: nn.Module, input_size: tuple[int, int, int], device: torch.device) -> tuple[int, Any]:
    # Detached: the counter follows modules through graph hooks, and fails on parameters without a graph.
    state = {
        name: torch.empty_like(tensor, device=device) if device.type == "meta" else tensor.detach()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    image = torch.zeros(1, *input_size, device=device, dtype=next(model.parameters()).dtype)
    # The math backend, because FlopCounterMode counts the CPU's fused attention as 0.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        answer = functional_call(model, state, (image,))
    return counter.get_total_flops() // 2, answer
