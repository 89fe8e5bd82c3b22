"""Inference that computes only the channels an image needs: a gated network -> a network that skips.

In a residual block the first convolution reads the whole input and computes its kept rows; what it gives stays compact
(only the kept channels are there) through the activation; later convolutions also skip the columns of channels that
are off; and the last one's channels are added to the shortcut where they belong.

Shape suffixes: B images, C channels, K channels kept, H and W.
"""

import copy
import math

import torch
from timm.layers import ConvNormAct, DropBlock2d, DropPath
from timm.models import resnet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isometry.errors import UserError
from isometry.prune.gates import GatedConv, gated_convs
from isometry.prune.sites import BLOCKS
from isometry.prune.skipping_conv import SkippingConv

POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.GELU, nn.Mish),
    *(nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Softsign),
)
"""Activations that look at one number at a time."""

IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)
"""What does nothing in eval mode."""

SELECTION = 150
"""What selecting and rearranging a convolution's weights for one image costs, in multiply-accumulates a weight."""

CALLS = 15e6
"""What the calls for one image and convolution cost, in multiply-accumulates. Both measured on one CPU thread."""


def skipping(network: nn.Module) -> "SkippingNetwork":
    """An inference-only copy of a gated network that computes, for each image, the channels its gates keep.

    Its outputs are those of the gated network in eval mode, to rounding; an image for which a saliency equals a
    threshold to rounding may keep a channel more or less, as it may in the gated network in another batch.
    Weights are copied and norms folded in once, here: convert again after further training.

    Args:
        network: a timm ResNet or RegNet with gates (:func:`isometry.prune.sites.add_gates`), float32; left alone.

    Returns:
        A module (B, 3, H, W) -> what the network gives, in eval mode for good and without gradients.

    Raises:
        UserError: the network has no gates, or has them elsewhere than on all convolutions of residual blocks.
    """
    gates = gated_convs(network)
    if not gates:
        raise UserError(f"skipping: {type(network).__name__} has no gates; add them with isometry prune")
    # deepcopy puts what it finds here in place of the blocks, and never copies these.
    blocks = {
        id(block): _converted(block, name) for name, block in network.named_modules() if _is_gated(block)
    }
    copied = copy.deepcopy(network, dict(blocks))
    left = list(gated_convs(copied))
    if left:
        raise UserError(
            f"skipping: {left[0]} has a gate outside of a residual block of timm's ResNets and RegNets"
        )
    if isinstance(copied, resnet.ResNet):
        _fold(copied, "conv1", "bn1")
    return SkippingNetwork(copied)


