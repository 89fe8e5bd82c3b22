"""The teacher as training asks it: frozen, on its own view of the images, apart from all that trains."""

from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data.image_spec import ImageSpec
from isometry.errors import UserError
from isometry.models.cait_attention import mix_heads_in_place
from isometry.models.taps import BlockPair, TappedModel, tokens_on_grid


class TeacherOutput(NamedTuple):
    """What a teacher says about B images.

    ``logits`` (B, K), at least float32; ``tokens``: of each tapped block, by its number, (B, N, C) on the grid common
    with the student's, in the type that they were computed in.
    """

    logits: Tensor
    tokens: dict[int, Tensor]


class InputAdapter(nn.Module):
    """The student's input as the teacher wants it: its own normalisation, resolution and channels.

    Args:
        student, teacher: the images that each wants. A student on grey images may have a teacher on RGB.

    ``dtype`` is what the images are cast to in the end; as they come if None.

    Raises:
        UserError: channels that can't be made from the student's.
    """

    student_mean: Tensor
    student_std: Tensor
    teacher_mean: Tensor
    teacher_std: Tensor

    def __init__(self, student: ImageSpec, teacher: ImageSpec) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None
        self.channels, height, width = teacher.input_size
        self.size = height, width
        if student.input_size[0] not in (1, self.channels):
            raise UserError(
                f"the teacher takes {self.channels} channels and the student {student.input_size[0]}; "
                f"set --in-chans {self.channels}"
            )
        for side, spec in (("student", student), ("teacher", teacher)):
            for name, values in (("mean", spec.mean), ("std", spec.std)):
                self.register_buffer(
                    f"{side}_{name}", torch.tensor(values).view(1, -1, 1, 1), persistent=False
                )
        self.same_scale = (student.mean, student.std) == (teacher.mean, teacher.std)

    def forward(self, input_BCHW: Tensor) -> Tensor:
        """Images (B, C, H, W) normalised for the student -> the same images as the teacher wants them."""
        if not self.same_scale:
            plain = input_BCHW * self.student_std + self.student_mean
            input_BCHW = (plain - self.teacher_mean) / self.teacher_std
        if tuple(input_BCHW.shape[-2:]) != self.size:
            input_BCHW = F.interpolate(
                input_BCHW, self.size, mode="bicubic", antialias=True, align_corners=False
            )
        return input_BCHW.expand(-1, self.channels, -1, -1).to(self.dtype or input_BCHW.dtype)


class Teacher(nn.Module):
    """A frozen timm model with its taps, and the student's images as it wants them.

    A model whose weights are narrower than float32 computes in their type, whatever autocast says.

    Args:
        model: a timm model; may be sharded (:mod:`isometry.models.sharding`).
        view: turns the student's input into the model's.
        pairs: whose teacher blocks are tapped.
    """

    def __init__(self, model: nn.Module, view: InputAdapter, pairs: list[BlockPair]) -> None:
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
    def forward(self, input_BCHW: Tensor) -> TeacherOutput:
        """Images (B, C, H, W), normalised for the student -> what the teacher says about them."""
        narrow = self.view.dtype is not None
        with torch.autocast(input_BCHW.device.type, enabled=False) if narrow else nullcontext():
            logits, features = self.tapped(self.view(input_BCHW))
        tokens = {
            # In one piece, so that what was stored and read again gives the same bits.
            pair.teacher.block: tokens_on_grid(feature, pair.grid).contiguous()
            for pair, feature in zip(self.pairs, features, strict=True)
        }
        return TeacherOutput(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens)
