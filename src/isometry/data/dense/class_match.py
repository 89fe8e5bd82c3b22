"""Data of a dense task with the classes of a network: matched by name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from isometry.data.dense.annotations import IGNORED, Annotation, Boxes, DenseImages
from isometry.data.dense.sources import DenseSources
from isometry.data.dense.splitting import COUNTED
from isometry.errors import UserError, printable, some_of

UNKNOWN = -1
"""Number of a class that the network lacks."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Renumbered:
    """Images whose class ``c`` is ``numbers[c]`` of the network, :data:`UNKNOWN` where it has none."""

    images: DenseImages
    numbers: Sequence[int]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, number: int) -> tuple[Image.Image, Annotation]:
        """An image and its annotation; raises one of ``DECODE_ERRORS``, or a UserError for an unknown class."""
        image, annotation = self.images.load(number)
        return image, self._renumbered(annotation, number)

    def where(self, number: int) -> str:
        """The image's path, or a description of where it is."""
        return self.images.where(number)

    def boxes(self, number: int) -> Boxes | None:
        """The boxes of an image that are known without decoding it."""
        known = self.images.boxes(number)
        return None if known is None else self._boxes(known, number)

    def annotation_id(self, number: int) -> str:
        """That of the image with the classes of the data."""
        return self.images.annotation_id(number)

    def _renumbered(self, annotation: Annotation, number: int) -> Annotation:
        if isinstance(annotation, Boxes):
            return self._boxes(annotation, number)
        table = np.full(256, IGNORED, np.int64)
        table[: len(self.numbers)] = self.numbers
        found = table[annotation]
        self._check(annotation[found == UNKNOWN], number)
        return found.astype(np.uint8)

    def _boxes(self, boxes: Boxes, number: int) -> Boxes:
        labels = np.array(self.numbers, dtype=np.int64)[boxes.labels]
        self._check(boxes.labels[labels == UNKNOWN], number)
        return replace(boxes, labels=labels)

    def _check(self, unknown: np.ndarray, number: int) -> None:
        if unknown.size:
            name = printable(self.names[int(unknown[0])])
            raise UserError(
                f"{self.where(number)}: has the class {name}, which the network lacks; give data of its classes with "
                "--data-dir or --dataset"
            )


def with_classes(sources: DenseSources, class_names: Sequence[str], who: str) -> DenseSources:
    """The data with the classes of a network, matched by name whatever their order.

    Classes that one of both lacks are named in a note. Of those that the network lacks, the part that is evaluated
    (test, or without it validation) must have no box; masks are checked as they are read.

    Args:
        sources: the data.
        class_names: of the network.
        who: the beginning of an error, such as ``evaluate runs/detector``.

    Raises:
        UserError: no class in common, a box of a class that the network lacks, or several classes of one name.
    """
    names = list(class_names)
    if sources.class_names == names:
        return sources
    common = set(names) & set(sources.class_names)
    repeated = [name for each in (names, sources.class_names) for name, n in Counter(each).items() if n > 1]
    extra = [name for name in sources.class_names if name not in common]
    part, images = ("test", sources.test) if sources.test is not None else ("val", sources.val)
    used = _used(images) & {sources.class_names.index(name) for name in extra}
    if not common or repeated or used:
        what = [sources.class_names[number] for number in sorted(used)]
        why = f"; the {COUNTED[part]} images have boxes of {_some(what)}" if used else ""
        raise UserError(
            f"{who}: the network has the classes {_some(names)} and the data {_some(sources.class_names)}{why}; give "
            "data of its classes with --data-dir or --dataset"
        )
    numbers = [names.index(name) if name in common else UNKNOWN for name in sources.class_names]

    def renumbered(images: DenseImages | None) -> DenseImages | None:
        return None if images is None else Renumbered(images, numbers, sources.class_names)

    train = renumbered(sources.train)
    assert train is not None
    lacking = [name for name in names if name not in common]
    notes = [f"classes of the network that the data lacks: {_some(lacking)}"] if lacking else []
    if extra:
        how = "without boxes" if sources.task == "detect" else "a mask that has one is refused"
        notes.append(f"classes of the data that the network lacks ({how}): {_some(extra)}")
    return replace(
        sources,
        train=train,
        val=renumbered(sources.val),
        test=renumbered(sources.test),
        class_names=names,
        notes=[*sources.notes, *notes],
    )


def _used(images: DenseImages | None) -> set[int]:
    """The classes of all boxes that are known without decoding an image."""
    known = (images.boxes(number) for number in range(len(images))) if images is not None else ()
    return {int(label) for boxes in known if boxes is not None for label in boxes.labels}


def _some(names: Sequence[str]) -> str:
    return some_of([*map(printable, names)], MOST_NAMED)
