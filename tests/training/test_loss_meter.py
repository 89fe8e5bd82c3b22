"""Whether all weights are finite, in few launches and with one wait for the device."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from isometry.training.loss_meter import all_finite

WAITS = "aten._local_scalar_dense"


class Calls(TorchDispatchMode):
    """The operators that are called inside the block, but for `detach`, which launches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket is not torch.ops.aten.detach:
            self.names.append(str(function.overloadpacket))
        return function(*args, **(kwargs or {}))


def deep() -> nn.Module:
    """Two hundred tensors, statistics of norms among them."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(34)))


def mixed(value: float) -> nn.Module:
    """Tensors of several types and of no elements, and a value among them."""
    module = deep().append(nn.Linear(2, 2, dtype=torch.bfloat16))
    module.register_buffer("none", torch.empty(0))
    module.register_buffer("large", torch.tensor([3e38, -3e38] * 9))
    module.register_buffer("precise", torch.tensor([1e300, value], dtype=torch.float64))
    return module


def test_large_weights_of_any_type_are_finite() -> None:
    assert all_finite(mixed(-1e307))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_weight_that_is_not_finite_is_found(value: float) -> None:
    assert not all_finite(mixed(value))
    for number in (0, 100, -1):
        module = deep()
        tensors = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
        tensors[number].view(-1)[-1] = value
        assert not all_finite(module)


def test_a_module_without_weights_is_finite() -> None:
    assert all_finite(nn.ReLU())


def test_it_takes_few_launches_and_one_wait() -> None:
    module = deep()
    with Calls() as calls:
        all_finite(module)
    assert calls.names.count(WAITS) == 1
    assert len(calls.names) <= 10
