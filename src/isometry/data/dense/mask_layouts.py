"""Where pictures and their masks lie: ``images/`` and ``masks/``, each with folders for the splits or inside them, or
VOC's JPEGImages, SegmentationClass and lists ImageSets/Segmentation/train.txt.

Format of VOC: M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.
"""

import os
from pathlib import Path

from isometry.config import DataConfig
from isometry.data.dense.findings import Findings
from isometry.data.dense.splitting import is_regular, split_of
from isometry.data.dense.yolo import read_names
from isometry.data.folder_listing import list_images
from isometry.data.image_files import natural_order

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "labels", "annotations")
"""Names of folders, in lower case."""
LISTS = Path("ImageSets", "Segmentation")
SUFFIX = "_mask"
"""What the names of masks may end in."""

Paths = dict[str, tuple[str, str]]
"""A picture's path and its mask's, by the name that both have; "" for a missing one."""


def find_masks(root: Path, config: DataConfig, findings: Findings) -> dict[str, Paths]:
    """Pictures and masks of each split, of the layouts above; a split that lacks all of one kind is there too.

    Empty where there are no folders of masks.
    """
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    if images is None and masks is None:
        inside = [
            (split, _named(folder, IMAGE_FOLDERS), _named(folder, MASK_FOLDERS))
            for folder in _folders(root)
            if (split := split_of(folder.name, config)) is not None
        ]
        return _parts(inside, findings)
    if images is None or masks is None:
        return {}
    if (root / LISTS).is_dir():
        return _listed(images, masks, root / LISTS, config, findings)
    own, of_masks = _splits(images, config), _splits(masks, config)
    splits = [(split, own.get(split), of_masks.get(split)) for split in {**own, **of_masks}]
    return _parts(splits, findings) or {"train": _paired(images, masks, findings)}


def _parts(splits: list[tuple[str, Path | None, Path | None]], findings: Findings) -> dict[str, Paths]:
    """The pairs of each split that has pictures or masks; empty where no split has both."""
    if not any(images and masks for _, images, masks in splits):
        return {}
    found: dict[str, Paths] = {}
    for split, images, masks in splits:
        if images or masks:
            found.setdefault(split, _paired(images, masks, findings))
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _splits(root: Path, config: DataConfig) -> dict[str, Path]:
    folders = {split_of(path.name, config): path for path in reversed(_folders(root))}
    return {split: path for split, path in reversed(folders.items()) if split is not None}


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    folders = {path.name.lower(): path for path in reversed(_folders(root))}
    return next((folders[name] for name in names if name in folders), None)


def _files(folder: Path | None) -> list[tuple[str, str]]:
    """Each picture under a folder: its path there without the ending, and its path."""
    paths = sorted(path for path, _ in list_images(folder).images) if folder else []
    return [(os.path.splitext(os.path.relpath(path, folder))[0], path) for path in paths]


def _paired(images: Path | None, masks: Path | None, findings: Findings) -> Paths:
    """Picture and mask by their name; masks may end in ``_mask``. Of several of a name, the first in order is taken."""
    own: dict[str, str] = {}
    of_masks: dict[str, str] = {}
    for name, path in _files(images):
        if own.setdefault(name, path) != path:
            findings.add("pictures left out (another has the same name, with another ending)", path)
    for name, path in _files(masks):
        if of_masks.setdefault(name if name in own else name.removesuffix(SUFFIX), path) != path:
            findings.add("masks left out (their picture has another mask)", path)
    names = sorted({*own, *of_masks}, key=natural_order)
    return {name: (own.get(name, ""), of_masks.get(name, "")) for name in names}


def _listed(
    images: Path, masks: Path, lists: Path, config: DataConfig, findings: Findings
) -> dict[str, Paths]:
    files = {split_of(path.stem, config): path for path in sorted(lists.glob("*.txt")) if is_regular(path)}
    paired = _paired(images, masks, findings)
    return {
        split: {name: paired.get(name, ("", "")) for name in read_names(path)}
        for split, path in files.items()
        if split is not None
    }
