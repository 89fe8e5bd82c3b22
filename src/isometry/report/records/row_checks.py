"""Rows of figures that come from files: taken only if a page can show them."""

from typing import Any

from isometry.report.records.data import Row

NUMBER, NUMBER_OR_NONE = (int, float), (int, float, type(None))

SPEEDS: dict[str, type | tuple[type, ...]] = {"batch_size": int, "ms": NUMBER, "images_per_s": NUMBER}

KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "epochs": {},
    "models": {"model": str},
    "stages": {
        "stage": int,
        "model": str,
        "by": str,
        "first_epoch": int,
        "epochs": int,
        "params": NUMBER_OR_NONE,
        "macs": NUMBER_OR_NONE,
        "seconds": NUMBER_OR_NONE,
        "full_seconds": NUMBER_OR_NONE,
        "before": NUMBER_OR_NONE,
        "after": NUMBER_OR_NONE,
        "score": str,
    },
    "times": {"steps": int},
    "forms": {"form": str, "speeds": list},
    "speeds": SPEEDS,
    "benched": {"form": str, "runtimes": list},
    "runtimes": {"runtime": str, "speeds": list},
    "timings": SPEEDS | {"ms_low": NUMBER, "ms_high": NUMBER},
}
"""By table, the keys that each row of it must have, and their types. "benched" are the forms of bench.json."""
INSIDE = {
    "forms": {"speeds": "speeds"},
    "benched": {"runtimes": "runtimes"},
    "runtimes": {"speeds": "timings"},
}
"""By table, the keys that hold tables of their own, and which."""


def check_rows(table: str, rows: Any) -> list[dict[str, Any]]:
    """The rows, if they are a list of rows of that table: names with text, numbers, truth values or None.

    Args:
        table: a name in :data:`KEYS`.
        rows: what a file holds.

    Raises:
        ValueError: they are not; it says in which row and why.
    """
    if not isinstance(rows, list):
        raise ValueError(f"{table} are no list of rows")
    for place, row in enumerate(rows, 1):
        where = f"row {place} of {table}"
        if not isinstance(row, dict):
            raise ValueError(f"{where} is no row, but {type(row).__name__}")
        for key, kinds in KEYS[table].items():
            if not isinstance(row.get(key), kinds) or isinstance(row.get(key), bool):
                raise ValueError(f"{where} lacks {key!r}, or has something else there than it should")
        _check_values(where, table, row)
        if table == "times" and not (row.keys() == rows[0].keys() and all(map(_is_number, row.values()))):
            raise ValueError(f"{where} has other keys than the first, or something that is no number")
    if len({len(row["speeds"]) for row in rows if "speeds" in row}) > 1:
        raise ValueError(f"{table} were not all timed at the same batch sizes")
    return rows


def _check_values(where: str, table: str, row: Row) -> None:
    inside = INSIDE.get(table, {})
    for key, value in row.items():
        if key in inside:
            if not check_rows(inside[key], value):
                raise ValueError(f"{where} has no {key}")
        elif not isinstance(value, str | int | float | None):
            raise ValueError(f"{where} has a {type(value).__name__} under {key!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, NUMBER)
