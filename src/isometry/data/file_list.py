"""Images listed in a .csv or .parquet file: a row an image, with its path, its label and perhaps its split."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isometry.config import DataConfig
from isometry.config.paths import expand_path
from isometry.data.class_map import read_class_map
from isometry.data.class_names import case_notes
from isometry.data.folder_listing import NO_ENDING, ending_of, endings_texts, named
from isometry.data.folders import (
    TEST_NAMES,
    TRAIN_NAMES,
    VAL_NAMES,
    is_given,
    split_names,
    split_option,
)
from isometry.data.image_files import ImageFiles, numbered
from isometry.data.image_formats import is_picture, readable_endings
from isometry.data.splits import UNLABELLED, MapPart, Splits, split_off
from isometry.errors import NamesAll, UserError, counted, reason
from isometry.files import check_regular

PATH = ("path", "file_name", "filename", "file", "image")
LABEL = ("label", "class", "target")
SPLIT = ("split",)
"""Names that each column may have; the first that is there counts."""

TRAIN, VAL, TEST, UNUSED = "train", "validation", "test", ""


@dataclass(frozen=True)
class ListedImage:
    """A row: where it stands ("line 7"), the image's path, its class ("": none), and its split, which may be UNUSED."""

    where: str
    path: str
    label: str
    split: str


def is_list(data_dir: str | None) -> bool:
    """Whether ``data_dir`` names a list of images, and not a folder of them."""
    return (
        bool(data_dir) and Path(str(data_dir)).suffix.lower() in READERS and not Path(str(data_dir)).is_dir()
    )


def open_list(config: DataConfig) -> Splits:
    """Opens the list ``config.data_dir``; reads no image. Paths are relative to the list's folder.

    Without a split column, or without rows of the validation split, ``val_fraction`` of each class is split off, always
    the same images. Without labels, or without a column for them, the images have none.

    Raises:
        UserError: a list that can't be read, or rows that can't be used; the message names the first.
    """
    path = Path(expand_path(str(config.data_dir)))
    notes: list[str] = []
    rows = _read(path, config, notes)
    if not config.skip_bad_images:
        _check_files(path, rows)
    class_map = read_class_map(config)
    rows = _labelled_alike(path, rows, notes)
    if class_map is not None:
        rows = _of_classes(path, rows, class_map, notes)
    class_to_idx = _classes(path, rows, class_map)
    notes += case_notes(path, [row.label for row in rows])
    labels = [class_to_idx[row.label] if class_to_idx else UNLABELLED for row in rows]
    images = ImageFiles(
        [(row.path, label) for row, label in zip(rows, labels, strict=True)], class_to_idx or {}
    )
    no_pictures = _no_pictures(path, rows, notes)

    def part(numbers: Iterable[int]) -> MapPart | None:
        used = [number for number in numbers if number not in no_pictures]
        return MapPart(images, used) if used else None

    numbers = {
        split: [number for number, row in enumerate(rows) if row.split == split]
        for split in (TRAIN, VAL, TEST)
    }
    train, val, test, note = part(numbers[TRAIN]), part(numbers[VAL]), part(numbers[TEST]), ""
    if val is None:
        # Of all rows, so that the split is that of versions which left none out.
        places = split_off([labels[number] for number in numbers[TRAIN]], config.val_fraction)
        train, val = (part(numbers[TRAIN][place] for place in own) for own in places)
        note = f", validation split off {path.name}"
    if train is None:
        raise UserError(f"--data-dir {path}: lists no training images that can be read ({notes[-1]})")
    return Splits(train, val, test, class_to_idx, note, notes)


def _no_pictures(path: Path, rows: Sequence[ListedImage], notes: list[str]) -> set[int]:
    """Numbers of the rows whose file has no image's ending, and no image's content either; says how many."""
    others = {
        number
        for number, row in enumerate(rows)
        if ending_of(row.path) not in readable_endings() and not is_picture(row.path)
    }
    if others:
        endings = Counter(ending_of(rows[number].path) or NO_ENDING for number in others)
        notes.append(NamesAll.of(f"{path}: rows left out (files that are no images)", endings_texts(endings)))
    return others


