"""Pictures with masks: ``images/`` and ``masks/``, each with folders for the splits or inside them, or VOC's folders.

A mask is a picture of one channel with the class of each pixel: an indexed PNG (the index in the palette is the class)
or greys; 255 is ignored. A file of names, ``classes.txt`` or ``labels.txt``, has a class a line, from 0; without it the
classes are numbers. VOC's layout is JPEGImages, SegmentationClass and the lists ImageSets/Segmentation/train.txt.

Format of VOC: M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from isometry.config import DataConfig
from isometry.data.decoding import DecodeError, decode_errors, open_image
from isometry.data.dense.annotations import IGNORED
from isometry.data.dense.findings import Findings
from isometry.data.dense.pictures import Picture, look
from isometry.data.dense.splitting import DenseSplits, is_regular, split_of
from isometry.data.dense.yolo import read_names
from isometry.data.folder_listing import list_images
from isometry.data.image_files import natural_order
from isometry.data.image_formats import open_picture, read_bytes
from isometry.data.orientation import Turn
from isometry.errors import UserError, printable

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "labels", "annotations")
"""Names of folders, in lower case."""
NAMES = ("classes.txt", "labels.txt")
LISTS = Path("ImageSets", "Segmentation")
INDEXED = ("P", "L", "1", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of masks; all have one channel."""
DECODED = 2000
"""Most masks whose values are looked at before training, at equal distances; others are checked as they are read."""


@dataclass(frozen=True)
class Pair:
    """A picture's path, its mask's, and what turns the mask along with the picture."""

    picture: str
    mask: str
    turn: Turn | None = None


class MaskFiles:
    """Picture files by number, with masks of ``classes`` classes that are read with them."""

    def __init__(self, pairs: Sequence[Pair], classes: int) -> None:
        self.pairs, self.classes = pairs, classes

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, number: int) -> tuple[Image.Image, np.ndarray]:
        """A picture, perhaps not decoded yet, and its mask; raises one of ``splits.DECODE_ERRORS``."""
        pair = self.pairs[number]
        try:
            mask = read_mask(pair.mask, pair.turn)
        except DecodeError as error:
            raise ValueError(f"its mask {printable(pair.mask)}: {error}") from error
        wrong = mask[(mask >= self.classes) & (mask != IGNORED)]
        if wrong.size:
            raise ValueError(
                f"its mask {printable(pair.mask)} has the value {wrong.max()}, and there are {self.classes} classes"
            )
        return open_image(read_bytes(pair.picture)), mask

    def where(self, number: int) -> str:
        """The picture's path, printable."""
        return printable(self.pairs[number].picture)

    def boxes(self, number: int) -> None:
        """There are none."""


def read_mask(path: str, turn: Turn | None = None) -> np.ndarray:
    """The class of each pixel, uint8 (H,W), perhaps turned.

    Raises:
        DecodeError: no file or no picture that can be decoded, more than one channel, or a value above 255.
    """
    with decode_errors(), open_picture(read_bytes(path)) as image:
        if image.mode not in INDEXED:
            raise ValueError(
                f"is of mode {image.mode}, not of one channel; write the class of each pixel as a grey or an index"
            )
        image.load()
        turned = image if turn is None else image.transpose(turn)
        values = np.asarray(turned)
        if values.max(initial=0) > IGNORED or values.min(initial=0) < 0:
            raise ValueError(f"has values of {values.min()} to {values.max()}, not all in 0 to {IGNORED}")
        return values.astype(np.uint8)


def find_masks(root: Path, config: DataConfig) -> dict[str, dict[str, tuple[str, str]]]:
    """Pictures and masks of each split, by the name that both have, of the layouts above; "" for a missing one.

    Empty where there are no folders of masks.
    """
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    if images is None and masks is None:
        inside: dict[str, dict[str, tuple[str, str]]] = {}
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            split = split_of(folder.name, config)
            pair = _named(folder, IMAGE_FOLDERS), _named(folder, MASK_FOLDERS)
            if split is not None and pair[0] is not None and pair[1] is not None:
                inside.setdefault(split, _paired(pair[0], pair[1]))
        return inside
    if images is None or masks is None:
        return {}
    if (root / LISTS).is_dir():
        return _listed(images, masks, root / LISTS, config)
    splits = {
        split: folder
        for folder in sorted(path for path in images.iterdir() if path.is_dir())
        if (split := split_of(folder.name, config)) is not None
    }
    of_masks = {split_of(path.name, config): path for path in sorted(masks.iterdir()) if path.is_dir()}
    found = {split: _paired(folder, of_masks[split]) for split, folder in splits.items() if split in of_masks}
    return found or {"train": _paired(images, masks)}


def open_masks(
    found: Mapping[str, Mapping[str, tuple[str, str]]], root: Path, config: DataConfig
) -> DenseSplits:
    """Checks pictures and masks by their headers, and the values of up to DECODED masks.

    Masks are of the upright picture, or turned along with it where their size is that of the picture as stored.

    Raises:
        UserError: a split without a picture that has a mask, values beyond the classes, or 0 and 255 alone.
    """
    findings = Findings(root)
    pairs = {split: _checked(split, files, root, config, findings) for split, files in found.items()}
    named = [path for name in NAMES if is_regular(path := root / name)]
    names = read_names(named[0]) if named else None
    classes = _classes(pairs, names, named[0] if named else root, findings)
    shown = names or [str(index) for index in range(classes)]
    parts = {split: MaskFiles(own, classes) for split, own in pairs.items()}
    return DenseSplits(f"masks in {root}", parts, shown, findings.notes)


