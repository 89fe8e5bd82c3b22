"""The teacher as training asks it: frozen, on its own view of the images, apart from all that trains."""

from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn

from isometry.talking_heads import mix_heads_in_place
from isometry.taps import BlockPair, TappedModel, tokens_on_grid
from isometry.view import TeacherView


class Taught(NamedTuple):
    """What a teacher says about B images.

    ``logits`` (B, K), at least float32; ``tokens``: of each tapped block, by its number, (B, N, C) on the grid common
    with the student's, in the type that they were computed in.
    """

    logits: Tensor
    tokens: dict[int, Tensor]


class Teacher(nn.Module):
    """A frozen timm model with its taps, and the student's images as it wants them.

    A model whose weights are narrower than float32 computes in their type, whatever autocast says.

    Args:
        model: a timm model; may be sharded (:mod:`isometry.sharding`).
        view: turns the student's input into the model's.
        pairs: whose teacher blocks are tapped.
    """

    def __init__(self, model: nn.Module, view: TeacherView, pairs: list[BlockPair]) -> None:
        super().__init__()
        model.eval().requires_grad_(False)
        mix_heads_in_place(model)
        dtype = next(model.parameters()).dtype
        self.view = view
        self.view.dtype = dtype if dtype.itemsize < torch.float32.itemsize else None
        self.pairs = pairs
        self.tapped: nn.Module = TappedModel(model, [pair.teacher.block for pair in pairs]).eval()

    @property
    def model(self) -> nn.Module:
        """The model as timm built it."""
        return cast(nn.Module, unwrap_model(self.tapped).model)

    @torch.no_grad()
    def forward(self, input_BCHW: Tensor) -> Taught:
        """Images (B, C, H, W), normalised for the student -> what the teacher says about them."""
        narrow = self.view.dtype is not None
        with torch.autocast(input_BCHW.device.type, enabled=False) if narrow else nullcontext():
            logits, features = self.tapped(self.view(input_BCHW))
        tokens = {
            # In one piece, so that what was stored and read again gives the same bits.
            pair.teacher.block: tokens_on_grid(feature, pair.grid).contiguous()
            for pair, feature in zip(self.pairs, features, strict=True)
        }
        return Taught(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens)
