"""The splits of a data set (train, validation, test), before any transform.

``Images`` decodes images by number; a ``MapPart`` is a subset of them, with the training split's labels; a
``StreamPart`` can only be read from its start.
"""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from isometry.errors import UserError
from isometry.seeding import derive_seed

UNLABELLED = -1
"""The target of an image without a label."""

DECODE_ERRORS = (
    OSError,
    SyntaxError,  # what Pillow raises for a broken PNG
    ValueError,
    TypeError,  # a broken TIFF
    RuntimeError,  # a broken AVIF or DDS, under any suffix
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions of Pillow's decoders on a file that is missing, truncated, too large, or not an image."""


class Images(Protocol):
    """Labelled images that can be decoded by number."""

    def __len__(self) -> int: ...

    def load(self, number: int) -> tuple[Image.Image, int]:
        """An image, perhaps not decoded yet, and its label in the source's own label space.

        Raises one of ``DECODE_ERRORS``.
        """

    def where(self, number: int) -> str:
        """The image's path, or a description of where it is."""

    def labels(self) -> Sequence[int] | None:
        """The labels of all images in the source's own label space; None if they are not known without reading."""


@dataclass(frozen=True)
class MapPart:
    """The images ``numbers`` (None: all) of ``images``, labels mapped by ``relabel`` (None: kept)."""

    images: Images
    numbers: Sequence[int] | None = None
    relabel: Mapping[int, int] | None = None

    def __len__(self) -> int:
        return len(self.images) if self.numbers is None else len(self.numbers)

    def load(self, index: int) -> tuple[Image.Image, int]:
        """Image and target of the part's ``index``-th image; raises one of ``DECODE_ERRORS``."""
        image, label = self.images.load(self._number(index))
        return image, label if self.relabel is None else self.relabel.get(label, UNLABELLED)

    def where(self, index: int) -> str:
        """The path of the part's ``index``-th image, or a description of where it is."""
        return self.images.where(self._number(index))

    def labels(self) -> list[int] | None:
        """The targets of the part's images; None if they are not known without reading."""
        labels = self.images.labels()
        if labels is None:
            return None
        own = [labels[self._number(index)] for index in range(len(self))]
        return own if self.relabel is None else [self.relabel.get(label, UNLABELLED) for label in own]

    def _number(self, index: int) -> int:
        return index if self.numbers is None else int(self.numbers[index])


@dataclass(frozen=True)
class StreamPart:
    """A timm ``IterableImageDataset`` (WebDataset, TFDS, Hugging Face streaming) and its approximate length.

    ``open_for`` takes ``batch_size`` and ``seed``, which timm's readers need at construction.
    """

    open_for: Callable[..., Any]
    count: int

    def __len__(self) -> int:
        return self.count


Part = MapPart | StreamPart


@dataclass(frozen=True)
class Splits:
    """The splits of a data set, one label space for all.

    ``class_to_idx`` is None without labels, and empty if the data set does not name its classes; ``note`` describes
    what was split off, ``notes`` what was left out.
    """

    train: Part
    val: Part | None
    test: Part | None
    class_to_idx: Mapping[str, int] | None
    note: str = ""
    notes: list[str] = field(default_factory=list)


def relabelling(own: Mapping[str, int], common: Mapping[str, int], where: str) -> dict[int, int] | None:
    """Maps a split's labels (classes ``own``) to the training split's (``common``); None if they are equal.

    Raises UserError for a class that the training split lacks.
    """
    unknown = sorted(own.keys() - common.keys())
    if unknown:
        raise UserError(
            f"{where} has {len(unknown)} class(es) without training images, e.g. {unknown[0]!r}: "
            "add training images of it, or remove it"
        )
    if own == common:
        return None
    return {label: common[name] for name, label in own.items()}


def shuffled_classes(targets: Sequence[int]) -> list[np.ndarray]:
    """The positions of each class's images, always shuffled the same way, independent of the run's seed."""
    # RandomState, not Generator: NumPy promises that its stream never changes.
    random_state = np.random.RandomState(derive_seed("isometry", "split") % 2**32)
    array = np.asarray(targets)
    return [random_state.permutation(np.flatnonzero(array == label)) for label in np.unique(array)]


def split_off(
    targets: Sequence[int], fraction: float, since: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """Positions (kept, split off): ``fraction`` of each class is split off, at least 1 and never all.

    ``since`` orders images by the version that was the first to read them (none given: all alike). Each version's are
    split as if later ones were not there, so that no run judges an earlier one by its training images.
    """
    array, versions = np.asarray(targets, dtype=int), np.zeros(len(targets), dtype=int)
    versions[: len(since)] = since
    split: list[int] = []
    trained: set[int] = set()
    judged: set[int] = set()
    for version in np.unique(versions):
        positions = np.flatnonzero(versions == version)
        for order in shuffled_classes(array[positions].tolist()):
            members = positions[order].tolist()
            label = int(array[members[0]])
            wanted = max(label not in judged, round(len(members) * fraction))
            taken = members[: min(wanted, len(members) - (label not in trained))]
            split += taken
            judged |= {label} if taken else set()
            trained.add(label)
    kept = np.setdiff1d(np.arange(len(array)), split)
    return kept.tolist(), sorted(split)
