"""Multiply-accumulates and channels that each image uses of a gated network.

Shape suffixes: B or N images, C channels in, D channels out, L layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isometry.models.cost import macs
from isometry.prune.cutting import cuttable_convs
from isometry.prune.gates import GatedConv, gated_convs, take_gate_outputs


@dataclass(frozen=True)
class ChannelUse:
    """Use of a gated network, whose gated convolutions are ``layers``, by each of N images.

    ``kept`` (N, L) of ``channels`` (L,) are on, int64; ``macs`` (N,): multiply-accumulates of an image without the
    channels that are off, gates included.
    """

    layers: list[str]
    kept: Tensor
    channels: Tensor
    macs: Tensor

    @property
    def shares(self) -> Tensor:
        """(N, L), kept over all channels, float32."""
        return self.kept / self.channels


@torch.no_grad()
def channel_use(
    network: nn.Module, batches: Iterable[Tensor], input_size: tuple[int, int, int]
) -> ChannelUse:
    """Counts the channels that each image keeps, and their multiply-accumulates.

    A gated convolution costs k² · (input channels that are on) · (output channels that are on) · (output pixels); all
    input channels count where the input is a block's, or where layers between two convolutions mix channels. All other
    layers count as in the network without gates, and the gates' own linear layers are added.

    The batches are normalised images (B, C, H, W). Raises ValueError unless the network has gates and is in eval mode.
    """
    convs = gated_convs(network)
    if network.training or not convs:
        raise ValueError("channel use needs a network with gates, in eval mode")
    found = []
    for batch in batches:
        network(batch)
        found.append(channels_on(network).cpu())
    kept_NL = torch.cat(found) if found else torch.zeros(0, len(convs), dtype=torch.int64)
    return use_of(network, kept_NL, input_size)


def channels_on(network: nn.Module) -> Tensor:
    """Channels that are on for each image of the last forward pass, by gated convolution: (B, L), int64."""
    convs = list(gated_convs(network).values())
    outputs = zip(convs, take_gate_outputs(convs), strict=True)
    return torch.stack(
        [conv.gate.kept(output.saliency).sum(1) * conv.group for conv, output in outputs], dim=1
    )


@torch.no_grad()
def use_of(network: nn.Module, kept_NL: Tensor, input_size: tuple[int, int, int]) -> ChannelUse:
    """Use by images that have ``kept_NL`` channels on (see :func:`channels_on`); all on the CPU."""
    gated = gated_convs(network)
    convs = list(gated.values())
    place = {id(conv): at for at, conv in enumerate(convs)}
    feeds = {id(found.reader): id(found.conv) for found in cuttable_convs(network).values()}
    macs_N = torch.full((len(kept_NL),), macs(network, input_size))
    for at, (conv, pixels) in enumerate(zip(convs, _pixels(network, convs, input_size), strict=True)):
        taps = conv.conv.kernel_size[0] * conv.conv.kernel_size[1] * pixels
        source = feeds.get(id(conv))
        inputs_N = conv.conv.in_channels if source is None else kept_NL[:, place[source]]
        macs_N += taps * (inputs_N * kept_NL[:, at] - conv.conv.in_channels * conv.conv.out_channels)
    channels_L = torch.tensor([conv.conv.out_channels for conv in convs])
    return ChannelUse(list(gated), kept_NL, channels_L, macs_N)


def _pixels(network: nn.Module, convs: list[GatedConv], input_size: tuple[int, int, int]) -> list[int]:
    """Output pixels of each gated convolution, for one image."""
    found: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[module] = output.shape[2:].numel()

    handles = [conv.conv.register_forward_hook(note) for conv in convs]
    parameter = next(network.parameters())
    network(torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype))
    for handle in handles:
        handle.remove()
    take_gate_outputs(convs)
    return [found[conv.conv] for conv in convs]
