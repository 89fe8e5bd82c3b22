"""Rows of tables: which model a row is of, and which part of the data its accuracy."""

from collections.abc import Sequence

from isometry.report import formats
from isometry.report.records.data import Row

PARTS = {"test": "test", "val": "validation"}


def by_role(models: Sequence[Row], role: str) -> Row | None:
    """The row whose "role" is `role`; a single row without any role is the student."""
    for row in models:
        if row.get("role") == role:
            return row
    alone = role == "student" and len(models) == 1 and not models[0].get("role")
    return models[0] if alone else None


def common_part(rows: Sequence[Row]) -> str | None:
    """The part of the data that all accuracies are of; None where they differ in it or it is not known."""
    parts = {row.get("top1_part") for row in rows if formats.is_number(row.get("top1"))}
    return parts.pop() if len(parts) == 1 else None


def on_part(part: str | None, wording: str = " on {}") -> str:
    """The part in a heading or, with another wording, in a sentence: " on test"; empty where it is None."""
    return wording.format(PARTS.get(part, part)) if part else ""
