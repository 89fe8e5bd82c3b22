"""The frozen teacher: images adapted to its input, tapped blocks, and one interface to its outputs."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data.image_spec import ImageSpec
from isometry.errors import UserError
from isometry.models.cait_attention import use_faster_talking_heads
from isometry.models.spec import image_spec
from isometry.models.taps import BlockPair, Grid, TappedModel, block_tokens, layout_of
from isometry.models.token_layout import use_tokens_in_rows


class TeacherOutput(NamedTuple):
    """Outputs of a teacher for B images.

    ``logits`` (B, K), at least float32; ``tokens`` (B, N, C) of each tapped block, by its number, on the grid common
    with the student's, in the dtype that they were computed in.
    """

    logits: Tensor
    tokens: dict[int, Tensor]


class BatchPosition(NamedTuple):
    """Position of a training batch: the epoch, from 0, and the images before it in the epoch, over all processes."""

    epoch: int
    seen: int


class TeacherSource(Protocol):
    """Anything that returns teacher outputs: a :class:`Teacher`, or a cache of its outputs."""

    def __call__(self, input_BCHW: Tensor, position: BatchPosition | None = None) -> TeacherOutput:
        """Outputs for images that are normalised for the student; ``position`` is None for those not of training."""


def check_apart(student: nn.Module, teacher: nn.Module | None) -> None:
    """Raises ValueError for a teacher that is the student or shares weights with it: freezing it would freeze both."""
    theirs = () if teacher is None else teacher.parameters()
    shared = {id(p) for p in student.parameters()} & {id(p) for p in theirs}
    if shared:
        raise ValueError(
            "student and teacher are one network, or share weights; give a copy as the teacher: copy.deepcopy(student)"
        )


class InputAdapter(nn.Module):
    """The student's input as the teacher expects it: its normalisation, resolution, channels and dtype.

    Args:
        student, teacher: the images that each expects. A student on grey images may have a teacher on RGB.
        dtype: of the result; that of the input if None.

    Raises:
        UserError: channels that can't be made from the student's.
    """

    student_mean: Tensor
    student_std: Tensor
    teacher_mean: Tensor
    teacher_std: Tensor

    def __init__(self, student: ImageSpec, teacher: ImageSpec, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dtype = dtype
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
        """Images (B, C, H, W) normalised for the student -> the same images as the teacher expects them."""
        if not self.same_scale:
            plain = input_BCHW * self.student_std + self.student_mean
            input_BCHW = (plain - self.teacher_mean) / self.teacher_std
        if tuple(input_BCHW.shape[-2:]) != self.size:
            input_BCHW = F.interpolate(
                input_BCHW, self.size, mode="bicubic", antialias=True, align_corners=False
            )
        return input_BCHW.expand(-1, self.channels, -1, -1).to(self.dtype or input_BCHW.dtype)

    def blank(self, device: torch.device) -> Tensor:
        """A student image of zeros, for a process that runs a sharded teacher only because the others do."""
        return torch.zeros(1, 1, *self.size, device=device)


def is_enlarged(student: ImageSpec, teacher: ImageSpec) -> bool:
    """Whether the teacher's images are the student's in shape, and larger."""
    (height, width), (rows, columns) = student.input_size[1:], teacher.input_size[1:]
    return rows > height and rows * width == columns * height


class StudentView:
    """Images of the teacher's size as the student gets them: scaled down to its size, with its normalisation.

    With antialiasing; bilinear if the student expects that, else bicubic. No value leaves the range of its image and
    channel, as none leaves that of 8 bits where Pillow scales.

    Args:
        student, teacher: the images that each expects.

    Attributes:
        images: those that it takes, which a teacher takes as well, through an :class:`InputAdapter`: normalised for the
            student, with its channels, of the teacher's size.

    Raises:
        UserError: the teacher's images are not larger, or of another shape.
    """

    def __init__(self, student: ImageSpec, teacher: ImageSpec) -> None:
        self.size, larger = student.input_size[1:], teacher.input_size[1:]
        if not is_enlarged(student, teacher):
            own, theirs = ("×".join(map(str, size)) for size in (self.size, larger))
            raise UserError(
                f"--teacher-pixels original: the teacher's images must be larger than the student's and of the same "
                f"shape, and they have {theirs} pixels and the student's {own}; leave it out"
            )
        self.images = replace(student, input_size=(student.input_size[0], *larger))
        self.mode = "bilinear" if student.interpolation == "bilinear" else "bicubic"

    def __call__(self, input_BCHW: Tensor) -> Tensor:
        """Images (B, C, H, W) of any size -> (B, C, h, w) of the student's; those that have it already are kept."""
        if tuple(input_BCHW.shape[-2:]) == self.size:
            return input_BCHW
        scaled_BChw = F.interpolate(input_BCHW, self.size, mode=self.mode, antialias=True)
        return scaled_BChw.clamp(input_BCHW.amin((2, 3), keepdim=True), input_BCHW.amax((2, 3), keepdim=True))


