"""Pictures with masks, checked and read together."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from isometry.config import DataConfig
from isometry.data.decoding import DecodeError, open_image
from isometry.data.dense.annotations import IGNORED
from isometry.data.dense.findings import Findings
from isometry.data.dense.mask_classes import mask_classes
from isometry.data.dense.mask_layouts import Paths
from isometry.data.dense.mask_reading import check_mask, ranges, read_mask, values_in
from isometry.data.dense.pictures import TAKEN_AS_UPRIGHT, Picture, look
from isometry.data.dense.splitting import DenseSplits
from isometry.data.image_formats import read_bytes
from isometry.data.orientation import Turn
from isometry.errors import UserError, printable

DECODED = 2000
"""Most masks whose values are looked at before training, at equal distances; others are checked as they are read."""
THREADS = min(4, os.cpu_count() or 1)
"""Each decodes a mask at a time, and a small file may be a large mask."""


@dataclass(frozen=True)
class Pair:
    """A picture's path, its mask's, and what turns the mask along with the picture."""

    picture: str
    mask: str
    turn: Turn | None = None


class MaskFiles:
    """Picture files by number, with masks that are read with them; ``values`` are those of the classes, in order."""

    def __init__(self, pairs: Sequence[Pair], values: Sequence[int]) -> None:
        self.pairs, self.values = pairs, list(values)
        self._class_of = np.arange(256, dtype=np.uint8)
        self._class_of[self.values] = np.arange(len(self.values))

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, number: int) -> tuple[Image.Image, np.ndarray]:
        """A picture, perhaps not decoded yet, and its mask.

        Raises one of ``splits.DECODE_ERRORS``, or a DecodeError that names the mask.
        """
        pair = self.pairs[number]
        subject = f"the mask {printable(pair.mask)}"
        try:
            mask = read_mask(pair.mask, pair.turn)
        except DecodeError as error:
            raise DecodeError(str(error), subject) from error
        wrong = values_in(mask) - {*self.values, IGNORED}
        if wrong:
            raise DecodeError(
                f"has the value {max(wrong)}, and the {len(self.values)} classes are {ranges(self.values)}; name all "
                "classes in classes.txt",
                subject,
            )
        if self.values != list(range(len(self.values))):
            mask = self._class_of[mask]
        return open_image(read_bytes(pair.picture)), mask

    def where(self, number: int) -> str:
        """The picture's path, printable."""
        return printable(self.pairs[number].picture)

    def boxes(self, number: int) -> None:
        """There are none."""

    def annotation_id(self, number: int) -> str:
        """The name and size of the mask's file."""
        mask = Path(self.pairs[number].mask)
        try:
            return f"{mask.name} {mask.stat().st_size}"
        except OSError:
            return mask.name


def open_masks(found: Mapping[str, Paths], root: Path, config: DataConfig, findings: Findings) -> DenseSplits:
    """Checks pictures and masks by their headers, and the values of up to DECODED masks.

    Masks are of the upright picture, or turned along with it where their size is that of the picture as stored.

    Raises:
        UserError: a split without a picture that has a mask, masks that can't be used (without ``--skip-bad-images``),
            or as :func:`mask_classes`.
    """
    looked = {
        split: _looked(files, findings)
        for split, files in found.items()
        if split != "test" or _has_masks(files, findings)
    }
    masks = [mask for pairs in looked.values() for _, mask in pairs]
    faults = {mask.path: mask.fault for mask in masks if mask.fault}
    seen, others = _values_of_some([mask.path for mask in masks if not mask.fault], findings)
    faults |= others
    if faults and not (config.skip_bad_images and seen):
        raise UserError(_unusable(faults, len(faults) if not seen else len(masks), root))
    pairs = {split: _pairs(split, own, faults, root, config, findings) for split, own in looked.items()}
    used = {pair.mask for own in pairs.values() for pair in own}
    names = mask_classes(
        root,
        {path: values for path, values in seen.items() if path in used} or seen,
        {pair.mask for pair in pairs.get("train", ())},
        findings,
    )
    parts = {split: MaskFiles(own, list(names)) for split, own in pairs.items()}
    return DenseSplits(f"masks in {root}", parts, list(names.values()), findings.notes)


