"""YOLO's data.yaml: the classes, and where the pictures are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from isometry.data.dense.findings import shown
from isometry.errors import UserError, printable, reason
from isometry.parsing import TextLoader, read_yaml, validate


@dataclass(frozen=True)
class YoloFolders:
    """What is known before any label file is read.

    Attributes:
        names: of the classes; None where no file has them.
        places: the folders or lists of pictures of each split.
        base: the folder that data.yaml calls ``path``.
        key_points: numbers of a line after those of its box, where there are any.
        notes: on data.yaml.
    """

    names: list[str] | None
    places: Mapping[str, list[Path]]
    base: Path | None = None
    key_points: int | None = None
    notes: Sequence[str] = ()


class YoloData(TypedDict):
    """The parts of data.yaml that are read; others, such as ``download``, are not obeyed."""

    names: list[str] | dict[int, str]
    path: NotRequired[str | None]
    train: NotRequired[str | list[str] | None]
    val: NotRequired[str | list[str] | None]
    test: NotRequired[str | list[str] | None]
    nc: NotRequired[object]
    kpt_shape: NotRequired[tuple[int, int] | None]


def read_folders(path: Path) -> YoloFolders:
    """What a data.yaml says.

    Raises:
        UserError: it can't be used, or names what can't be found.
    """
    try:
        names_as_written = read_yaml(path, str(path), loader=TextLoader).get("names")
        data: YoloData = validate({**read_yaml(path, str(path)), "names": names_as_written}, YoloData)
    except ValueError as error:
        raise UserError(f"{path}: is no data.yaml of YOLO's ({reason(error)})") from error
    names = _class_names(path, data["names"])
    folders: dict[str, list[Path]] = {}
    for split, given in (("train", data.get("train")), ("val", data.get("val")), ("test", data.get("test"))):
        wanted = [given] if isinstance(given, str) else given or []
        found = [_place_of(path, data.get("path") or "", each) for each in wanted]
        gone = [each for each, place in zip(wanted, found, strict=True) if place is None]
        if gone and split != "test":
            raise UserError(f"{path}: {split}: {printable(gone[0])} can't be found; correct the path")
        places = [place for place in found if place is not None]
        if places:
            folders[split] = places
    base = data.get("path")
    return YoloFolders(
        names,
        folders,
        None if base is None else path.parent / base,
        _key_points(path, data.get("kpt_shape")),
        _notes(path, data),
    )


def _notes(path: Path, data: YoloData) -> list[str]:
    given, named = data.get("nc"), len(data["names"])
    if given in (None, named):
        return []
    return [f"{path.name}: nc is {shown(given)}, and {named:,} classes have names: those are used"]


def _key_points(path: Path, shape: tuple[int, int] | None) -> int | None:
    """Numbers of the key points in a line, after those of the box."""
    if shape is None:
        return None
    if min(shape) < 1:
        raise UserError(f"{path}: kpt_shape: give the number of key points and of values of each, as [17, 3]")
    return shape[0] * shape[1]


def _class_names(path: Path, names: list[str] | dict[int, str]) -> list[str]:
    by_index = dict(enumerate(names)) if isinstance(names, list) else names
    if not by_index or min(by_index) < 0 or max(by_index) >= 10 * len(by_index) + 100:
        raise UserError(f"{path}: names: give a list of classes, or a mapping from 0, 1, ... to their names")
    return [by_index.get(index, str(index)) for index in range(max(by_index) + 1)]


def _place_of(path: Path, base: str, given: str) -> Path | None:
    """Where a folder or list of data.yaml is: Roboflow's begin with ``../``, though they lie beside the file."""
    for start in (path.parent / base, path.parent):
        for each in (given, given.removeprefix("../")):
            # Unlike Path.exists, False for a name that is too long.
            if os.path.exists(start / each):
                return Path(os.path.normpath(start / each))
    return None
