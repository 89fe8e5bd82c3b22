"""The whole patch-level manifold, exactly (arXiv:2107.01378v1, eq. 8)."""

from torch import Tensor

from isometry.functional import gram_gap
from isometry.losses.base import Loss, Reduction, all_processes, check_same_tokens


class WholeBatch(Loss):
    """All relations between all patches of all images: ``‖M(all B·N student tokens) − M(all B·N teacher tokens)‖²_F``.

    The paper calls the map unbearable, (B·N)² entries; :func:`isometry.functional.gram_gap` gets the same number from
    channel-sized matrices at a cost linear in B·N. Under torch.distributed the map is that of the global batch.

    Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar.
    ``reduction="paper"``: the sum of squares, eq. 8. ``"mean"``: divided by its (B·N)² entries.
    Invariant to rotating or scaling either side's tokens, and to one permutation of both sides' tokens.
    """

    inputs = ("student_tokens", "teacher_tokens")

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        group = all_processes()
        gap = gram_gap(student_BNC.flatten(0, 1), teacher_BNC.flatten(0, 1), group=group)
        if self.reduction == "paper":
            return gap
        tokens = student_BNC.shape[0] * student_BNC.shape[1] * (1 if group is None else group.size())
        return gap / tokens**2
