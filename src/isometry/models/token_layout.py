"""The layout of a frozen CaiT's tokens in memory: each token's channels side by side.

Patches are embedded by a convolution, whose map (B, C, H, W) is only viewed as tokens (B, N, C). Sums keep the layout
of their first operand, and CaiT adds class tokens last, so that the tokens of all its blocks would keep the map's:
each norm would copy them first, and so would the terms that compare them.
"""

from typing import Any

from timm.layers.patch_embed import PatchEmbed
from timm.models.cait import Cait
from torch import Tensor, nn


class PatchEmbedInRows(PatchEmbed):
    """timm's module with the same parameters and outputs, which are contiguous."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As timm's."""
        embedded: Tensor = super().forward(*args, **kwargs)
        return embedded.contiguous()


def use_tokens_in_rows(model: nn.Module) -> None:
    """Replaces the forward of a CaiT's patch embedding; parameters, names, hooks and outputs are unchanged.

    Other networks stay as they are: most add class tokens first, and averages over tokens are rounded by layout.
    """
    # The class and not the module, because a sharded network keeps references to its modules.
    if isinstance(model, Cait) and type(model.patch_embed) is PatchEmbed:
        model.patch_embed.__class__ = PatchEmbedInRows
