"""How many images each class has, and which classes validation can't judge."""

from collections import Counter
from collections.abc import Mapping, Sequence

from isometry.data.splits import MapPart, Part
from isometry.errors import NamesAll, printable


def class_counts(part: Part | None, names: Sequence[str] | None) -> dict[str, int] | None:
    """Class name -> number of the part's images; None where that is not known without reading them."""
    labels = part.labels() if isinstance(part, MapPart) else None
    if labels is None or not names:
        return None
    counts = Counter(labels)
    return {name: counts[index] for index, name in enumerate(names)}


def not_validated(train: Mapping[str, int] | None, val: Mapping[str, int] | None) -> list[str]:
    """A note that names the classes that are trained and have no image in validation, if there are any."""
    if train is None or val is None:
        return []
    lacking = sorted(
        (name for name, count in train.items() if count and not val[name]), key=lambda name: train[name]
    )
    if not lacking:
        return []
    named = [f"{printable(name)} ({train[name]:,})" for name in lacking]
    return [NamesAll.of("classes without an image in validation, and their training images", named)]
