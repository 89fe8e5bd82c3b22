"""The index of a checkpoint: JSON that names its tensor files, and ends in a checksum of its own text."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError
from typing_extensions import TypedDict

from isometry.errors import reason
from isometry.files import sha256_of
from isometry.parsing import parse_json, validate

SUFFIX = ".safetensors"
SEAL = ',\n "checksum": "{}"\n}}'
SEAL_LENGTH = len(SEAL.format("0" * 64))
CHANGED = "cut short or changed, its checksum does not match"


@with_config(ConfigDict(extra="allow"))
class Index(TypedDict):
    """Keys that every index has; file names are those of plain files in the index's own folder."""

    tag: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    files: dict[str, Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]]
    sha256: dict[str, str]


class DamagedError(Exception):
    """A file of a checkpoint is not what was written; the message names it."""


def seal(index: dict[str, Any]) -> str:
    """An index as JSON text, whose last entry is the SHA-256 of the text before that entry."""
    body = json.dumps(index, indent=1).removesuffix("\n}")
    return body + SEAL.format(sha256_of([body.encode()]))


def read_index(path: Path) -> dict[str, Any]:
    """Reads an index that :func:`seal` wrote.

    Raises:
        DamagedError: the file is missing, was changed, or names anything but tensor files of its own folder.
    """
    with damage_of(path):
        raw = path.read_bytes()
        body = raw[:-SEAL_LENGTH]
        if raw != body + SEAL.format(sha256_of([body])).encode():
            raise ValueError(CHANGED)
        index: dict[str, Any] = validate(parse_json(body + b"\n}"), Index)
        if missing := {*index["files"].values()} - index["sha256"].keys():
            raise ValueError(f"sha256: lacks {min(missing)}")
    return index


@contextmanager
def damage_of(path: Path) -> Iterator[Path]:
    """Turns errors inside the block into damage of a file, which must be a plain file of its folder.

    Raises:
        DamagedError: with the file's name and the cause.
    """
    try:
        if path.is_symlink():
            raise ValueError("is a link, not a file of this folder")
        if path.exists() and not path.is_file():
            raise ValueError("is not a plain file")
        yield path
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedError(f"{path.name}: {reason(error)}") from error
