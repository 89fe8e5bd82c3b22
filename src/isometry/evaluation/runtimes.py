"""Runtimes of a finished network: eager, torch.compile, ONNX Runtime."""

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isometry.errors import UserError, reason
from isometry.evaluation.memory import pass_bytes, weight_bytes
from isometry.models.cost import Forward
from isometry.models.onnx import onnx_bytes, onnx_run, to_onnx
from isometry.prune.onnx_skipping import skipping_to_onnx
from isometry.prune.skipping import SkippingNetwork

EAGER, COMPILED, ONNX = "eager", "compiled", "onnx"
"""PyTorch eager; torch.compile; ONNX Runtime on the CPU."""


class Session(NamedTuple):
    """A network that is ready to run."""

    run: Forward
    peak_bytes: Callable[[Tensor], int | None]
    """Images (B, C, H, W) -> bytes of the weights plus the peak of a forward pass; None if unknown."""


def prepare(runtime: str, network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Session:
    """``network`` in a runtime, warmed up on each batch.

    The network is in eval mode, on the batches' device; there is a batch (B, C, H, W) of each batch size to be
    measured. ``scratch`` is a temporary folder.

    Raises:
        UserError: the runtime does not support the network.
    """
    try:
        made = RUNTIMES[runtime](network, batches, scratch)
        with torch.no_grad():
            for batch in batches:
                made.run(batch)
    except UserError:
        raise
    except Exception as error:
        # Compilers and exporters share no base class for unsupported networks.
        raise UserError(reason(error)) from error
    return made


def _eager(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Session:
    return Session(network, lambda images: weight_bytes(network) + pass_bytes(network, images))


def _compiled(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Session:
    def forward(images: Tensor) -> Tensor:
        return network(images)

    # Dynamo caches graphs by code object, up to a limit, and checks their guards in turn: a code object of its own
    # keeps networks from sharing that limit and those checks.
    own = types.FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
    # Graph breaks are refused: the code between the graphs would be timed as if it were compiled.
    run = torch.compile(own, fullgraph=True)
    return Session(run, lambda images: weight_bytes(network) + pass_bytes(run, images))


def _onnx(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Session:
    if batches[0].device.type != "cpu":
        raise UserError("ONNX Runtime is measured only on the CPU; give --device cpu")
    path, threads = scratch / "network.onnx", torch.get_num_threads()
    if isinstance(network, SkippingNetwork):
        skipping_to_onnx(network, batches[0][0], path)
    else:
        to_onnx(network, torch.cat([batches[0], batches[0]])[:2], path)
    return Session(onnx_run(path, threads), lambda images: onnx_bytes(path, images, threads))


RUNTIMES: dict[str, Callable[[nn.Module, Sequence[Tensor], Path], Session]] = {
    EAGER: _eager,
    COMPILED: _compiled,
    ONNX: _onnx,
}
"""By name, in display order."""
