"""Inference that computes only the channels that an image needs, in place of a gated network.

In a residual block the first convolution reads the whole input and computes its kept filters. Its output stays compact,
with the kept channels alone, through the activation. Later convolutions also skip the weights of missing inputs; the
channels of the last one are added to the shortcut.

Shape suffixes: B images, C channels, K channels kept, H and W.
"""

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isometry.errors import UserError
from isometry.prune.gates import GatedConv, gated_convs
from isometry.prune.sites import INACTIVE, ResidualBlock, Site, keeps_zeros, residual_blocks
from isometry.prune.skipping_conv import SkippingConv

SELECTION = 150
"""Cost of selecting and rearranging a convolution's weights for one image, in multiply-accumulates per weight."""

CALLS = 15e6
"""Cost of the calls for one image and convolution, in multiply-accumulates. Both were measured on one CPU thread."""


def skipping(network: nn.Module) -> "SkippingNetwork":
    """An inference-only copy of a gated network that computes, for each image, the channels that its gates keep.

    The outputs are those of the gated network in eval mode, up to rounding; a saliency that equals its threshold up to
    rounding may be kept or not, as in the gated network. Weights are copied and norms folded in once: convert again
    after further training.

    Args:
        network: a timm network with gates (:func:`isometry.prune.sites.add_gates`), float32; it is not changed.

    Returns:
        A module (B, 3, H, W) -> the output of the network, in eval mode and without gradients.

    Raises:
        UserError: the network has no gates, or not on all convolutions of a residual block.
    """
    if not gated_convs(network):
        raise UserError(f"skipping: {type(network).__name__} has no gates; add them with isometry prune")
    # deepcopy takes these in place of copies of the blocks.
    blocks = {
        id(network.get_submodule(name)): _converted(block)
        for name, block in residual_blocks(network).items()
        if any(isinstance(site.modules()[0], GatedConv) for site in block.sites)
    }
    copied = copy.deepcopy(network, dict(blocks))
    if left := list(gated_convs(copied)):
        raise UserError(
            f"skipping: {left[0]} has a gate and is in none of the residual blocks that can be pruned"
        )
    _fold_norms(copied)
    return SkippingNetwork(copied)