def _read(path: Path, config: DataConfig, notes: list[str]) -> list[ListedImage]:
    """The rows with whole paths; each image once, or one could be in training and in validation."""
    header, table = READERS[path.suffix.lower()](path)
    places = {names: _column(header, names) for names in (PATH, LABEL, SPLIT)}
    if places[PATH] is None:
        other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), None)
        advice = f"call it {PATH[0]}, and others {LABEL[0]} and {SPLIT[0]}"
        if other:
            advice = f"separate columns by commas, not by {other!r}"
        raise UserError(
            f"--data-dir {path}: has no column of paths (its columns: {', '.join(header) or 'none'}); {advice}"
        )
    splits = _split_names(config)
    seen: set[str] = set()
    rows: dict[str, ListedImage] = {}
    for where, cells in table:
        name, label, split = ("" if place is None else cells[place] for place in places.values())
        if not name:
            raise UserError(f"--data-dir {path}, {where}: names no image")
        if places[SPLIT] is not None and split.lower() not in splits:
            raise UserError(
                f"--data-dir {path}, {where}: its split is {split!r}; give one of {', '.join(splits)}"
            )
        seen.add(split.lower())
        whole = os.path.join(path.parent, os.path.expanduser(name))
        row = ListedImage(where, whole, label, splits.get(split.lower(), TRAIN))
        # One image may be spelled in several ways.
        before = rows.setdefault(os.path.abspath(whole), row)
        if (before.label, before.split) != (row.label, row.split):
            raise UserError(
                f"--data-dir {path}, {where}: {name} is in {before.where} too, with another label or split"
            )
    _check_given(path, config, seen)
    if not any(row.split == TRAIN for row in rows.values()):
        raise UserError(f"--data-dir {path}: lists no training images; add some")
    if len(rows) < len(table):
        notes.append(
            f"{path}: rows left out (of an image that is listed already): {len(table) - len(rows):,}"
        )
    used = [row for row in rows.values() if row.split != UNUSED]
    if len(used) < len(rows):
        notes.append(
            f"{path}: rows left out (of other splits than those asked for): {len(rows) - len(used):,}"
        )
    return used


def _check_given(path: Path, config: DataConfig, seen: set[str]) -> None:
    for name, synonyms in (("train_split", TRAIN_NAMES), ("val_split", VAL_NAMES)):
        if is_given(config, name) and not seen.intersection(split_names(getattr(config, name), synonyms)):
            there = named([each for each in seen if each]) or f"no column {SPLIT[0]}"
            raise UserError(
                f"{split_option(config, name)}: no row of {path} is of such a split; it has {there}"
            )


def _column(header: Sequence[str], names: tuple[str, ...]) -> int | None:
    lower = [name.strip().lower() for name in header]
    return next((lower.index(name) for name in names if name in lower), None)


def _split_names(config: DataConfig) -> dict[str, str]:
    """Names of splits in lower case -> the split; a name of a split in whose place another is asked for is unused."""
    known = {name: UNUSED for name in (*TRAIN_NAMES, *VAL_NAMES)} | {name: TEST for name in TEST_NAMES}
    known |= {name: TRAIN for name in split_names(config.train_split, TRAIN_NAMES)}
    return known | {name: VAL for name in split_names(config.val_split, VAL_NAMES)}


def _check_files(path: Path, rows: Sequence[ListedImage]) -> None:
    gone = [row for row in rows if not os.path.exists(row.path)]
    if gone and os.path.exists(gone[0].path.replace("\\", "/")):
        raise UserError(
            f"--data-dir {path}, {gone[0].where}: its path has Windows' backslashes, and this system separates folders "
            f"by /; replace them in the column of paths ({len(gone):,} of {counted(len(rows), 'image')})"
        )
    if gone:
        raise UserError(
            f"--data-dir {path}: of {counted(len(rows), 'image')}, {len(gone):,} can't be found, e.g. {gone[0].path} "
            f"({gone[0].where}); correct the list, or go on without them with --skip-bad-images"
        )


