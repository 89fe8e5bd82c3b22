"""Class maps: files that give each class its index, in timm's formats."""

import pickle
from pathlib import Path

from timm.data.readers.class_map import load_class_map

from isometry.config import DataConfig
from isometry.errors import UserError, first_line
from isometry.files import check_regular

MOST_CLASSES = 1_000_000
"""A larger index is a mistake: a network has a row of weights for each index up to the largest."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, pickle.UnpicklingError),
    *(ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, TypeError),
)
"""What files that are none raise; pickle documents that a damaged one may raise about anything."""


def read_class_map(config: DataConfig) -> dict[str, int] | None:
    """Class name -> index from ``config.class_map``: timm's .txt (one name a line) or .pkl (a dict) format.

    Raises:
        UserError: it is gone, can't be read, or does not map names to indices.
    """
    if config.class_map is None:
        return None
    root = Path(config.data_dir or "")
    path = Path(config.class_map)
    if not path.exists():
        path = (root.parent if root.is_file() else root) / path
    if not path.exists():
        raise UserError(
            f"--class-map {config.class_map}: there is no such file, nor in the folder of the images; give the path of "
            "another with --class-map"
        )
    try:
        class_map = _read(path)
    except UNREADABLE as error:
        raise UserError(
            f"--class-map {config.class_map} cannot be read ({first_line(error)}): give one class a line"
        ) from error
    for name, index in class_map.items():
        if not isinstance(index, int) or not 0 <= index < MOST_CLASSES:
            raise UserError(
                f"--class-map {config.class_map} gives class {name} the index {index!r}: give whole numbers from 0 to "
                f"{MOST_CLASSES - 1:,}"
            )
    return class_map


def _read(path: Path) -> dict[str, int]:
    if path.suffix.lower() not in (".txt", ".pkl"):
        raise ValueError(f"a file that ends in {path.suffix or 'nothing'} is no class map, .txt is")
    check_regular(path.stat())
    class_map = _of_lines(path) if path.suffix.lower() == ".txt" else load_class_map(str(path))
    if not class_map:
        raise ValueError("it is empty")
    return class_map


def _of_lines(path: Path) -> dict[str, int]:
    """Each line's number, from 0; blank lines at the end are none."""
    # utf-8-sig: some editors write a byte order mark before the first name.
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    if names == [""]:
        return {}
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name:
            raise ValueError(f"line {index + 1} is blank, and counts as a class")
        if found.setdefault(name, index) != index:
            raise ValueError(f"line {index + 1} has the class {name} again")
    return found
