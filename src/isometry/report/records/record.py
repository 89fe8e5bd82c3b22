"""What a report was made of, kept as two files: ``report.json`` and, for its maps and pictures, ``report.safetensors``.

Read back they give the same data to the last bit, so the page can be drawn again without data, teacher or training.
Nothing in them is ever executed, and nothing is believed that does not fit :class:`ReportData`.
"""

import hashlib
import json
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from isometry.errors import reason
from isometry.files import write_whole
from isometry.report.records.data import Matrix, Picture, ReportData
from isometry.report.records.row_checks import KEYS, check_rows

RECORD, ARRAYS = "report.json", "report.safetensors"
VERSION = 1

Arrays = dict[str, np.ndarray]


class RecordError(Exception):
    """A record that is not what was written, or fits no report; why, in words."""


def write_record(folder: Path, data: ReportData) -> None:
    """Writes ``report.json`` and ``report.safetensors`` into ``folder``.

    Raises:
        UserError: they cannot be written.
    """
    arrays: Arrays = {}
    plain = _plain(data, arrays, "")
    packed = save(arrays)
    told = {"version": VERSION, "checksum": _checksum(plain, packed), "report": plain}
    # In this order: a record whose arrays are not there yet has another checksum, and is not taken for whole.
    write_whole(folder / ARRAYS, packed)
    write_whole(folder / RECORD, json.dumps(told, indent=1).encode())


def has_record(folder: Path) -> bool:
    """Whether a report's record was written there."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> ReportData:
    """What :func:`write_record` wrote.

    Raises:
        RecordError: a file is missing, was cut short or changed, or holds something that no report has.
    """
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        packed = (folder / ARRAYS).read_bytes()
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise RecordError(f"{RECORD}: was written by another version of isometry")
        if told.get("checksum") != _checksum(told.get("report"), packed):
            raise RecordError(f"{RECORD}: cut short or changed, its checksum does not match")
        report: ReportData = _built(ReportData, told["report"], load(packed), "report")
    except OSError as error:
        raise RecordError(
            f"{Path(error.filename or RECORD).name}: can't be read ({reason(error)})"
        ) from error
    except (ValueError, SafetensorError, RecursionError) as error:
        raise RecordError(f"{RECORD}: {error}") from error
    return report


def _checksum(plain: Any, packed: bytes) -> str:
    """SHA-256 of both files' content; the text is spelled anew, so white space does not count."""
    return hashlib.sha256(json.dumps(plain).encode() + packed).hexdigest()


def _plain(value: Any, arrays: Arrays, name: str) -> Any:
    """Dataclasses as their fields by name, arrays as their names in ``arrays``, which this fills."""
    if is_dataclass(value):
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
        return {key: _plain(each, arrays, f"{name}.{key}".lstrip(".")) for key, each in inner.items()}
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return name
    if isinstance(value, list | tuple):
        return [_plain(each, arrays, f"{name}.{place}") for place, each in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _built(hint: Any, value: Any, arrays: Arrays, where: str) -> Any:
    """The value of type ``hint`` that :func:`_plain` was given.

    Raises:
        ValueError: it has another type, or does not fit what the type asks for.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _built(inner[0], value, arrays, where)
    if is_dataclass(hint):
        return _built_record(hint, value, arrays, where)
    if hint in (Matrix, Picture):
        return _array(hint, value, arrays, where)
    table = where.rpartition(".")[2]
    if table in KEYS:
        return check_rows(table, value)
    if origin in (list, tuple, Sequence):
        return _built_list(hint, value, arrays, where)
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ValueError(f"{where} is {type(value).__name__}, and no {hint.__name__}")
    return value


def _built_record(hint: Any, value: Any, arrays: Arrays, where: str) -> Any:
    hints = get_type_hints(hint)
    needed = {
        field.name for field in fields(hint) if field.default is MISSING and field.default_factory is MISSING
    }
    if not isinstance(value, dict) or not needed <= value.keys() <= hints.keys():
        raise ValueError(f"{where} has other fields than a {hint.__name__}")
    return hint(**{key: _built(hints[key], each, arrays, f"{where}.{key}") for key, each in value.items()})


def _built_list(hint: Any, value: Any, arrays: Arrays, where: str) -> Any:
    inner = get_args(hint)
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")
    if get_origin(hint) is not tuple:
        return [_built(inner[0], each, arrays, f"{where}.{place}") for place, each in enumerate(value)]
    if len(value) != len(inner):
        raise ValueError(f"{where} has {len(value)} entries, and not {len(inner)}")
    return tuple(
        _built(kind, each, arrays, f"{where}.{place}")
        for place, (kind, each) in enumerate(zip(inner, value, strict=True))
    )


def _array(hint: Any, name: Any, arrays: Arrays, where: str) -> np.ndarray:
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(f"{where} names no array of {ARRAYS}")
    array = arrays[name]
    if hint is Picture or hint == Picture:
        fits = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3)
    else:
        fits = array.dtype.kind == "f" and array.ndim == 2
    if not fits or not array.size:
        raise ValueError(
            f"{where} is an array of {array.dtype} {array.shape}, which is no {where.rpartition('.')[2]}"
        )
    return array