class SkippingNetwork(nn.Module):
    """What :func:`skipping` returns: the network with :class:`SkippingBlock` for its blocks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.network(images_BCHW.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> "SkippingNetwork":
        """Eval mode is the only one.

        Raises:
            UserError: ``mode`` is true.
        """
        if mode:
            raise UserError(
                "skipping: this form only infers; train the gated network that it came from, and convert that again"
            )
        super().train(False)
        return self


class SkippingBlock(nn.Module):
    """A residual block ``act(shortcut(x) + branch(x))`` whose branch computes an image's kept channels only.

    Image by image where that was measured to pay (:meth:`pays`); else the batch at once, every channel computed and
    masked, with the norms folded in.

    Args:
        convs: of the branch, in order.
        afters: what follows each of them.
        shortcut: None where there is none.
        act: what follows the sum.
    """

    def __init__(
        self, convs: list[SkippingConv], afters: list[nn.Module], shortcut: nn.Module | None, act: nn.Module
    ) -> None:
        super().__init__()
        self.convs, self.afters = nn.ModuleList(convs), nn.ModuleList(afters)
        self.shortcut, self.act = shortcut, act
        self.stays_compact = [_keeps_zeros(after) for after in afters]
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
        """Whether image by image is faster: where there is more to save than selecting and calling cost.

        A batch computed whole has its weights rearranged only once, so from the third image on every selection has to
        be earned by the pixels that the weights are used for: a late block of large filters and few pixels
        (ResNet-34's last stage at 224 pixels) runs whole in batches. Several threads share the images of a batch
        among them, where one image alone keeps them busy badly: they get whole batches.
        """
        if len(images_BCHW) > 2 and torch.get_num_threads() > 1:
            return False
        selection = SELECTION if len(images_BCHW) > 2 else 0
        pixels = images_BCHW.shape[2] * images_BCHW.shape[3] / self.reduction
        return self.weights * (pixels - selection) >= CALLS * len(self.convs)

    def _skipped(self, image_1CHW: Tensor, shortcut_1CHW: Tensor | None) -> Tensor:
        branch, channels_K = image_1CHW, None
        for conv, after, stays_compact, width in zip(
            self.convs, self.afters, self.stays_compact, self.widths, strict=True
        ):
            branch, channels_K = conv(branch, channels_K)
            if not stays_compact:
                branch, channels_K = _spread(branch, channels_K, width), None
            branch = after(branch)
        if shortcut_1CHW is None:
            return self.act(branch if channels_K is None else _spread(branch, channels_K, self.widths[-1]))
        # A copy, since an identity's output is the block's input.
        output = shortcut_1CHW.clone(memory_format=torch.channels_last)
        return self.act(
            output.add_(branch) if channels_K is None else _add_channels(output, channels_K, branch)
        )

    def _masked(self, images_BCHW: Tensor, shortcut_BCHW: Tensor | None) -> Tensor:
        branch_BCHW = images_BCHW
        for conv, after in zip(self.convs, self.afters, strict=True):
            assert isinstance(conv, SkippingConv)
            branch_BCHW = after(conv.masked(branch_BCHW))
        return self.act(branch_BCHW if shortcut_BCHW is None else branch_BCHW.add_(shortcut_BCHW))


def _add_channels(into_1CHW: Tensor, channels_K: Tensor, values_1KHW: Tensor) -> Tensor:
    """Adds to some of the channels, in place. As matrices of pixels by channels: on images it is twice as slow."""
    pixels = into_1CHW.permute(0, 2, 3, 1).view(-1, into_1CHW.shape[1])
    pixels.index_add_(1, channels_K, values_1KHW.permute(0, 2, 3, 1).reshape(-1, values_1KHW.shape[1]))
    return into_1CHW


def _spread(values_1KHW: Tensor, channels_K: Tensor, channels: int) -> Tensor:
    """The full width, with 0 for all channels but those given."""
    full_1CHW = values_1KHW.new_zeros(1, channels, *values_1KHW.shape[2:])
    return _add_channels(full_1CHW.contiguous(memory_format=torch.channels_last), channels_K, values_1KHW)


def _keeps_zeros(module: nn.Module) -> bool:
    """Whether it acts on each number alone, and leaves 0 at 0: then it can act on a compact tensor."""
    if isinstance(module, nn.Sequential):
        return all(map(_keeps_zeros, module))
    if isinstance(module, IDLE):
        return True
    return isinstance(module, POINTWISE) and float(module(torch.zeros(()))) == 0


def _is_gated(module: nn.Module) -> bool:
    return isinstance(module, BLOCKS) and bool(gated_convs(module))


def _converted(block: nn.Module, name: str) -> SkippingBlock:
    """Reads timm's block, which registers its parts in the order in which it runs them; all are copied."""
    convs: list[SkippingConv] = []
    afters: list[list[nn.Module]] = []
    shortcut = None
    acts = [key for key, _ in block.named_children() if key.startswith("act")]
    for key, part in block.named_children():
        if key == "downsample":
            shortcut = _folded_shortcut(part)
        elif key.startswith("conv"):
            first, *others = part.children() if isinstance(part, ConvNormAct) else (part,)
            convs.append(_converted_conv(first, f"{name}.{key}"))
            afters.append(others)
        elif key != acts[-1]:
            afters[-1].append(part)
    if isinstance(block, resnet.BasicBlock | resnet.Bottleneck):
        shortcut = shortcut or nn.Identity()
    act = copy.deepcopy(block.get_submodule(acts[-1]))
    return SkippingBlock(convs, [_chain(after) for after in afters], shortcut, act)


def _converted_conv(conv: nn.Module, name: str) -> SkippingConv:
    if not isinstance(conv, GatedConv):
        raise UserError(
            f"skipping: {name} has no gate, though others in its block have; each one needs a gate"
        )
    return SkippingConv(conv, name)


def _chain(modules: list[nn.Module]) -> nn.Module:
    acting = [copy.deepcopy(module) for module in modules if not isinstance(module, IDLE)]
    return acting[0] if len(acting) == 1 else nn.Sequential(*acting)


def _folded_shortcut(shortcut: nn.Module) -> nn.Module:
    copied = copy.deepcopy(shortcut).eval()
    if isinstance(copied, nn.Sequential) and len(copied) > 1:
        _fold(copied, str(len(copied) - 2), str(len(copied) - 1))
    return copied


def _fold(owner: nn.Module, conv: str, norm: str) -> None:
    """Folds a norm into the convolution before it, where they are just that."""
    first, second = owner.get_submodule(conv).eval(), owner.get_submodule(norm).eval()
    if isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d:
        setattr(owner, conv, fuse_conv_bn_eval(first, second))
        setattr(owner, norm, nn.Identity())
