"""The data of a report as two files: ``report.json`` and, for its maps and pictures, ``report.safetensors``.

Read back, they give the same data to the last bit, so the page can be drawn again without data, teacher or training.
Nothing in them is executed, and what does not fit :class:`ReportData` is refused.
"""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from isometry.errors import reason
from isometry.files import sha256_of, write_atomically
from isometry.parsing import parse_json, validate
from isometry.report.records.data import ReportData

RECORD, ARRAYS = "report.json", "report.safetensors"
VERSION = 1

Arrays = dict[str, np.ndarray]


class RecordError(Exception):
    """A record is not what was written, or does not fit a report; the message names the file and the fault."""


def write_record(folder: Path, data: ReportData) -> None:
    """Writes ``report.json`` and ``report.safetensors`` into ``folder``.

    Raises:
        UserError: they can't be written.
    """
    arrays: Arrays = {}
    plain = _plain(data, arrays, "")
    packed = save(arrays)
    record = {"version": VERSION, "checksum": _checksum(plain, packed), "report": plain}
    # In this order, because the checksum then shows that a record's arrays were not written yet.
    write_atomically(folder / ARRAYS, packed)
    write_atomically(folder / RECORD, json.dumps(record, indent=1))


def has_record(folder: Path) -> bool:
    """Whether the folder holds the record of a report."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> ReportData:
    """Reads what :func:`write_record` wrote.

    Raises:
        RecordError: a file is missing, was cut short or changed, or does not fit a report.
    """
    try:
        record = validate(parse_json((folder / RECORD).read_bytes()), dict[str, Any])
        packed = (folder / ARRAYS).read_bytes()
        if record.get("version") != VERSION:
            raise ValueError("was written by another version of isometry")
        if record.get("checksum") != _checksum(record.get("report"), packed):
            raise ValueError("cut short or changed, its checksum does not match")
        report: ReportData = validate(record["report"], ReportData, load(packed))
    except OSError as error:
        raise RecordError(
            f"{Path(error.filename or RECORD).name}: can't be read ({reason(error)})"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise RecordError(f"{RECORD}: {reason(error)}") from error
    return report


def _checksum(plain: Any, packed: bytes) -> str:
    """SHA-256 of both files' content; the text is formatted anew, so white space does not count."""
    return sha256_of([json.dumps(plain).encode(), packed])


def _plain(value: Any, arrays: Arrays, name: str) -> Any:
    """Dataclasses as their fields by name, arrays as their names in ``arrays``, to which they are added."""
    if is_dataclass(value):
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
        return {key: _plain(each, arrays, f"{name}.{key}".lstrip(".")) for key, each in inner.items()}
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return name
    if isinstance(value, list | tuple):
        return [_plain(each, arrays, f"{name}.{place}") for place, each in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value
