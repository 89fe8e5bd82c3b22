"""Boxes in YOLO's text files: a data.yaml with names, pictures in ``images/``, files of their names in ``labels/``."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from isometry.config import DataConfig
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.bounds import leads_out
from isometry.data.dense.box_files import Annotated, BoxFiles, checked_boxes
from isometry.data.dense.findings import Findings
from isometry.data.dense.splitting import DenseSplits, is_regular, split_of
from isometry.data.dense.yolo_labels import read_labels
from isometry.data.dense.yolo_yaml import YoloFolders, read_folders
from isometry.data.folder_listing import list_images
from isometry.data.image_files import natural_order
from isometry.errors import UserError, printable, reason
from isometry.files import check_regular
from isometry.parsing import LONGEST, read_yaml

IMAGES, LABELS = "images", "labels"
NAMES = ("classes.txt", "labels.txt", "obj.names")
"""Files with a class a line, where there is no data.yaml."""


def find_yolo(root: Path) -> Path | None:
    """The data.yaml of a folder, or the folder itself if it has ``labels`` without one; None if it has neither."""
    if root.is_file():
        return root
    files = [root / "data.yaml", root / "data.yml", *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
    named = (path for path in files if is_regular(path) and _has_names(path))
    inside = (root, *(path for path in sorted(root.iterdir()) if path.is_dir()))
    return next(named, root if any(_inner(folder, LABELS).is_dir() for folder in inside) else None)


def open_yolo(place: Path, root: Path, config: DataConfig) -> DenseSplits:
    """Opens and checks the label files of all splits; ``place`` is what :func:`find_yolo` found.

    Raises:
        UserError: a data.yaml that can't be used, a split without pictures or without labels.
    """
    found = read_folders(place) if place.is_file() else _of_folders(root, config)
    findings = {split: Findings(root, split) for split in found.places}
    read = {split: _annotated(split, place, root, found, findings[split]) for split in found.places}
    classes = found.names or _numbered(read.values())
    parts: dict[str, BoxFiles] = {}
    notes = list(found.notes)
    for split, annotated in read.items():
        parts[split] = checked_boxes(annotated, config.exif == "upright", findings[split])
        used = {int(label) for _, boxes in parts[split].files for label in boxes.labels}
        lacking = [printable(name) for index, name in enumerate(classes) if index not in used]
        if not used:
            why = "; ".join(findings[split].reasons)
            raise UserError(f"{place}: the {split} part has no box that can be used ({why or 'no labels'})")
        findings[split].add("classes without a box", ", ".join(lacking[:5]), len(lacking))
        notes += findings[split].notes
    return DenseSplits(f"YOLO boxes in {root}", parts, classes, notes)


def _has_names(path: Path) -> bool:
    """Whether a YAML is YOLO's; others may lie in the folder, such as conda.yaml, with tags and lists of their own."""
    try:
        return "names" in read_yaml(path, str(path))
    except UserError:
        with path.open(encoding="utf-8", errors="replace") as file:
            if path.stem == "data" or re.search(r"^names\s*:", file.read(LONGEST), re.MULTILINE):
                raise
        return False


def _of_folders(root: Path, config: DataConfig) -> YoloFolders:
    """The same from ``images/train``, ``train/images`` or ``images``, and classes.txt if there is one."""
    images, labels = _inner(root, IMAGES), _inner(root, LABELS)
    places = [path for folder in (root, labels) for name in NAMES if is_regular(path := folder / name)]
    names = read_names(places[0]) if places else None
    folders: dict[str, list[Path]] = {}
    for parent in (images, root):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            split = split_of(folder.name, config) if folder.is_dir() else None
            if split is not None:
                inner = _inner(folder, IMAGES)
                folders.setdefault(split, [inner if inner.is_dir() else folder])
    return YoloFolders(names, folders or {"train": [images if images.is_dir() else root]})