class SkippingNetwork(nn.Module):
    """The network that :func:`skipping` returns, with :class:`SkippingBlock` for its blocks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.network(images_BCHW.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> "SkippingNetwork":
        """Stays in eval mode; raises UserError if ``mode`` is true."""
        if mode:
            raise UserError(
                "skipping: this form is for inference; train the gated network and convert that again"
            )
        super().train(False)
        return self


class SkippingBlock(nn.Module):
    """A residual block ``act(shortcut(x) + branch(x))`` whose branch computes an image's kept channels only.

    Image by image where that was measured to be faster (:meth:`pays`); else the whole batch, with all channels
    computed and masked, and the norms folded in. ``afters`` are the layers after each of ``convs``.
    """

    def __init__(
        self, convs: list[SkippingConv], afters: list[nn.Module], shortcut: nn.Module | None, act: nn.Module
    ) -> None:
        super().__init__()
        self.convs, self.afters = nn.ModuleList(convs), nn.ModuleList(afters)
        self.shortcut, self.act = shortcut, act
        self.stays_compact = [keeps_zeros(after) for after in afters]
        self.widths = [conv.out_channels for conv in convs]
        self.weights = sum(conv.weight.numel() for conv in convs)
        self.reduction = math.prod(side for conv in convs for side in conv.stride)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        shortcut_BCHW = None if self.shortcut is None else self.shortcut(images_BCHW)
        if not self.pays(images_BCHW):
            return self._masked(images_BCHW, shortcut_BCHW)
        images = images_BCHW.split(1)
        shortcuts = [None] * len(images) if shortcut_BCHW is None else shortcut_BCHW.split(1)
        outputs = [self._skipped(image, beside) for image, beside in zip(images, shortcuts, strict=True)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def pays(self, images_BCHW: Tensor) -> bool:
        """Whether image by image is faster: it saves more than selecting weights and calling costs.

        A whole batch rearranges its weights once, so from the third image on each selection must be earned by the
        pixels that the weights are used for: a late block of large filters and few pixels (last stage of ResNet-34 at
        224 pixels) computes batches whole. With several threads batches are whole, because one image keeps the
        threads less busy.
        """
        if len(images_BCHW) > 2 and torch.get_num_threads() > 1:
            return False
        selection = SELECTION if len(images_BCHW) > 2 else 0
        pixels = images_BCHW.shape[2] * images_BCHW.shape[3] / self.reduction
        return self.weights * (pixels - selection) >= CALLS * len(self.convs)

    def branch(self, image_1CHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The branch's output for one image: the kept channels and their numbers (K,), or all channels and None."""
        output, channels_K = image_1CHW, None
        for conv, after, stays_compact, width in zip(
            self.convs, self.afters, self.stays_compact, self.widths, strict=True
        ):
            output, channels_K = conv(output, channels_K)
            if not stays_compact:
                output, channels_K = self.spread(output, channels_K, width), None
            output = after(output)
        return output, channels_K

    def spread(self, values_1KHW: Tensor, channels_K: Tensor, channels: int) -> Tensor:
        """All channels, 0 but for the given ones."""
        full_1CHW = values_1KHW.new_zeros(1, channels, *values_1KHW.shape[2:])
        return _add_channels(full_1CHW.contiguous(memory_format=torch.channels_last), channels_K, values_1KHW)

    def _skipped(self, image_1CHW: Tensor, shortcut_1CHW: Tensor | None) -> Tensor:
        output, channels_K = self.branch(image_1CHW)
        if shortcut_1CHW is not None:
            # A copy, since the output of an identity is the block's input.
            total = shortcut_1CHW.clone(memory_format=torch.channels_last)
            output = total.add_(output) if channels_K is None else _add_channels(total, channels_K, output)
        elif channels_K is not None:
            output = self.spread(output, channels_K, self.widths[-1])
        return self.act(output)

    def _masked(self, images_BCHW: Tensor, shortcut_BCHW: Tensor | None) -> Tensor:
        output_BCHW = images_BCHW
        for conv, after in zip(self.convs, self.afters, strict=True):
            assert isinstance(conv, SkippingConv)
            output_BCHW = after(conv.masked(output_BCHW))
        return self.act(output_BCHW if shortcut_BCHW is None else output_BCHW.add_(shortcut_BCHW))


def _add_channels(into_1CHW: Tensor, channels_K: Tensor, values_1KHW: Tensor) -> Tensor:
    """Adds to some of the channels, in place. As matrices of pixels by channels: on images it is twice as slow."""
    pixels = into_1CHW.permute(0, 2, 3, 1).view(-1, into_1CHW.shape[1])
    pixels.index_add_(1, channels_K, values_1KHW.permute(0, 2, 3, 1).reshape(-1, values_1KHW.shape[1]))
    return into_1CHW


def _converted(block: ResidualBlock) -> SkippingBlock:
    shortcut = copy.deepcopy(block.shortcut)
    if shortcut is not None:
        _fold_norms(shortcut)
    convs, afters = list(map(_converted_conv, block.sites)), list(map(_layers_after, block.sites))
    return SkippingBlock(convs, afters, shortcut, copy.deepcopy(block.act))


def _converted_conv(site: Site) -> SkippingConv:
    conv, _ = site.modules()
    if not isinstance(conv, GatedConv):
        raise UserError(
            f"skipping: {site.name} has no gate, though others in its block have; each one needs a gate"
        )
    return SkippingConv(conv, site.name)


def _layers_after(site: Site) -> nn.Module:
    active = [copy.deepcopy(module) for module in site.after() if not isinstance(module, INACTIVE)]
    return active[0] if len(active) == 1 else nn.Sequential(*active)


def _fold_norms(owner: nn.Module) -> None:
    """Folds batch norms into the convolutions just before them, in place, in eval mode."""
    for (first, conv), (second, norm) in pairwise(owner.named_children()):
        if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
            setattr(owner, first, fuse_conv_bn_eval(conv.eval(), norm.eval()))
            setattr(owner, second, nn.Identity())
