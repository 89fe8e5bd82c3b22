"""Pictures with masks, checked and read.

A mask is a picture of one channel with the class of each pixel: an indexed PNG (the index in the palette is the class)
or greys; 255 is ignored. A file of names, ``classes.txt`` or ``labels.txt``, has a class a line, from 0; without it the
classes are the values that occur.
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
from isometry.data.dense.mask_layouts import Paths
from isometry.data.dense.pictures import Picture, look
from isometry.data.dense.splitting import DenseSplits, is_regular
from isometry.data.dense.yolo import read_names
from isometry.data.image_formats import open_picture, read_bytes
from isometry.data.image_modes import check_size
from isometry.data.orientation import Turn
from isometry.errors import UserError, printable

NAMES = ("classes.txt", "labels.txt")
INDEXED = ("P", "L", "1", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of masks; all have one channel."""
LOSSY = ("JPEG", "MPO")
"""Formats of one channel whose greys are not those that were saved."""
DECODED = 2000
"""Most masks whose values are looked at before training, at equal distances; others are checked as they are read."""
THREADS = min(4, os.cpu_count() or 1)
"""Each decodes a mask at a time, and a small file may be a large mask."""
CHUNK = 2**20
"""Pixels of a mask that are counted at a time."""


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
        """A picture, perhaps not decoded yet, and its mask; raises one of ``splits.DECODE_ERRORS``."""
        pair = self.pairs[number]
        try:
            mask = read_mask(pair.mask, pair.turn)
        except DecodeError as error:
            raise ValueError(f"its mask {printable(pair.mask)}: {error}") from error
        wrong = values_in(mask) - {*self.values, IGNORED}
        if wrong:
            raise ValueError(
                f"its mask {printable(pair.mask)} has the value {max(wrong)}, and the {len(self.values)} classes are "
                f"{ranges(self.values)}; name all classes in classes.txt"
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


def read_mask(path: str, turn: Turn | None = None) -> np.ndarray:
    """The class of each pixel, uint8 (H,W), perhaps turned.

    Raises:
        DecodeError: no file or no picture that can be decoded, a JPEG, more than one channel, or a value above 255.
    """
    with decode_errors(), open_picture(read_bytes(path)) as image:
        check_size(image)
        if image.format in LOSSY or image.info.get("compression") == "jpeg":
            raise ValueError("is a JPEG, which changes the values; save the masks as PNG, from their source")
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


def values_in(mask: np.ndarray) -> set[int]:
    """The values of a mask, uint8 (H,W); counted by rows, since the counts of a pixel take eight bytes."""
    counts = np.zeros(256, np.int64)
    rows = max(1, CHUNK // max(1, mask.shape[1]))
    for start in range(0, len(mask), rows):
        counts += np.bincount(mask[start : start + rows].ravel(), minlength=256)
    return set(np.flatnonzero(counts).tolist())


def ranges(values: Sequence[int]) -> str:
    """Increasing numbers as text: ``0, 2-5 and 9``."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    texts = [
        str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)
    ]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def open_masks(found: Mapping[str, Paths], root: Path, config: DataConfig, findings: Findings) -> DenseSplits:
    """Checks pictures and masks by their headers, and the values of up to DECODED masks.

    Masks are of the upright picture, or turned along with it where their size is that of the picture as stored.

    Raises:
        UserError: a split without a picture that has a mask, values beyond the classes, or fewer than two values.
    """
    pairs = {
        split: _checked(split, files, root, config, findings)
        for split, files in found.items()
        if split != "test" or _has_masks(files, findings)
    }
    named = [path for name in NAMES if is_regular(path := root / name)]
    names = read_names(named[0]) if named else None
    values = _classes(pairs, names, named[0] if named else root, findings)
    parts = {split: MaskFiles(own, values) for split, own in pairs.items()}
    return DenseSplits(f"masks in {root}", parts, names or [*map(str, values)], findings.notes)


def _has_masks(files: Paths, findings: Findings) -> bool:
    without = [picture for picture, mask in files.values() if not mask]
    if len(without) < len(files):
        return True
    findings.add("test pictures left out (none has a mask)", next(iter(without), "none"), len(without))
    return False


def _checked(split: str, files: Paths, root: Path, config: DataConfig, findings: Findings) -> list[Pair]:
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
        why = "; ".join(findings.reasons)
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
) -> list[int]:
    """The value of each class: 0, 1, ... for the names, or those that occur."""
    seen = _looked_at([pair.mask for own in pairs.values() for pair in own], place, findings)
    of_training = {pair.mask for pair in pairs.get("train", ())} & set(seen) or set(seen)
    trained = set[int]().union(*(seen[path] for path in of_training))
    if len(trained - {IGNORED}) < 2:
        which = f"value{'s' if len(trained) > 1 else ''} {ranges(sorted(trained))}"
        raise UserError(
            f"{place}: the masks have the {which} alone, and 255 is ignored; write 0, 1, ... for the classes"
        )
    values = sorted(set[int]().union(*seen.values()) - {IGNORED})
    if names is None:
        gaps = [value for value in range(values[-1]) if value not in values]
        if gaps:
            findings.add(
                f"values that no pixel has, and that are no classes ({ranges(values)} are; if values are missing or "
                "damaged, mend the masks or name all classes in classes.txt)",
                ranges(gaps),
                len(gaps),
            )
        return values
    largest = {path: max(own - {IGNORED}, default=0) for path, own in seen.items()}
    wrong = [path for path, value in largest.items() if value >= len(names)]
    if wrong:
        raise UserError(
            f"{place}: names {len(names)} classes, and {len(wrong):,} masks have values above {len(names) - 1}, e.g. "
            f"{printable(wrong[0])} ({largest[wrong[0]]}); name all classes, the first of them 0"
        )
    lacking = [name for value, name in enumerate(names) if value not in trained]
    findings.add("classes without a pixel in the training masks", ", ".join(lacking[:5]), len(lacking))
    return list(range(len(names)))


def _looked_at(paths: Sequence[str], place: Path, findings: Findings) -> dict[str, set[int]]:
    """The values in each mask of a sample that can be read.

    Raises:
        UserError: none can.
    """
    some = paths[:: max(1, -(-len(paths) // DECODED))]
    if len(some) < len(paths):
        findings.add(f"masks whose values were looked at, of {len(paths):,}", some[0], len(some))
    with ThreadPoolExecutor(THREADS) as pool:
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
        return values_in(read_mask(path))
    except DecodeError as error:
        return str(error)