def _named(root: Path, names: Sequence[str]) -> Path | None:
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _files(folder: Path) -> dict[str, str]:
    """Path of each picture under a folder, by its path there without the ending."""
    paths = sorted(path for path, _ in list_images(folder).images)
    return {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in paths}


def _paired(images: Path, masks: Path) -> dict[str, tuple[str, str]]:
    """Picture and mask by their name; masks may end in ``_mask``."""
    own, of_masks = _files(images), {name.removesuffix("_mask"): path for name, path in _files(masks).items()}
    names = sorted({*own, *of_masks}, key=natural_order)
    return {name: (own.get(name, ""), of_masks.get(name, "")) for name in names}


def _listed(
    images: Path, masks: Path, lists: Path, config: DataConfig
) -> dict[str, dict[str, tuple[str, str]]]:
    files = {split_of(path.stem, config): path for path in sorted(lists.glob("*.txt")) if is_regular(path)}
    paired = _paired(images, masks)
    return {
        split: {name: paired.get(name, ("", "")) for name in read_names(path)}
        for split, path in files.items()
        if split is not None
    }


def _checked(
    split: str, files: Mapping[str, tuple[str, str]], root: Path, config: DataConfig, findings: Findings
) -> list[Pair]:
    whole = [(name, *paths) for name, paths in files.items() if all(paths)]
    for name, (picture, mask) in files.items():
        if not (picture or mask):
            findings.add("listed names left out (without picture and mask)", name)
        elif not mask:
            findings.add("pictures left out (without a mask)", picture)
        elif not picture:
            findings.add("masks left out (without a picture)", mask)
    looked = look([picture for _, picture, _ in whole]), look([mask for *_, mask in whole])
    pairs = [pair for both in zip(*looked, strict=True) if (pair := _pair(*both, config, findings))]
    if not pairs:
        why = "; ".join(note.removeprefix(f"{root}: ") for note in findings.notes)
        raise UserError(f"{root}: the {split} part has no picture with a mask ({why or 'it is empty'})")
    return pairs


def _pair(picture: Picture, mask: Picture, config: DataConfig, findings: Findings) -> Pair | None:
    if picture.fault:
        findings.add("pictures that can't be read", f"{picture.path} ({picture.fault})")
        return Pair(picture.path, mask.path)
    if mask.fault:
        return Pair(picture.path, mask.path)
    if mask.size not in (picture.size, picture.read_size(upright=True)):
        sizes = " and ".join(f"{each.size[0]}×{each.size[1]}" for each in (picture, mask))
        findings.add(
            "pictures left out (their masks are of another size)", f"{picture.path} ({sizes} with its mask)"
        )
        return None
    turn = picture.turn_for(mask.size, config.exif == "upright")
    if turn is not None:
        findings.add("masks that were turned along with their pictures (EXIF)", mask.path)
    return Pair(picture.path, mask.path, turn)


def _classes(
    pairs: Mapping[str, Sequence[Pair]], names: list[str] | None, place: Path, findings: Findings
) -> int:
    """The number of classes: that of the names, or one more than the largest value."""
    seen = _looked_at([pair.mask for own in pairs.values() for pair in own], place, findings)
    largest = {path: max(own - {IGNORED}, default=0) for path, own in seen.items()}
    if names is None:
        values = set().union(*seen.values())
        if values <= {0, IGNORED}:
            raise UserError(
                f"{place}: the masks have the values {' and '.join(map(str, sorted(values)))} alone, and 255 is "
                "ignored; write 0, 1, ... for the classes"
            )
        return max(largest.values()) + 1
    wrong = [path for path, value in largest.items() if value >= len(names)]
    if wrong:
        raise UserError(
            f"{place}: names {len(names)} classes, and {len(wrong):,} masks have values above {len(names) - 1}, e.g. "
            f"{printable(wrong[0])} ({largest[wrong[0]]}); name all classes, the first of them 0"
        )
    return len(names)


def _looked_at(paths: Sequence[str], place: Path, findings: Findings) -> dict[str, set[int]]:
    """The values in each mask of a sample that can be read.

    Raises:
        UserError: none can.
    """
    some = paths[:: max(1, -(-len(paths) // DECODED))]
    if len(some) < len(paths):
        findings.add(f"masks whose values were looked at, of {len(paths):,}", some[0], len(some))
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        found = dict(zip(some, pool.map(_values, some), strict=True))
    faults = {path: values for path, values in found.items() if isinstance(values, str)}
    for path, fault in faults.items():
        findings.add("masks that can't be used", f"{path} ({fault})")
    if len(faults) == len(found):
        path, fault = next(iter(faults.items()))
        raise UserError(f"{place}: no mask can be used, e.g. {printable(path)} ({fault})")
    return {path: values for path, values in found.items() if not isinstance(values, str)}


def _values(path: str) -> set[int] | str:
    """The values in a mask, or why it can't be read."""
    try:
        return set(np.flatnonzero(np.bincount(read_mask(path).ravel())).tolist())
    except DecodeError as error:
        return str(error)
