"""The student's images as its teacher wants them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data.spec import ImageSpec
from isometry.errors import UserError


class TeacherView(nn.Module):
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
