"""A file is written whole or not at all."""

import os
from pathlib import Path

from isometry.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`; what was there before stays until the new file is complete.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {path}: {why}; free some space or name another place") from error
