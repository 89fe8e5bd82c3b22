"""A network as a file of ONNX, and ONNX Runtime to run it. Needs the ``onnx`` extra."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.models.cost import Forward

PROBE = Path(__file__).with_name("onnx_memory.py")
"""What measures memory, as a program of its own."""


@torch.no_grad()
def to_onnx(network: nn.Module, images: Tensor, path: Path) -> None:
    """Writes ``network`` to ``path`` by torch.onnx's exporter of torch.export's graphs, for batches of any size.

    Args:
        network: in eval mode, on the CPU.
        images: (B, C, H, W) with B > 1, an example: of a batch of one the exporter could not tell what depends on B.
        path: of the ``.onnx`` file; weights lie beside it, in ``.onnx.data``.

    Raises:
        UserError: the ``onnx`` extra is not installed.
        Exception: whatever the exporter raises for a network that it can not take.
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
            output_names=["logits"],
            verbose=False,
        )


def onnx_run(path: Path, threads: int) -> Forward:
    """ONNX Runtime on a file of :func:`to_onnx`: images on the CPU -> logits, by ``threads`` threads on the CPU.

    Raises:
        UserError: the ``onnx`` extra is not installed.
    """
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for the next call by turning in circles would slow down whoever has the turn now.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return run


def onnx_bytes(path: Path, images: Tensor, threads: int) -> int | None:
    """Bytes by which a process of its own grows that opens a file in ONNX Runtime and makes a pass of it.

    Resident memory, weights and the runtime's own book-keeping included, its library not. None where the system does
    not say (no /proc), or the process failed.

    Args:
        path: of the ``.onnx`` file.
        images: (B, C, H, W), of which the shape alone is used.
        threads: that compute.
    """
    # Its own folder is no place to import from: names of this package's modules are names of Python's too.
    words = [sys.executable, "-P", str(PROBE), str(path), str(threads), *map(str, images.shape)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def library(name: str) -> Any:
    """A module of the ``onnx`` extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed: pip install 'isometry[onnx]'") from error
