"""The data of a report: plain, frozen records, validated when they are read from a file; and rows of its tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, ValidationInfo

from isometry.parsing import closed
from isometry.report import formats
from isometry.report.records.schema import Classes, Epochs, Forms, Models, Stages, Times

Row = Mapping[str, Any]
"""A row of a table or of metrics.jsonl. The functions that take rows document the keys that they read."""

PARTS = {"test": "test", "val": "validation"}
REST = "rest"
"""The phase of an epoch's remaining time: reading losses, saves between epochs, the loop itself."""


def _array(noun: str, fits: Callable[[Any], bool]) -> PlainValidator:
    """Replaces the name of an array by the array of that name in the validation's context."""

    def find(name: Any, info: ValidationInfo) -> Any:
        array = info.context.get(name) if info.context and isinstance(name, str) else None
        if array is None or not array.size or not fits(array):
            raise ValueError(f"names no {noun}")
        return array

    return PlainValidator(find)


Matrix = Annotated[NDArray[np.floating[Any]], _array("matrix", lambda a: a.dtype.kind == "f" and a.ndim == 2)]
Picture = Annotated[
    NDArray[np.uint8],
    _array("picture", lambda a: a.dtype == np.uint8 and a.ndim == 3 and a.shape[2] in (1, 3)),
]
Mask = Annotated[NDArray[np.uint8], _array("mask", lambda a: a.dtype == np.uint8 and a.ndim == 2)]
"""The class of each pixel, (H, W); 255 where it does not count."""

Verdict = Literal["right", "wrong class", "no object", "found", "missed", "crowd"]
"""Of a box that was answered, the first three; of one of the truth, the others."""