class Teacher:
    """A frozen timm model with its taps. It is no module, so that a module that holds it does not train or save it.

    A model whose weights are narrower than float32 computes in their dtype, whatever autocast says.

    Args:
        model: a timm model; may be sharded (:mod:`isometry.models.sharding`).
        student: the images that the student expects.
        pairs: whose teacher blocks give tokens.
        tapped: blocks to tap, if not just these. Those of all stages of growth make one network for all stages, which
            is compiled once.

    Attributes:
        grids: rows and columns of the tokens of each tapped block.
    """

    def __init__(
        self,
        model: nn.Module,
        student: ImageSpec,
        pairs: list[BlockPair],
        tapped: Sequence[int] = (),
    ) -> None:
        model.eval().requires_grad_(False)
        use_faster_talking_heads(model)
        use_tokens_in_rows(model)
        self.model = model
        self.dtype = next(model.parameters()).dtype
        shapes = [pair.teacher for pair in pairs]
        self.shapes = {shape.block: shape for shape in shapes}
        self.grids: dict[int, Grid] = {pair.teacher.block: pair.grid for pair in pairs}
        self.adapter = InputAdapter(student, image_spec(model), self.dtype if self.narrow else None)
        self.blocks = list(tapped or self.grids)
        self.tapped: nn.Module = TappedModel(model, self.blocks, layout_of(shapes)).eval()

    @property
    def narrow(self) -> bool:
        """Whether the weights are narrower than float32."""
        return self.dtype.itemsize < torch.float32.itemsize

    @torch.no_grad()
    def __call__(self, input_BCHW: Tensor, position: BatchPosition | None = None) -> TeacherOutput:
        """Outputs for images (B, C, H, W) that are normalised for the student."""
        with torch.autocast(input_BCHW.device.type, enabled=False) if self.narrow else nullcontext():
            logits, features = self.tapped(self.adapter(input_BCHW))
        tokens = {
            block: _rows(block_tokens(feature, self.shapes[block], self.grids[block]))
            for block, feature in zip(self.blocks, features, strict=True)
            if block in self.grids
        }
        return TeacherOutput(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens)

    def apply(self, function: Any) -> None:
        """Applies what moves or casts the tensors of a module, as ``nn.Module.to`` does."""
        self.tapped._apply(function)
        self.adapter._apply(function)

    def compile(self, **options: Any) -> None:
        """Compiles the model with its taps; options as those of ``torch.compile``."""
        # Some networks keep what their first forward pass computes, and the second would be compiled anew.
        self(self.adapter.blank(next(self.model.parameters()).device))
        self.tapped = cast(nn.Module, torch.compile(self.tapped, **options))


def _rows(tokens_BNC: Tensor) -> Tensor:
    """The tokens with each one's channels side by side in memory; those of a feature map are copied for it.

    Tokens read from a cache lie so, and losses of both give the same bits.
    """
    return tokens_BNC if tokens_BNC.stride(-1) == 1 else tokens_BNC.contiguous()
