"""Where a run's images come from: splits, classes and counts, found without reading an image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isometry.config import DataConfig
from isometry.data.digits import open_digits
from isometry.data.folders import open_folder
from isometry.data.option_checks import check_options
from isometry.data.splits import Part
from isometry.data.timm_datasets import open_scheme


@dataclass(frozen=True)
class Sources:
    """The splits of a run's data and their classes.

    ``num_classes`` is None without labels, or if the data set does not name its classes (wds/ without a class
    map). ``description`` is one line: data set, place, images of each split, number of classes.
    """

    train: Part
    val: Part | None
    test: Part | None
    num_classes: int | None
    class_names: list[str] | None
    labelled: bool
    description: str


def find_sources(config: DataConfig) -> Sources:
    """Opens the data that ``config`` names, with one label space for all splits; decodes nothing.

    Raises:
        UserError: invalid options, or data that can't be used.
    """
    check_options(config)
    if config.dataset == "digits":
        train, val, test = open_digits()
        class_to_idx = {str(digit): digit for digit in range(10)}
        return _sources("digits (scikit-learn)", train, val, test, class_to_idx)
    if config.dataset:
        scheme = open_scheme(config)
        what = f"{config.dataset}{f' in {config.data_dir}' if config.data_dir else ''}"
        return _sources(what, scheme.train, scheme.val, None, scheme.class_to_idx)
    folder = open_folder(config)
    what = f"image folder {config.data_dir}"
    return _sources(what, folder.train, folder.val, folder.test, folder.class_to_idx, folder.note)


def without_labels(sources: Sources) -> Sources:
    """The same images, labels ignored, for a network without a classifier."""
    if not sources.labelled:
        return sources
    description = f"{sources.description}; the labels are not used"
    return replace(sources, num_classes=None, class_names=None, labelled=False, description=description)


def _sources(
    what: str,
    train: Part,
    val: Part | None,
    test: Part | None,
    class_to_idx: Mapping[str, int] | None,
    note: str = "",
) -> Sources:
    """``class_to_idx``: None for data without labels, empty for labels without names."""
    names = _class_names(class_to_idx) if class_to_idx else None
    named = f"{len(names)} classes" if names else "classes not named"
    classes = "no labels" if class_to_idx is None else named
    parts = {"training": train, "validation": val, "test": test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
    return Sources(
        train=train,
        val=val,
        test=test,
        num_classes=len(names) if names else None,
        class_names=names,
        labelled=class_to_idx is not None,
        description=f"{what}: {counts} images, {classes}{note}",
    )


def _class_names(class_to_idx: Mapping[str, int]) -> list[str]:
    """Names by index: the first of several names of one index (ImageNet's synonyms), or the number."""
    names = {index: str(name) for name, index in reversed(list(class_to_idx.items()))}
    return [names.get(index, str(index)) for index in range(max(names) + 1)]