def _labelled_alike(path: Path, rows: list[ListedImage], notes: list[str]) -> list[ListedImage]:
    """The rows, without test images that have no labels; all others must have one, or none of them."""
    judged = [row for row in rows if row.split != TEST]
    lacking = [row for row in judged if not row.label]
    if lacking and len(lacking) < len(judged):
        raise UserError(f"--data-dir {path}, {lacking[0].where}: has no label, but other rows have")
    if lacking or any(not row.label for row in rows):
        if len(judged) < len(rows):
            notes.append(f"{path}: the test images are left out (not all have labels)")
        return judged
    return rows


def _of_classes(
    path: Path, rows: list[ListedImage], class_map: Mapping[str, int], notes: list[str]
) -> list[ListedImage]:
    known = [row for row in rows if row.label in class_map]
    if len(known) < len(rows):
        notes.append(f"{path}: rows left out (not in --class-map): {len(rows) - len(known):,}")
    if not any(row.split == TRAIN for row in known):
        raise UserError(f"--data-dir {path}: lists no training images of classes in --class-map")
    return known


def _classes(
    path: Path, rows: Sequence[ListedImage], class_map: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """Class name -> index, of the training images' classes; None without labels."""
    trained = {row.label for row in rows if row.split == TRAIN}
    if trained == {""}:
        return None
    if len(trained) < 2:
        raise UserError(
            f"--data-dir {path}: has training images of one class only ({min(trained)!r}): add another"
        )
    class_to_idx = numbered(trained) if class_map is None else class_map
    for row in rows:
        if row.label not in class_to_idx:
            raise UserError(
                f"--data-dir {path}, {row.where}: the class {row.label!r} has no training images: "
                "add training images of it, or remove it"
            )
    return class_to_idx


Table = tuple[list[str], list[tuple[str, list[str]]]]
"""The names of the columns, and the rows: where each stands, and its cells."""


def _read_csv(path: Path) -> Table:
    try:
        check_regular(path.stat())
        # utf-8-sig: spreadsheets write a byte order mark before the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows = [(f"line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, csv.Error, ValueError) as error:
        raise UserError(
            f"--data-dir {path}: can't be read ({reason(error)}); give a comma-separated file in UTF-8"
        ) from error
    for where, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"--data-dir {path}, {where}: has cells: {len(row)}, and the first line has {len(header)}; "
                "separate them by commas, and put cells with commas between double quotes"
            )
    return header, rows


def _read_parquet(path: Path) -> Table:
    if find_spec("pyarrow") is None:
        raise UserError(f"--data-dir {path}: needs a library that is not installed: pip install pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    try:
        check_regular(path.stat())
        file = parquet.ParquetFile(path)
        header = list(file.schema_arrow.names)
        places = [place for names in (PATH, LABEL, SPLIT) if (place := _column(header, names)) is not None]
        columns = file.read(columns=[header[place] for place in places]).to_pydict()
    # pyarrow's errors are OSError and ValueError
    except (OSError, ValueError) as error:
        raise UserError(f"--data-dir {path}: can't be read ({reason(error)})") from error
    for name, values in columns.items():
        if not all(isinstance(value, str | int | None) for value in values):
            raise UserError(f"--data-dir {path}: the column {name!r} must hold text or whole numbers")
    cells = zip(*columns.values(), strict=True)
    rows = [
        (f"row {number}", ["" if value is None else str(value) for value in row])
        for number, row in enumerate(cells, start=1)
    ]
    return list(columns), rows


READERS: dict[str, Callable[[Path], Table]] = {".csv": _read_csv, ".parquet": _read_parquet}
"""By the ending of the list."""
