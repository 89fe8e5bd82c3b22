"""The index of a checkpoint: readable JSON that says what belongs to it and ends in a checksum of its own text.

Nothing in it is trusted further than its types: a name that leads out of the folder is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from isometry.errors import reason

PLAIN = re.compile(r"[\w.-]+")
"""Tags and file names: no separators, no control characters."""
SUFFIX = ".safetensors"
SEAL = ',\n "checksum": "{}"\n}}'
SEAL_LENGTH = len(SEAL.format("0" * 64))


CHANGED = "cut short or changed, its checksum does not match"


class DamagedError(Exception):
    """A file of a checkpoint can't be what was written; the message names it."""


def sealed(index: dict[str, Any]) -> str:
    """An index as JSON text, whose last entry is the SHA-256 of the text in front of that entry."""
    body = json.dumps(index, indent=1).removesuffix("\n}")
    return body + SEAL.format(hashlib.sha256(body.encode()).hexdigest())


def read_index(path: Path) -> dict[str, Any]:
    """What a sealed index says, with nothing in ``files`` but names of tensor files of its own folder.

    Raises:
        DamagedError: it is no index, was changed, or names something else.
    """
    with blamed_on(path):
        raw = path.read_bytes()
        body = raw[:-SEAL_LENGTH]
        if raw != body + SEAL.format(hashlib.sha256(body).hexdigest()).encode():
            raise DamagedError(f"{path.name}: {CHANGED}")
        index: dict[str, Any] = json.loads(body + b"\n}")
        for name in index["files"].values():
            if not PLAIN.fullmatch(name) or not name.endswith(SUFFIX):
                raise DamagedError(f"{path.name}: it names {name!r}, which is no file of this folder")
        if not PLAIN.fullmatch(index["tag"]) or not {*index["files"].values()} <= {*index["sha256"]}:
            raise DamagedError(f"{path.name}: it lacks what a checkpoint tells")
    return index


@contextmanager
def blamed_on(path: Path) -> Iterator[Path]:
    """Whatever goes wrong inside is that file's damage; one that leads out of its folder is refused.

    Raises:
        DamagedError: it names the file and says why.
    """
    try:
        if path.is_symlink():
            raise DamagedError(f"{path.name}: a link, which is no file of this folder")
        if path.exists() and not path.is_file():
            raise DamagedError(f"{path.name}: no plain file")
        yield path
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise DamagedError(f"{path.name}: {reason(error)}") from error
