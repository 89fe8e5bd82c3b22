"""The whole patch-level manifold, exactly (arXiv:2107.01378v1, eq. 8)."""

import math

from torch import Tensor

from isometry.functional import gram_gap
from isometry.functional.centring import centred
from isometry.losses.base import BatchLoss, Reduction, Relations, check_same_tokens


class WholeBatch(BatchLoss):
    """All relations between all patches of all images: ``‖M(all B·N student tokens) − M(all B·N teacher tokens)‖²_F``.

    The map has (B·N)² entries, too many to compute; :func:`isometry.functional.gram_gap` gets the same value from
    channel-sized matrices at a cost linear in B·N. Under torch.distributed the map is that of the global batch, unless
    ``relations="local"``: the processes sum those matrices, so traffic is independent of the batch size.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar, or (K, B, N, C) of K blocks -> (K,).
    ``reduction="paper"``: the sum of squares, eq. 8. ``"mean"``: divided by its (B·N)² entries.
    Invariant to rotating or scaling either side's tokens, and to one permutation of both sides' tokens.

    With ``centre``, M is that of the tokens minus their mean over the (global) batch: a part that all tokens share,
    which moves every cosine towards 1, then counts for nothing. This is not in the paper; linear CKA centres in the
    same way (Kornblith et al. 2019).
    """

    inputs = ("student_tokens", "teacher_tokens")
    batched = True
    scale_invariant = True

    def __init__(
        self, reduction: Reduction = "mean", relations: Relations = "global", centre: bool = False
    ) -> None:
        super().__init__(relations)
        self.reduction = reduction
        self.centre = centre

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        group = self.group
        student, teacher = student_BNC.flatten(-3, -2), teacher_BNC.flatten(-3, -2)
        if self.centre:
            student, teacher = centred(student, group), centred(teacher, group)
        gap = gram_gap(student, teacher, group=group)
        if self.reduction == "paper":
            return gap
        tokens = math.prod(student_BNC.shape[-3:-1]) * (1 if group is None else group.size())
        return gap / tokens**2

    def sent_bytes(self, images: int, tokens: int, student_width: int, teacher_width: int) -> int:
        """The upper triangle of one symmetric float64 matrix of both sides' channels; the means, if centred."""
        width = student_width + teacher_width
        return 8 * width * (width + 1) // 2 + 4 * (width + student_width) * self.centre
