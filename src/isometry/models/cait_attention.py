"""CaiT's talking-heads attention with fewer passes over its maps: what a frozen teacher of that family spends most on.

Attention whose H heads are mixed before and after the softmax (Shazeer et al. 2020, arXiv:2003.02436; in CaiT, Touvron
et al. 2021, arXiv:2103.17239):

    L_h = q_h k_hᵀ / √d,   A = softmax(P L + p),   O = (W A + w) v        P, W: (H, H); p, w: (H,); over heads

timm mixes with a linear layer over the heads, for which it moves them to the end of the (B, H, N, N) maps and back:
four copies of the largest tensors of the network, and products that are H wide. Here (H, H) multiplies maps seen as
(B, H, N·N), where they lie. The bias p is one number a map, which a softmax does not see, and is left out.

Shape suffixes: B images, N tokens, C channels, H heads, D = C/H channels of a head, M = N·N entries of a map.
"""

import torch
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn


class MixedInPlace(TalkingHeadAttn):
    """timm's module with the same parameters and, in eval mode, the same function up to rounding."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Tokens (B, N, C) -> (B, N, C), in the parameters' dtype."""
        if self.training:  # dropout stands between the maps and v
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


def mix_heads_in_place(model: nn.Module) -> None:
    """Gives the model's talking-heads attention this forward pass; parameters, names and hooks stay as they are.

    Meant for a frozen model: the bias before the softmax gets no gradient, not even a zero.
    """
    for module in model.modules():
        # Not of subclasses: they may compute something else.
        if (
            type(module) is TalkingHeadAttn
        ):  # its class and not the module, which a sharded network holds on to
            module.__class__ = MixedInPlace
