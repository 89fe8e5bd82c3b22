"""Where the annotated images of a dense task come from: splits and classes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from isometry.config import DataConfig
from isometry.data.dense.annotations import DenseImages, Task
from isometry.data.dense.coco import find_coco, open_coco
from isometry.data.dense.digit_scenes import open_scenes
from isometry.data.dense.duplicates import shared_pictures
from isometry.data.dense.findings import Findings
from isometry.data.dense.mask_files import open_masks
from isometry.data.dense.mask_layouts import find_masks
from isometry.data.dense.splitting import COUNTED, SPLITS, DenseSplits
from isometry.data.dense.yolo import find_yolo, open_yolo
from isometry.data.folders import existing_folder
from isometry.data.option_checks import check_options
from isometry.data.splits import MapPart
from isometry.data.survey import Survey, survey
from isometry.errors import UserError

KINDS = {"detect": "boxes", "segment": "masks"}
"""What the images of a task have."""

NOT_USED = ("class_map", "train_crop_mode", "aa", "reprob", "mixup", "cutmix", "smoothing", "crop_pct")
"""Options of classification that boxes and masks have no use for."""


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
    shared: list[str] = []
    if config.dataset == "digit-scenes":
        scenes, names = open_scenes(task)
        splits = DenseSplits("digit-scenes", dict(zip(SPLITS, scenes, strict=True)), names)
    elif config.dataset:
        raise UserError(
            f"--dataset {config.dataset} has no {KINDS[task]}; give digit-scenes, or --data-dir alone"
        )
    elif not config.data_dir:
        raise UserError(
            f"--data-dir: not given; give the folder of images with {KINDS[task]}, or --dataset digit-scenes"
        )
    else:
        place = Path(config.data_dir).expanduser()
        root = place if place.is_file() else existing_folder(config.data_dir)
        splits = (_boxes if task == "detect" else _masks)(root, config).with_validation(config)
        shared = shared_pictures(splits.parts, root if root.is_dir() else root.parent)
    counts = ", ".join(f"{len(part):,} {COUNTED[split]}" for split, part in splits.parts.items())
    text = f"{splits.what}: {counts} images with {KINDS[task]}, {len(splits.class_names)} classes"
    train, val, test = (splits.parts.get(split) for split in SPLITS)
    assert train is not None
    notes = [*splits.notes, *shared, *_not_used(config)]
    return DenseSources(task, train, val, test, splits.class_names, text, notes)


def dense_survey(sources: DenseSources) -> Survey:
    """A look at a sample of the training images: turned ones, greys of more than 8 bits, ``--pixel-range auto``."""
    return survey(MapPart(cast(Any, sources.train)))


def _not_used(config: DataConfig) -> list[str]:
    given = [name for name in NOT_USED if getattr(config, name) != getattr(DataConfig, name)]
    options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    return [f"options without effect on images with boxes or masks: {options}"] if given else []


def _boxes(root: Path, config: DataConfig) -> DenseSplits:
    if root.is_file() and root.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise UserError(f"--data-dir {root}: boxes are in a .json file (COCO), or in a .yaml file (YOLO)")
    if root.suffix.lower() == ".json" or (root.is_dir() and find_coco(root, config)):
        return open_coco(find_coco(root, config), root, config)
    if (place := find_yolo(root)) is not None:
        return open_yolo(place, root if root.is_dir() else root.parent, config)
    raise UserError(
        f"--data-dir {root}: has no boxes; give a folder with COCO's annotations/instances_train.json, with a JSON in "
        "each split's folder, or with YOLO's images/ and labels/"
    )


def _masks(root: Path, config: DataConfig) -> DenseSplits:
    findings = Findings(root)
    found = find_masks(root, config, findings) if root.is_dir() else {}
    if not found:
        raise UserError(
            f"--data-dir {root}: has no masks; give a folder with images/ and masks/, with train/images/ and "
            "train/masks/, or with VOC's JPEGImages/, SegmentationClass/ and ImageSets/"
        )
    return open_masks(found, root, config, findings)
