"""Ways to run a finished network, as callables of one kind: eager, compiled by torch, ONNX Runtime."""

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.evaluation.memory import pass_bytes, weight_bytes
from isometry.models.cost import Forward
from isometry.models.onnx import onnx_bytes, onnx_run, to_onnx
from isometry.prune.onnx_skipping import skipping_to_onnx
from isometry.prune.skipping import SkippingNetwork

EAGER, COMPILED, ONNX = "eager", "compiled", "onnx"
"""torch as it is; torch.compile; ONNX Runtime on the CPU."""


class Ready(NamedTuple):
    """A network that is ready to run."""

    run: Forward
    peak_bytes: Callable[[Tensor], int | None]
    """Images (B, C, H, W) -> bytes of the weights and of the most that a pass holds beside them; None if unknown."""


def ready(runtime: str, network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Ready:
    """``network`` under a runtime, with a pass of each batch made.

    Args:
        runtime: a key of :data:`RUNTIMES`.
        network: in eval mode, on the batches' device.
        batches: (B, C, H, W), one of each size that it is to run on later.
        scratch: a folder of its own for files that are needed for as long as it runs.

    Raises:
        UserError: it can not run so; one line says why.
    """
    try:
        made = RUNTIMES[runtime](network, batches, scratch)
        with torch.no_grad():
            for batch in batches:
                made.run(batch)
    except UserError:
        raise
    except Exception as error:
        # Compilers and exporters share no base class for a network that they can not take.
        raise UserError(_in_one_line(error)) from error
    return made


def _eager(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Ready:
    return Ready(network, lambda images: weight_bytes(network) + pass_bytes(network, images))


def _compiled(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Ready:
    def forward(images: Tensor) -> Tensor:
        return network(images)

    # Graphs are kept by code object, up to so many, and asked one after another whether they fit: with a code object
    # of its own a network neither uses up another one's number nor waits for its graphs.
    own = types.FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
    # A network that only compiles in pieces is refused: what is between them would be timed as if it were compiled.
    run = torch.compile(own, fullgraph=True)
    return Ready(run, lambda images: weight_bytes(network) + pass_bytes(run, images))


def _onnx(network: nn.Module, batches: Sequence[Tensor], scratch: Path) -> Ready:
    if batches[0].device.type != "cpu":
        raise UserError("ONNX Runtime is measured on the CPU alone; give --device cpu")
    path, threads = scratch / "network.onnx", torch.get_num_threads()
    if isinstance(network, SkippingNetwork):
        skipping_to_onnx(network, batches[0][0], path)
    else:
        to_onnx(network, torch.cat([batches[0], batches[0]])[:2], path)
    return Ready(onnx_run(path, threads), lambda images: onnx_bytes(path, images, threads))


RUNTIMES: dict[str, Callable[[nn.Module, Sequence[Tensor], Path], Ready]] = {
    EAGER: _eager,
    COMPILED: _compiled,
    ONNX: _onnx,
}
"""By name, in the order in which they are shown."""


def _in_one_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:160]}" if words else type(error).__name__