def _inner(folder: Path, name: str) -> Path:
    """The folder of a name in another, in small letters or any."""
    if (folder / name).is_dir() or not folder.is_dir():
        return folder / name
    others = (path for path in sorted(folder.iterdir()) if path.name.lower() == name and path.is_dir())
    return next(others, folder / name)


def read_names(path: Path) -> list[str]:
    """Names of classes, one a line.

    Raises:
        UserError: it can't be read, is empty, or has a blank line among the names.
    """
    try:
        check_regular(path.stat())
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({reason(error)})") from error
    if not all(names) or not names:
        raise UserError(
            f"{path}: has no name in line {names.index('') + 1 if names else 1}; give one class a line"
        )
    return names


def _annotated(
    split: str, place: Path, root: Path, found: YoloFolders, findings: Findings
) -> list[Annotated]:
    places = found.places[split]
    named = [root, found.base or root]
    pictures = sorted({path for each in places for path in _pictures(each, named)}, key=natural_order)
    if not pictures:
        raise UserError(f"{place}: the {split} part has no pictures in {', '.join(map(str, places))}")
    folder_of = {folder: _label_folder(folder) for folder in {os.path.dirname(path) for path in pictures}}
    label_of = {path: _label_file(path, folder_of) for path in pictures}
    sharing = Counter(label_of.values())
    elsewhere = {folder for folder in folder_of if leads_out(folder, [root])}
    annotated = []
    for path in pictures:
        if os.path.dirname(path) in elsewhere:
            findings.add(f"pictures outside of the folder (read where {place.name} says)", path)
        if not os.path.exists(path):
            findings.add("pictures left out (not found)", path)
            continue
        if sharing[label_of[path]] > 1:
            findings.add("pictures that share a label file (their names differ in the ending alone)", path)
        if os.path.exists(label_of[path]):
            corners, labels, lines = read_labels(label_of[path], found.names, findings, found.key_points)
        else:
            findings.add("pictures without a label file (taken as without objects)", path)
            corners, labels, lines = [], [], []
        annotated.append(Annotated(path, Boxes.of(corners, labels), lines, label_of[path], shares=True))
    known = set(label_of.values())
    for folder in sorted({os.path.dirname(label) for label in known}):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            whole = os.path.join(folder, name)
            if name.endswith(".txt") and name not in NAMES and whole not in known:
                findings.add("label files without a picture", whole)
    return annotated


def _pictures(place: Path, named: Sequence[Path]) -> Iterator[str]:
    """The pictures in a folder, or those that a text file lists, a path a line, inside the ``named`` folders.

    Raises:
        UserError: a line that leads elsewhere.
    """
    if place.is_dir():
        yield from (path for path, _ in list_images(place).images)
        return
    for number, line in enumerate(read_names(place), start=1):
        path = os.path.normpath(place.parent / line)
        may_lead_out = os.path.isabs(line) or ".." in line
        if may_lead_out and leads_out(path, [*named, place.parent]):
            raise UserError(
                f"{place}: line {number}, {printable(line)}, leads out of {named[0]}; correct it, or name the folder "
                "of the pictures in data.yaml, as path:"
            )
        yield path


def _label_folder(folder: str) -> str:
    """The folder of labels of one of pictures: its last part ``images`` becomes ``labels``; else the same folder."""
    parts = folder.split(os.sep)
    lower = [part.lower() for part in parts]
    if IMAGES not in lower:
        return folder
    last = len(parts) - 1 - lower[::-1].index(IMAGES)
    above = Path(os.sep.join(parts[:last]) or (os.sep if folder.startswith(os.sep) else "."))
    return os.path.join(_inner(above, LABELS), *parts[last + 1 :])


def _label_file(path: str, folder_of: Mapping[str, str]) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder_of[folder], f"{os.path.splitext(name)[0]}.txt")


def _numbered(read: Iterable[Sequence[Annotated]]) -> list[str]:
    """Numbers as names, up to the largest class."""
    largest = (int(each.boxes.labels.max(initial=-1)) for annotated in read for each in annotated)
    return [str(index) for index in range(max(largest, default=-1) + 1)]
