"""What a report is made of: plain, frozen records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, Any]
"""One row of a table or of metrics.jsonl. The keys that are read are named where rows are taken."""

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class RelationMaps:
    """The cosine relation maps of one tapped block: M[i, j] = cos(token i, token j), each (N, N), in [-1, 1].

    Raises:
        ValueError: a map is not square.
    """

    block: str
    """Label, such as "block 12 ◄ 24"."""
    teacher: Matrix
    before: Matrix
    """The student's map before training."""
    after: Matrix
    """The student's map after training."""
    gap_before: float
    """Mean over all entries of (before − teacher)²."""
    gap_after: float
    """Mean over all entries of (after − teacher)²."""

    def __post_init__(self) -> None:
        for name in ("teacher", "before", "after"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[0] != shape[1]:
                raise ValueError(f"{self.block}: the relation map {name!r} has shape {shape}, not (N, N)")


@dataclass(frozen=True)
class ReportData:
    """Everything that a report can show; what is empty or None is left out of the page.

    Raises:
        ValueError: a CKA matrix is not (student blocks × teacher blocks).
    """

    title: str
    subtitle: str = ""
    """Such as "deit_tiny ◄ cait_s24 on digits"."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    """(name, value): versions, seed, device, command."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """Rows of metrics.jsonl, one an epoch: "epoch", "lr", "train/<term>", "val/top1", "val_ema/top1", ..."""
    models: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the table of models: "model" (label), "role" ("teacher" and "student" are the two that the
    headline compares), "top1" (percent), "top1_part" ("test" or "val"), "params", "macs", "images_per_s",
    "seconds" (training time); any other key becomes a column of its own."""
    relations: list[RelationMaps] = field(default_factory=list)
    cka_before: Matrix | None = None
    """(student blocks × teacher blocks) similarities in [0, 1] (Kornblith et al. 2019) before training."""
    cka_after: Matrix | None = None
    student_blocks: list[str] = field(default_factory=list)
    teacher_blocks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader must know before believing a figure."""
    config_yaml: str = ""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """(epoch, label) of vertical marks on the curves, such as a change of the model's depth."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    """The stages of a run that grew, in order; empty for one that did not. Keys: "stage" (1, 2, ...), "model"
    (such as "depth 6, width 192"), "by" (operators that made it; "" for the first), "first_epoch" (epochs done
    when it began), "epochs" (how many it has), "params", "macs", "seconds" (measured), "full_seconds" (what as
    many epochs take at full size, from the measured epochs of the last stage), "before" and "after" (validation
    score around the growth into it, or None), "score" (what they are: "top-1" in percent, or "loss")."""

    def __post_init__(self) -> None:
        wanted = (len(self.student_blocks), len(self.teacher_blocks))
        for name in ("cka_before", "cka_after"):
            matrix = getattr(self, name)
            if matrix is not None and matrix.shape != wanted:
                raise ValueError(f"{name} has shape {matrix.shape}, but there are {wanted} block labels")
