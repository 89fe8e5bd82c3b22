"""Detectors and segmentation networks as ONNX files: what they answer before threshold and NMS. Needs the ``onnx``
extra."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isometry.data.dense.annotations import Task
from isometry.models.dense.network import DenseNetwork
from isometry.models.onnx import to_onnx

OUTPUTS: dict[Task, tuple[str, ...]] = {"detect": ("boxes", "scores"), "segment": ("logits",)}
"""Names of the outputs, in the order of ``raw``."""


class Raw(nn.Module):
    """A network whose answer is ``raw`` of a detector or segmentation network."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images_BCHW: Tensor) -> Any:
        """``boxes`` (B, A, 4) and ``scores`` (B, A, K), or ``logits`` (B, K, H, W)."""
        return self.network.raw(images_BCHW)


def dense_to_onnx(network: DenseNetwork, images: Tensor, path: Path) -> None:
    """Exports ``network`` to ``path`` for batches of any size, with the outputs :data:`OUTPUTS`.

    Args and errors as in :func:`isometry.models.onnx.to_onnx`.
    """
    to_onnx(Raw(network), images, path, OUTPUTS[network.task])