def _has_masks(files: Paths, findings: Findings) -> bool:
    without = [picture for picture, mask in files.values() if not mask]
    if len(without) < len(files):
        return True
    findings.add("test pictures left out (none has a mask)", next(iter(without), "none"), len(without))
    return False


def _looked(files: Paths, findings: Findings) -> list[tuple[Picture, Picture]]:
    """The headers of each picture and its mask, where there are both."""
    whole = [paths for paths in files.values() if all(paths)]
    for name, (picture, mask) in files.items():
        if not (picture or mask):
            findings.add("listed names left out (without picture and mask)", name)
        elif not mask:
            findings.add("pictures left out (without a mask)", picture)
        elif not picture:
            findings.add("masks left out (without a picture)", mask)
    pictures, masks = look([picture for picture, _ in whole]), look([mask for _, mask in whole], check_mask)
    return list(zip(pictures, masks, strict=True))


def _unusable(faults: Mapping[str, str], masks: int, root: Path) -> str:
    path, fault = next(iter(faults.items()))
    example = f"e.g. {printable(path)} ({fault})"
    if len(faults) == masks:
        return f"{root}: no mask can be used, {example}"
    return (
        f"{root}: of {masks:,} masks, {len(faults):,} can't be used, {example}; mend them, or go on without them and "
        "their pictures with --skip-bad-images"
    )


def _pairs(
    split: str,
    looked: Sequence[tuple[Picture, Picture]],
    faults: Mapping[str, str],
    root: Path,
    config: DataConfig,
    findings: Findings,
) -> list[Pair]:
    pairs = []
    for picture, mask in looked:
        if mask.path in faults:
            example = f"{picture.path} ({mask.path}: {faults[mask.path]})"
            findings.add("pictures left out (their masks can't be used)", example)
        elif (pair := _pair(picture, mask, config, findings)) is not None:
            pairs.append(pair)
    if not pairs:
        why = "; ".join(findings.reasons) or "it is empty"
        raise UserError(f"{root}: the {split} part has no picture with a mask ({why})")
    return pairs


def _pair(picture: Picture, mask: Picture, config: DataConfig, findings: Findings) -> Pair | None:
    if picture.fault:
        findings.add("pictures that can't be read", f"{picture.path} ({picture.fault})")
        return Pair(picture.path, mask.path)
    if mask.size not in (picture.size, picture.read_size(upright=True)):
        sizes = " and ".join(f"{each.size[0]}×{each.size[1]}" for each in (picture, mask))
        findings.add(
            "pictures left out (their masks are of another size)", f"{picture.path} ({sizes} with its mask)"
        )
        return None
    if picture.hides_turn(mask.size):
        findings.add(TAKEN_AS_UPRIGHT.format("masks"), picture.path)
    turn = picture.turn_for(mask.size, config.exif == "upright")
    if turn is not None:
        findings.add("masks that were turned along with their pictures (EXIF)", mask.path)
    return Pair(picture.path, mask.path, turn)


def _values_of_some(paths: Sequence[str], findings: Findings) -> tuple[dict[str, set[int]], dict[str, str]]:
    """The values in each mask of a sample, and why others of it can't be decoded."""
    some = paths[:: max(1, -(-len(paths) // DECODED))]
    if len(some) < len(paths):
        findings.add(f"masks whose values were looked at, of {len(paths):,}", some[0], len(some))
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(some, pool.map(_values, some), strict=True))
    faults = {path: values for path, values in found.items() if isinstance(values, str)}
    return {path: values for path, values in found.items() if not isinstance(values, str)}, faults


def _values(path: str) -> set[int] | str:
    """The values in a mask, or why it can't be read."""
    try:
        return values_in(read_mask(path))
    except DecodeError as error:
        return str(error)
