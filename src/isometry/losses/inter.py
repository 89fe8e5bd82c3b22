"""Relations between images at one patch position (arXiv:2107.01378v1, eq. 10: L_ci, cross-image)."""

from torch import Tensor

from isometry.functional import gram_gap
from isometry.functional.exchange import exchange_images_for_positions, sum_over
from isometry.losses.base import BatchLoss, Reduction, Relations, check_same_tokens


class InterImage(BatchLoss):
    """``Σ_j ‖M(s[:, j]) − M(t[:, j])‖²_F / N`` over the patch positions j.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar, or (K, B, N, C) of K blocks -> (K,).
    ``reduction="paper"``: as above, eq. 10. ``"mean"``: the mean over all N·B² entries.
    Under torch.distributed the images are those of the global batch, unless ``relations="local"``: an all-to-all
    exchange gives each process some of the positions of all images.
    """

    inputs = ("student_tokens", "teacher_tokens")
    batched = True
    scale_invariant = True

    def __init__(self, reduction: Reduction = "mean", relations: Relations = "global") -> None:
        super().__init__(relations)
        self.reduction = reduction

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        images, positions, _ = student_BNC.shape[-3:]
        if self.group is None:
            gap = gram_gap(student_BNC.transpose(-3, -2), teacher_BNC.transpose(-3, -2)).sum(-1)
        else:
            sides = (exchange_images_for_positions(side, self.group) for side in (student_BNC, teacher_BNC))
            gap = sum_over(gram_gap(*sides).sum(-1), self.group)
            images *= self.group.size()
        return gap / positions if self.reduction == "paper" else gap / positions / images**2

    def sent_bytes(self, images: int, tokens: int, student_width: int, teacher_width: int) -> int:
        """The tokens of both sides, and the gradients of the other processes' student tokens, in float32."""
        return 4 * images * tokens * (2 * student_width + teacher_width)
