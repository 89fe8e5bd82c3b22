"""A gated convolution that computes only the kept channels of an image.

Shape suffixes: B images, C channels in, K channels kept, D channels out, G gates, H and W.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from isometry.errors import UserError
from isometry.functional.gates import kept_gates
from isometry.prune.gates import GatedConv


class SkippingConv(nn.Module):
    """``π · kept · norm(conv(x))`` of one image at a time, on the kept channels; the norm is folded in.

    Weights have one row per filter, with the input channels innermost, so that a filter is one piece of memory and the
    selected filters are a channels-last weight. Skipping saves time only with both. The tensors are copied.

    Raises:
        UserError: a convolution that is grouped, or padded otherwise than with a fixed number of zeros.
    """

    weight: Tensor
    bias: Tensor
    squeeze_weight: Tensor
    squeeze_bias: Tensor
    excite_weight: Tensor
    excite_bias: Tensor
    taps: Tensor
    members: Tensor

    def __init__(self, gated: GatedConv, name: str) -> None:
        super().__init__()
        conv, norm, gate = gated.conv, gated.norm, gated.gate
        plain = type(conv) is nn.Conv2d and conv.groups == 1 and conv.padding_mode == "zeros"
        if not plain or isinstance(conv.padding, str):
            raise UserError(
                f"{name}: skipping takes ungrouped convolutions padded with a fixed number of zeros, not {conv}"
            )
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.group = conv.kernel_size, gated.group
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        positions = torch.arange(conv.kernel_size[0] * conv.kernel_size[1], device=weight.device)
        # First column of each position in the kernel; channels of a group, relative to its first.
        self.register_buffer("taps", positions[:, None] * conv.in_channels)
        self.register_buffer("members", torch.arange(gated.group, device=weight.device))
        self.register_buffer("weight", weight.detach().permute(0, 2, 3, 1).flatten(1).clone())
        self.register_buffer("bias", bias.detach().clone())
        for part, linear in (("squeeze", gate.squeeze), ("excite", gate.excite)):
            self.register_buffer(f"{part}_weight", linear.weight.detach().clone())
            self.register_buffer(f"{part}_bias", linear.bias.detach().clone())
        # A saliency of 0 is always off: one comparison for both rules of kept_gates.
        self.threshold = max(float(gate.threshold), torch.finfo(torch.float32).tiny)

    def forward(self, image_1CHW: Tensor, columns_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """The kept channels of one image.

        Args:
            image_1CHW: channels last; only the channels ``columns_C`` of the input if they are given.
            columns_C: numbers of these channels, all others being 0.

        Returns:
            The output (1, K, H, W), channels last, and the numbers of its channels (K,), ascending, at least one.
        """
        rows_K, scale_K = self.keep(self.pooled(image_1CHW, columns_C))
        weight = self.weight.index_select(0, rows_K)
        if columns_C is not None:
            weight = weight.index_select(1, (self.taps + columns_C).flatten())
        bias_K = self.bias.index_select(0, rows_K)
        # π multiplies the smaller tensor: the weights or the output.
        if weight.numel() < len(rows_K) * image_1CHW.shape[2] * image_1CHW.shape[3]:
            return self._convolve(image_1CHW, weight.mul_(scale_K[:, None]), bias_K.mul_(scale_K)), rows_K
        return self._convolve(image_1CHW, weight, bias_K).mul_(scale_K[:, None, None]), rows_K

    def keep(self, pooled_1C: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of an image's kept channels (K,), ascending, and their saliencies (K,)."""
        saliency_G = self.saliency(pooled_1C)[0]
        kept_K = (saliency_G >= self.threshold).nonzero()[:, 0]
        if len(kept_K) == 0:
            kept_K = saliency_G.argmax(0, keepdim=True)
        scale_K = saliency_G.index_select(0, kept_K)
        if self.group == 1:
            return kept_K, scale_K
        channels_K = (kept_K[:, None] * self.group + self.members).flatten()
        return channels_K, scale_K.repeat_interleave(self.group)

    def masked(self, images_BCHW: Tensor) -> Tensor:
        """All channels of a batch, (B, D, H, W), those that are off multiplied by 0."""
        saliency_BG = self.saliency(images_BCHW.mean((2, 3)))
        scale_BG = saliency_BG * kept_gates(saliency_BG, self.threshold)
        scale_BD = scale_BG.repeat_interleave(self.group, dim=1) if self.group > 1 else scale_BG
        output_BDHW = F.conv2d(
            images_BCHW, self.filters(self.weight), self.bias, self.stride, self.padding, self.dilation
        )
        return output_BDHW.mul_(scale_BD[:, :, None, None])

    def pooled(self, image_1CHW: Tensor, columns_C: Tensor | None) -> Tensor:
        """Mean of each input channel, (1, C), 0 for those that are missing."""
        pooled = image_1CHW.mean((2, 3))
        if columns_C is None:
            return pooled
        return pooled.new_zeros(1, self.in_channels).index_copy_(1, columns_C, pooled)

    def saliency(self, pooled_BC: Tensor) -> Tensor:
        """π (B, G)."""
        hidden = F.linear(pooled_BC, self.squeeze_weight, self.squeeze_bias).relu_()
        return F.linear(hidden, self.excite_weight, self.excite_bias).relu_()

    def filters(self, rows: Tensor) -> Tensor:
        """Rows as a view of weights (K, C, kernel height, kernel width)."""
        return rows.view(len(rows), *self.kernel_size, -1).permute(0, 3, 1, 2)

    def _convolve(self, image_1CHW: Tensor, rows: Tensor, bias_K: Tensor) -> Tensor:
        weight = self.filters(rows)
        if image_1CHW.device.type == "cpu" and torch.backends.mkldnn.is_available():
            # For small single images F.conv2d chooses a slower algorithm that copies every patch.
            return torch.mkldnn_convolution(
                image_1CHW, weight, bias_K, self.padding, self.stride, self.dilation, 1
            )
        return F.conv2d(image_1CHW, weight, bias_K, self.stride, self.padding, self.dilation)
