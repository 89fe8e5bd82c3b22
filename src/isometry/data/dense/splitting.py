"""The splits of files with annotations: their names, and what is split off where validation is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from isometry.config import DataConfig
from isometry.data.dense.annotations import DenseImages, DensePart
from isometry.data.folders import TEST_NAMES, TRAIN_NAMES, VAL_NAMES, split_names
from isometry.data.splits import split_off
from isometry.errors import UserError

SPLITS = ("train", "val", "test")
COUNTED = {"train": "training", "val": "validation", "test": "test"}
"""What their images are called in messages."""

PartT = TypeVar("PartT", bound=DenseImages)


@dataclass(frozen=True)
class DenseSplits:
    """What a format's reader found: ``parts`` by the names in SPLITS, classes by index, what was left out."""

    what: str
    parts: Mapping[str, DenseImages]
    class_names: list[str]
    notes: list[str] = field(default_factory=list)

    def with_validation(self, config: DataConfig) -> "DenseSplits":
        """The same with a validation part: ``--val-fraction`` of the training images, always the same ones, if there is
        none.

        Raises:
            UserError: no training images, or too few.
        """
        train = self.parts.get("train")
        if train is None:
            raise UserError(f"{self.what}: has no {config.train_split} part; add the training images")
        if "val" in self.parts:
            return self
        if len(train) < 2:
            raise UserError(f"{self.what}: has {len(train)} image; add more, to train and to validate")
        kept, split = split_off([0] * len(train), config.val_fraction)
        parts = {**self.parts, "train": DensePart(train, kept), "val": DensePart(train, split)}
        return DenseSplits(f"{self.what}, validation split off", parts, self.class_names, self.notes)


def split_of(name: str, config: DataConfig) -> str | None:
    """The split, of SPLITS, that a folder or a word of a file's name means; None for any other."""
    lower = name.lower()
    names = (
        split_names(config.train_split, TRAIN_NAMES),
        split_names(config.val_split, VAL_NAMES),
        TEST_NAMES,
    )
    return next((split for split, own in zip(SPLITS, names, strict=True) if lower in own), None)


def is_regular(path: Path) -> bool:
    """Whether it is a file, and not one that a system makes for its own use."""
    return path.is_file() and not path.name.startswith("._")
