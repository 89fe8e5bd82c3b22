"""Gates on convolutions: the channels that an image needs, from the convolution's input.

Shape suffixes: B images, C channels in, D channels out, G gates (D over the size of a group), H and W.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.functional.gates import kept_gates

SQUEEZE = 4
"""Width of a gate's input over the width of its hidden layer."""


class GateOutput(NamedTuple):
    """Pooled input ``pooled`` (B, C) and ``saliency`` (B, G) of a gate in one forward pass, in the gate's dtype."""

    pooled: Tensor
    saliency: Tensor


class Gate(nn.Module):
    """Saliency of a convolution's output channels for an image: pool → linear → ReLU → linear → ReLU.

    π = ReLU(W₂ ReLU(W₁ mean_hw(x) + b₁) + b₂), computed in the dtype of the weights (float32), without autocast.
    Initially π = 1 for every image (W₂ = 0, b₂ = 1), so that adding gates to a network does not change its function.
    Channels whose π is below ``threshold``, a buffer that is initially 0, are off for that image (Tang et al.,
    CVPR 2021).

    Args:
        channels: C, channels of the convolution's input.
        gates: G, gates on its output.
    """

    threshold: Tensor

    def __init__(self, channels: int, gates: int) -> None:
        super().__init__()
        hidden = max(1, channels // SQUEEZE)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, gates)
        nn.init.zeros_(self.excite.weight)
        nn.init.ones_(self.excite.bias)
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, input_BCHW: Tensor) -> GateOutput:
        with torch.autocast(input_BCHW.device.type, enabled=False):
            pooled_BC = input_BCHW.mean((2, 3), dtype=self.squeeze.weight.dtype)
            saliency_BG = F.relu(self.excite(F.relu(self.squeeze(pooled_BC))))
        return GateOutput(pooled_BC, saliency_BG)

    def kept(self, saliency_BG: Tensor) -> Tensor:
        """The open gates (B, G), bool."""
        return kept_gates(saliency_BG, self.threshold)


class GatedConv(nn.Module):
    """A convolution and its norm with a gate on the output: ``π · kept · norm(conv(x))``, channel by channel.

    This is the form for training: every channel is computed, and those that are off are multiplied by 0.
    :mod:`isometry.prune.skipping` computes the kept channels only.

    Args:
        conv: the convolution, not grouped.
        norm: its batch norm.
        group: neighbouring channels that share a gate.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, group: int = 1) -> None:
        super().__init__()
        self.conv, self.norm, self.group = conv, norm, group
        self.gate = Gate(conv.in_channels, conv.out_channels // group).to(conv.weight.device)
        self.gate_output: GateOutput | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Part of a step's graph, which can't be copied.
        return {**self.__dict__, "gate_output": None}

    def forward(self, input_BCHW: Tensor) -> Tensor:
        self.gate_output = output = self.gate(input_BCHW)
        scale_BG = output.saliency * self.gate.kept(output.saliency)
        scale_BD = scale_BG.repeat_interleave(self.group, dim=1) if self.group > 1 else scale_BG
        output_BDHW = self.norm(self.conv(input_BCHW))
        return output_BDHW * scale_BD[:, :, None, None].to(output_BDHW.dtype)


def gated_convs(network: nn.Module) -> dict[str, GatedConv]:
    """The gated convolutions of a network by name, in the order of its modules."""
    return {name: module for name, module in network.named_modules() if isinstance(module, GatedConv)}


def take_gate_outputs(convs: Iterable[GatedConv]) -> list[GateOutput]:
    """The outputs of the last forward pass's gates; removed from the network, so that it does not keep the graph."""
    outputs = []
    for conv in convs:
        assert conv.gate_output is not None, "take_gate_outputs follows a forward pass"
        outputs.append(conv.gate_output)
        conv.gate_output = None
    return outputs
