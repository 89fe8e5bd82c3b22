"""Where the annotated images of a dense task come from: splits and classes."""

from dataclasses import dataclass, field

from isometry.config import DataConfig
from isometry.data.dense.annotations import DenseImages, Task
from isometry.data.dense.digit_scenes import open_scenes
from isometry.data.option_checks import check_options
from isometry.errors import UserError


@dataclass(frozen=True)
class DenseSources:
    """The splits of a dense task and their classes.

    ``class_names`` are by index. Those of masks begin with the class 0, which is the background in most data sets;
    those of boxes have no background. ``description`` is one line; ``notes`` say what was left out or changed.
    """

    task: Task
    train: DenseImages
    val: DenseImages | None
    test: DenseImages | None
    class_names: list[str]
    description: str
    notes: list[str] = field(default_factory=list)


def find_dense_sources(config: DataConfig, task: Task) -> DenseSources:
    """Opens the annotated images that ``config`` names, with one label space for all splits.

    Raises:
        UserError: invalid options, or data that can't be used.
    """
    check_options(config)
    if config.dataset == "digit-scenes":
        (train, val, test), names = open_scenes(task)
        return described("digit-scenes (scikit-learn's digits)", task, train, val, test, names)
    raise UserError("no data: give --dataset digit-scenes")


def described(
    what: str,
    task: Task,
    train: DenseImages,
    val: DenseImages | None,
    test: DenseImages | None,
    names: list[str],
    notes: list[str] | None = None,
) -> DenseSources:
    """The sources, with a description that counts their images."""
    parts = {"training": train, "validation": val, "test": test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
    kind = "boxes" if task == "detect" else "masks"
    text = f"{what}: {counts} images with {kind}, {len(names)} classes"
    return DenseSources(task, train, val, test, names, text, notes or [])
