"""Export of a network to ONNX, and ONNX Runtime sessions. Needs the ``onnx`` extra."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.models.cost import Forward

PROBE = Path(__file__).with_name("onnx_memory.py")
"""Script that measures memory in its own process."""


@torch.no_grad()
def to_onnx(network: nn.Module, images: Tensor, path: Path, outputs: Sequence[str] = ("logits",)) -> None:
    """Exports ``network`` to ``path`` with torch.onnx (dynamo), for batches of any size.

    Args:
        network: in eval mode, on the CPU.
        images: (B, C, H, W) with B > 1, an example; from a batch of one the exporter could not infer what depends on B.
        path: of the ``.onnx`` file; weights are written beside it, to ``.onnx.data``.
        outputs: names of what the network returns.

    Raises:
        UserError: the ``onnx`` extra is not installed.
        Exception: whatever the exporter raises for a network that it does not support.
    """
    library("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=list(outputs),
            verbose=False,
        )


def onnx_run(path: Path, threads: int) -> Forward:
    """An ONNX Runtime session on a file of :func:`to_onnx`, on ``threads`` CPU threads: images -> logits.

    Raises UserError if the ``onnx`` extra is not installed.
    """
    run = onnx_run_all(path, threads)
    return lambda images: run(images)[0]


def onnx_run_all(path: Path, threads: int) -> Callable[[Tensor], list[Tensor]]:
    """As :func:`onnx_run`, of a network with several outputs: images -> all of them, in the file's order."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would slow down the other network of an interleaved measurement.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: images.numpy()})]

    return run


def onnx_bytes(path: Path, images: Tensor, threads: int) -> int | None:
    """Bytes of memory that ONNX Runtime takes to load a file and run one forward pass, measured in a new process.

    Resident memory, including weights and the session, excluding the library. None if the system has no /proc or the
    process failed. Of the images only the shape is used.
    """
    # -P: the script's folder must not be on sys.path, because onnx.py there would shadow the onnx package.
    command = [sys.executable, "-P", str(PROBE), str(path), str(threads), *map(str, images.shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def library(name: str) -> Any:
    """A module of the ``onnx`` extra; raises UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed: pip install 'isometry[onnx]'") from error
