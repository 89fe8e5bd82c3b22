"""Where a run's images come from: splits, classes and counts, found without reading an image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isometry.config import DataConfig
from isometry.data.class_counts import class_counts, not_validated
from isometry.data.dense.digit_scenes import open_labelled_scenes
from isometry.data.digits import open_digits
from isometry.data.file_list import is_list, open_list
from isometry.data.folders import open_folder
from isometry.data.option_checks import check_options
from isometry.data.splits import Part, Splits
from isometry.data.timm_datasets import open_scheme
from isometry.errors import counted

DIGIT_CLASSES = {str(digit): digit for digit in range(10)}


@dataclass(frozen=True)
class Sources:
    """The splits of a run's data and their classes.

    ``num_classes`` is None without labels, or if the data set does not name its classes (wds/ without a class
    map). ``description`` is one line: data set, place, images of each split, number of classes. ``train_counts``
    are the training images of each class, None if not known; ``notes`` say what was left out, ``class_notes`` which
    classes validation lacks.
    """

    train: Part
    val: Part | None
    test: Part | None
    num_classes: int | None
    class_names: list[str] | None
    labelled: bool
    description: str
    train_counts: dict[str, int] | None = None
    notes: list[str] = field(default_factory=list)
    class_notes: list[str] = field(default_factory=list)


def find_sources(config: DataConfig, *, reporting: bool = False) -> Sources:
    """Opens the data that ``config`` names, with one label space for all splits; decodes nothing.

    For a report on the data alone (``reporting``), images beside class folders are left out instead of refused.

    Raises:
        UserError: invalid options, or data that can't be used.
    """
    check_options(config)
    if config.dataset == "digits":
        return _sources("digits (scikit-learn)", Splits(*open_digits(), DIGIT_CLASSES))
    if config.dataset == "digit-scenes":
        what = "digit-scenes (scenes of scikit-learn's digits, of the class of the largest digit)"
        return _sources(what, Splits(*open_labelled_scenes(), DIGIT_CLASSES))
    if config.dataset:
        where = f" in {config.data_dir}" if config.data_dir else ""
        return _sources(f"{config.dataset}{where}", open_scheme(config))
    if is_list(config.data_dir):
        return _sources(f"image list {config.data_dir}", open_list(config))
    return _sources(f"image folder {config.data_dir}", open_folder(config, reporting=reporting))


def without_labels(sources: Sources) -> Sources:
    """The same images, labels ignored, for a network without a classifier."""
    if not sources.labelled:
        return sources
    description = f"{sources.description}; the labels are not used"
    return replace(
        sources,
        num_classes=None,
        class_names=None,
        labelled=False,
        description=description,
        train_counts=None,
        class_notes=[],
    )


def _sources(what: str, splits: Splits) -> Sources:
    labelled = splits.class_to_idx is not None
    names = _class_names(splits.class_to_idx) if splits.class_to_idx else None
    named = counted(len(names), "class", "classes") if names else "classes not named"
    parts = {"training": splits.train, "validation": splits.val, "test": splits.test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
    # The noun follows the last number.
    last = [len(part) for part in parts.values() if part is not None][-1]
    images = "image" if last == 1 else "images"
    train_counts, val_counts = (class_counts(part, names) for part in (splits.train, splits.val))
    return Sources(
        splits.train,
        splits.val,
        splits.test,
        num_classes=len(names) if names else None,
        class_names=names,
        labelled=labelled,
        description=f"{what}: {counts} {images}, {named if labelled else 'no labels'}{splits.note}",
        train_counts=train_counts,
        notes=splits.notes,
        class_notes=not_validated(train_counts, val_counts),
    )


def _class_names(class_to_idx: Mapping[str, int]) -> list[str]:
    """Names by index: the first of several names of one index (ImageNet's synonyms), or the number."""
    names = {index: str(name) for name, index in reversed(list(class_to_idx.items()))}
    return [names.get(index, str(index)) for index in range(max(names) + 1)]