@closed
@dataclass(frozen=True)
class RelationMaps:
    """The cosine relation maps of one tapped block, each (N, N): M[i, j] = cos(token i, token j), in [-1, 1]; the
    teacher's, and the student's before and after training. A gap is the mean over all entries of (student − teacher)².

    Raises:
        ValueError: a map is not square.
    """

    block: str
    """Label, such as "block 12 ◄ 24"."""
    teacher: Matrix
    before: Matrix
    after: Matrix
    gap_before: float
    gap_after: float

    def __post_init__(self) -> None:
        for name in ("teacher", "before", "after"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[0] != shape[1]:
                raise ValueError(f"{self.block}: the relation map {name!r} has shape {shape}, not (N, N)")


@closed
@dataclass(frozen=True)
class Example:
    """One image and its cost: ``pixels`` uint8 (H, W, C), C = 1 or 3; ``loss`` in nats; ``macs``."""

    pixels: Picture
    loss: float
    macs: float


@closed
@dataclass(frozen=True)
class ImageGroup:
    """Images of similar difficulty: the mean ``shares`` of each layer's channels that they kept, in [0, 1], their mean
    ``macs``, and a few ``examples``."""

    shares: Sequence[float]
    macs: float
    examples: list[Example] = field(default_factory=list)


@closed
@dataclass(frozen=True)
class SaliencyMaps:
    """Cosine relation maps over the same N images at one gated layer, each (N, N): by saliencies and by features. Their
    gap is the mean over all entries of (saliencies − features)².

    Raises:
        ValueError: a map is not square, or the two differ in size.
    """

    layer: str
    saliencies: Matrix
    features: Matrix
    gap: float

    def __post_init__(self) -> None:
        shapes = {self.saliencies.shape, self.features.shape, self.features.shape[::-1]}
        if len(shapes) > 1 or self.features.ndim != 2:
            raise ValueError(f"{self.layer}: the relation maps have shapes {sorted(shapes)}, not one (N, N)")


@closed
@dataclass(frozen=True)
class PruningData:
    """A pruned network's forms side by side; of one with gates also which channels its images used.

    Raises:
        ValueError: a group has shares of other layers than there are.
    """

    forms: Forms
    """A row a form, dense first: "form", "params", "top1" (percent) and "top1_part", "macs" (mean over images), also
    "macs_std", "macs_low" and "macs_high" (5th and 95th percentile) where images differ, "speeds", a row a batch size:
    "batch_size", "ms" (a batch), "images_per_s", "ratio" (how many times as fast as dense)."""
    conditions: str = ""
    """What the times depend on: threads, device, versions."""
    layers: list[str] = field(default_factory=list)
    """The gated convolutions, from the input on."""
    easy: ImageGroup | None = None
    hard: ImageGroup | None = None
    """The quarters of the images with the lowest and with the highest loss."""
    maps: list[SaliencyMaps] = field(default_factory=list)

    def __post_init__(self) -> None:
        for group in self.groups.values():
            if len(group.shares) != len(self.layers):
                raise ValueError(f"shares of {len(group.shares)} layers, but there are {len(self.layers)}")

    @property
    def groups(self) -> dict[str, ImageGroup]:
        """The groups that there are, by name."""
        return {name: group for name, group in (("easy", self.easy), ("hard", self.hard)) if group}


@closed
@dataclass(frozen=True)
class DrawnBox:
    """A box on a picture: its ``corners`` (left, top, right, bottom) in pixels, and the ``text`` beside it."""

    corners: tuple[float, float, float, float]
    text: str
    verdict: Verdict


@closed
@dataclass(frozen=True)
class TaskPicture:
    """A picture with its truth and the network's answer: boxes, or masks of the picture's size.

    ``score`` is F1 of the boxes or the mean IoU of the picture's classes, percent.

    Raises:
        ValueError: a mask has another size than the picture.
    """

    name: str
    group: Literal["worst", "best"]
    score: float
    pixels: Picture
    truth: list[DrawnBox] = field(default_factory=list)
    answer: list[DrawnBox] = field(default_factory=list)
    truth_mask: Mask | None = None
    answer_mask: Mask | None = None

    def __post_init__(self) -> None:
        for mask in (self.truth_mask, self.answer_mask):
            if mask is not None and mask.shape != self.pixels.shape[:2]:
                raise ValueError(f"{self.name}: a mask of {mask.shape}, a picture of {self.pixels.shape[:2]}")


@closed
@dataclass(frozen=True)
class TaskData:
    """How well a network finds boxes or masks on a ``part`` of the data.

    ``scores`` are in percent, by key: "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100", "miou", and
    the ends of their intervals, such as "ap_low" and "ap_high"; None where nothing was there to find. ``classes`` has a
    row each: "name", "value", and "pixels", or "ap50", "ar100", "objects" and "train" (boxes of the training part).
    """

    task: Literal["detect", "segment"]
    part: str
    images: int
    scores: dict[str, float | None]
    classes: Classes
    pictures: list[TaskPicture] = field(default_factory=list)
    zeros: int = 0
    """Pictures of the part whose score is 0."""
    least_score: float | None = 50.0
    """Of the boxes that pictures show, percent: the one with which F1 over the part is largest; None where no box is
    right, and some are shown of any score."""
    f1: float | None = None
    """F1 over the part with it, percent; None in reports of older versions, too, which show boxes from 50 % on."""


@closed
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
    epochs: Epochs = field(default_factory=list)
    """Rows of metrics.jsonl, one an epoch: "epoch", "lr", "train/<term>", "val/top1", "val_ema/top1", ..."""
    models: Models = field(default_factory=list)
    """Rows of the table of models: "model" (label), "role" ("teacher" and "student" are the two that the
    headline compares), "top1" (percent), "top1_by_class" (mean of the classes' accuracies, where their numbers of
    images differ much), "top1_part" ("test" or "val"), "params", "macs", "images_per_s", "seconds" (training time);
    any other key becomes a column of its own."""
    relations: list[RelationMaps] = field(default_factory=list)
    cka_before: Matrix | None = None
    """(student blocks × teacher blocks) similarities in [0, 1] (Kornblith et al. 2019) before training."""
    cka_after: Matrix | None = None
    student_blocks: list[str] = field(default_factory=list)
    teacher_blocks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Caveats of the figures."""
    config_yaml: str = ""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """(epoch, label) of vertical marks on the curves, such as a change of the model's depth."""
    stages: Stages = field(default_factory=list)
    """The stages of a run that grew, in order; empty for one that did not. Keys: "stage" (1, 2, ...), "model"
    (such as "depth 6, width 192"), "by" (operators that made it; "" for the first), "first_epoch" (epochs done
    when it began), "epochs" (how many it has), "params", "macs", "seconds" (measured), "full_seconds" (what as
    many epochs take at full size, from the measured epochs of the last stage), "before" and "after" (validation
    score around the growth into it, or None), "score" (what they are: "top-1" in percent, or "loss")."""
    pruning: PruningData | None = None
    """Of a run that pruned."""
    times: Times = field(default_factory=list)
    """Rows of times.jsonl, one an epoch: "epoch", "steps" (optimizer steps that were timed, fewer than it had where
    the run was resumed inside it) and the seconds of each phase of these steps, in the main process, by its name;
    "rest" is their remaining time."""
    waiting: str = ""
    """A sentence on the time that training waited for images, where that was the bottleneck."""
    task: TaskData | None = None
    """Of a network that finds boxes or masks."""

    def __post_init__(self) -> None:
        wanted = (len(self.student_blocks), len(self.teacher_blocks))
        for name, matrix in self.cka.items():
            if matrix.shape != wanted:
                raise ValueError(f"CKA {name} has shape {matrix.shape}, but there are {wanted} block labels")

    @property
    def cka(self) -> dict[str, Matrix]:
        """The CKA matrices that there are, by "before training" and "after training"."""
        both = {"before training": self.cka_before, "after training": self.cka_after}
        return {name: matrix for name, matrix in both.items() if matrix is not None}


def by_role(models: Sequence[Row], role: str) -> Row | None:
    """The row whose "role" is `role`; a single row without any role is the student."""
    alone = role == "student" and len(models) == 1 and not models[0].get("role")
    return models[0] if alone else next((row for row in models if row.get("role") == role), None)


def common_part(rows: Sequence[Row]) -> str | None:
    """The part of the data that all accuracies are of; None where they differ in it or it is not known."""
    parts = {row.get("top1_part") for row in rows if formats.is_number(row.get("top1"))}
    return parts.pop() if len(parts) == 1 else None


def on_part(part: str | None, wording: str = " on {}") -> str:
    """The part in a heading or, with another wording, in a sentence: " on test"; empty where it is None."""
    return wording.format(PARTS.get(part, part)) if part else ""
