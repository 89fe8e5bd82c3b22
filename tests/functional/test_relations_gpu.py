"""The GPU's operations on tensors without content: shapes and types that a GPU would refuse are refused here."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from isometry.functional import _batched_gap
from isometry.functional._batched_gap import BatchedChannelGap, BatchedTokenGap


class Context(SimpleNamespace):
    """What autograd gives to a function; its engine needs a GPU."""

    needs_input_grad = (True, True, False, False)

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


@pytest.mark.parametrize("tile", [2**28, 2**16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("tokens", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("gap", "more"), [(BatchedTokenGap, ()), (BatchedChannelGap, (None,))])
def test_shapes_and_types_fit_on_a_gpu(
    gap: Any, more: Any, tokens: torch.dtype, dtype: torch.dtype, tile: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_batched_gap, "_TILE", tile)
    context = Context()
    with FakeTensorMode():
        sides = [torch.empty(8, 392, width, device="cuda", dtype=tokens) for width in (192, 384)]
        value = gap.forward(context, *sides, dtype, *more)
        assert (value.shape, value.dtype, value.device.type) == ((8,), torch.float32, "cuda")
        grads = gap.backward(context, torch.empty(8, device="cuda"))
        for side, grad in zip(sides, grads[:2], strict=True):
            assert (grad.shape, grad.dtype, grad.device.type) == (side.shape, tokens, "cuda")
