"""A faster talking-heads attention for a frozen CaiT: fewer passes over its attention maps.

Attention whose H heads are mixed before and after the softmax (Shazeer et al. 2020, arXiv:2003.02436; in CaiT, Touvron
et al. 2021, arXiv:2103.17239):

    L_h = q_h k_hᵀ / √d,   A = softmax(P L + p),   O = (W A + w) v        P, W: (H, H); p, w: (H,); over heads

timm mixes with a linear layer over the heads, which permutes the (B, H, N, N) maps twice: four copies of the largest
tensors of the network, and narrow products. Here the (H, H) matrix multiplies the maps viewed as (B, H, N·N), without
copies. The bias p is constant over a map, so the softmax cancels it, and it is left out.

Shape suffixes: B images, N tokens, C channels, H heads, D = C/H channels of a head, M = N·N entries of a map.
"""

import torch
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn


class FasterTalkingHeadAttn(TalkingHeadAttn):
    """timm's module with the same parameters and, in eval mode, the same function up to rounding."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Tokens (B, N, C) -> (B, N, C), in the parameters' dtype."""
        if self.training:  # there is dropout between the maps and v
            mixed: Tensor = super().forward(x_BNC)
            return mixed
        images, tokens, channels = x_BNC.shape
        heads = self.num_heads
        qkv = self.qkv(x_BNC).view(images, tokens, 3, heads, channels // heads)
        q_BHND, k_BHND, v_BHND = qkv.permute(2, 0, 3, 1, 4)
        maps_BHM = (q_BHND * self.scale @ k_BHND.mT).flatten(2)
        maps_BHNN = (self.proj_l.weight @ maps_BHM).unflatten(2, (tokens, tokens)).softmax(-1)
        after_BHH = self.proj_w.weight.expand(images, -1, -1)
        maps_BHM = torch.baddbmm(self.proj_w.bias[:, None], after_BHH, maps_BHNN.flatten(2))
        out_BHND = maps_BHM.unflatten(2, (tokens, tokens)) @ v_BHND
        out_BNC: Tensor = self.proj(out_BHND.transpose(1, 2).flatten(2))
        return out_BNC


def use_faster_talking_heads(model: nn.Module) -> None:
    """Replaces the forward of the model's talking-heads attention; parameters, names and hooks are unchanged.

    For frozen models only: the bias before the softmax gets no gradient.
    """
    for module in model.modules():
        # Not subclasses, which may compute something else. The class is replaced and not the module, because a
        # sharded network keeps references to its modules.
        if type(module) is TalkingHeadAttn:
            module.__class__ = FasterTalkingHeadAttn
