"""What gates save of an image's multiply-accumulates, image by image, and which channels each image used.

Shape suffixes: B or N images, C channels in, D channels out, L layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isometry.models.cost import macs
from isometry.prune.cutting import inner_convs
from isometry.prune.gates import GatedConv, gated_convs, take_gate_outputs


@dataclass(frozen=True)
class ChannelUse:
    """How much of a gated network each of N images used.

    Attributes:
        layers: names of the gated convolutions.
        kept: (N, L), channels on, int64.
        channels: (L,), channels that there are.
        macs: (N,), multiply-accumulates of an image where channels that are off are not computed, gates included.
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
    """Counts what each image keeps, and what that costs.

    A gated convolution costs k² · (channels on of its input) · (channels on of its output) · (pixels out); its input
    counts as whole where it is a block's, or where something between two convolutions looks across channels. All else
    counts as in the network without gates, and the gates' own linear layers are added.

    Args:
        network: with gates, in eval mode.
        batches: normalised images (B, C, H, W).
        input_size: (C, H, W).

    Raises:
        ValueError: the network trains, or has no gates.
    """
    convs = gated_convs(network)
    if network.training or not convs:
        raise ValueError("channel use is counted in a network with gates, in eval mode")
    found = []
    for batch in batches:
        network(batch)
        found.append(channels_on(network).cpu())
    kept_NL = torch.cat(found) if found else torch.zeros(0, len(convs), dtype=torch.int64)
    return use_of(network, kept_NL, input_size)


def channels_on(network: nn.Module) -> Tensor:
    """How many channels of each gated convolution each image of the forward pass just done has on: (B, L), int64."""
    convs = list(gated_convs(network).values())
    glances = zip(convs, take_gate_outputs(convs), strict=True)
    return torch.stack(
        [conv.gate.kept(glance.saliency).sum(1) * conv.group for conv, glance in glances], dim=1
    )


@torch.no_grad()
def use_of(network: nn.Module, kept_NL: Tensor, input_size: tuple[int, int, int]) -> ChannelUse:
    """What images cost that have as many channels on, (N, L) of :func:`channels_on`; all on the CPU."""
    convs = gated_convs(network)
    channels_L = torch.tensor([conv.conv.out_channels for conv in convs.values()])
    return ChannelUse(list(convs), kept_NL, channels_L, _macs(network, convs, kept_NL, input_size))


def _macs(
    network: nn.Module, convs: dict[str, GatedConv], kept_NL: Tensor, input_size: tuple[int, int, int]
) -> Tensor:
    everything = macs(network, input_size)
    pixels = _pixels(network, convs, input_size)
    place = {id(conv): at for at, conv in enumerate(convs.values())}
    feeds = {id(inner.reader): id(inner.conv) for inner in inner_convs(network).values()}
    whole, spent_N = 0, torch.zeros(len(kept_NL), dtype=torch.int64)
    for name, conv in convs.items():
        taps = conv.conv.kernel_size[0] * conv.conv.kernel_size[1] * pixels[name]
        whole += taps * conv.conv.in_channels * conv.conv.out_channels
        source = feeds.get(id(conv))
        inputs_N = conv.conv.in_channels if source is None else kept_NL[:, place[source]]
        spent_N += taps * inputs_N * kept_NL[:, place[id(conv)]]
    return everything - whole + spent_N


def _pixels(
    network: nn.Module, convs: dict[str, GatedConv], input_size: tuple[int, int, int]
) -> dict[str, int]:
    """Pixels of each gated convolution's output, for one image."""
    found: dict[str, int] = {}

    def note(name: str) -> torch.utils.hooks.RemovableHandle:
        return convs[name].conv.register_forward_hook(
            lambda module, given, output: found.__setitem__(name, output.shape[2] * output.shape[3])
        )

    handles = [note(name) for name in convs]
    parameter = next(network.parameters())
    network(torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype))
    for handle in handles:
        handle.remove()
    take_gate_outputs(list(convs.values()))
    return found
