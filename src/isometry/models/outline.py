"""Networks without memory, built first to compare their size with a file of weights.

A damaged ``config.json`` may ask for a million blocks: this is seen before they are built.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from isometry.errors import UserError

SLACK = 4
"""How many times the weights of its file a network may have: its classifier is of another size at first, or was
removed, and a network is built twice to see whether timm can."""
SLACK_OF_PRUNED = 100
"""The same of a pruned network, whose file lacks the channels that were cut."""
SMALL_COUNT, SMALL_SIZE = 1000, 2**26
"""Tensors, and numbers in them (256 MiB of float32), that any network may have."""

Shapes = dict[str, tuple[int, ...]]


class TooLargeError(UserError):
    """A network has far more weights than its file."""


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    """Shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def shapes_in(path: Path) -> Shapes:
    """Shapes of the tensors of a safetensors file, from its header; none where that can't be read."""
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception:
        # Whoever reads the weights says what is wrong with the file.
        return {}


def outline(build: Callable[[], nn.Module], weights: Shapes, slack: int = SLACK) -> Shapes | None:
    """Shapes of the network that ``build`` returns, built without memory on PyTorch's meta device.

    Args:
        build: makes the network.
        weights: of its file.
        slack: how many times these weights the network may have.

    Returns:
        None for a network that can't be built so: the build itself, with memory, says why.

    Raises:
        TooLargeError: the network has far more weights than the file; it is not built to its end.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _limited(weights, slack):
            return shapes_of(build().state_dict())
    except TooLargeError:
        raise
    except Exception:
        # Constructors may raise anything.
        return None


def misfit(network: Shapes, weights: Shapes) -> str | None:
    """The first tensor whose shape in a network is not that in its file, as text."""
    for name, shape in network.items():
        if weights.get(name, shape) != shape:
            return f"{name} is {_times(weights[name])} in the file, and {_times(shape)} in the network"
    return None


@contextmanager
def _limited(weights: Shapes, slack: int) -> Iterator[None]:
    most_tensors = SMALL_COUNT + slack * len(weights)
    most_numbers = SMALL_SIZE + slack * sum(map(_count, weights.values()))
    tensors = numbers = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, numbers
        # Another thread may build a network meanwhile.
        if parameter is None or not parameter.is_meta:
            return
        tensors, numbers = tensors + 1, numbers + parameter.numel()
        if tensors > most_tensors or numbers > most_numbers:
            raise TooLargeError(
                f"its sizes are far larger than those of the weights, which have {len(weights)} tensors"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"
