"""Metrics and times of a run: rows as CSV and as JSON lines, rewound to a save."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from pydantic import StrictFloat, StrictInt

from isometry.errors import UserError, reason
from isometry.files import disk_errors, open_own
from isometry.parsing import parse_json, validate

Row = dict[str, Any]


class Metrics:
    """``NAME.csv`` and ``NAME.jsonl``, with a row per epoch.

    ``metrics`` are the same bytes for the same run; ``times``, which always differ, have files of their own.
    """

    def __init__(self, folder: Path, name: str = "metrics") -> None:
        self.csv = folder / f"{name}.csv"
        self.jsonl = folder / f"{name}.jsonl"

    @property
    def files(self) -> tuple[Path, Path]:
        """Both files."""
        return self.csv, self.jsonl

    def append(self, row: Row) -> None:
        """Adds a row; every row has the same keys.

        Raises:
            UserError: the disk is full.
        """
        line = io.StringIO()
        writer = csv.DictWriter(line, fieldnames=list(row), lineterminator="\n")
        if not self.csv.exists() or self.csv.stat().st_size == 0:
            writer.writeheader()
        writer.writerow(row)
        for path, text in ((self.csv, line.getvalue()), (self.jsonl, json.dumps(row) + "\n")):
            with (
                disk_errors(path, "make room and go on with --resume"),
                open_own(path, "a") as file,
            ):
                file.write(text)
                file.flush()
                # The checkpoint that counts these bytes must not reach the disk before them.
                os.fsync(file.fileno())

    def rows(self) -> list[Row]:
        """All rows so far.

        Raises:
            UserError: a line is no row; the message gives its number.
        """
        lines = self.jsonl.read_bytes().splitlines() if self.jsonl.exists() else []
        return [self._row(number, line) for number, line in enumerate(lines, 1)]

    def _row(self, number: int, line: bytes) -> Row:
        try:
            row: Row = parse_json(line)
            validate(row, dict[str, StrictInt | StrictFloat | None])
            if "epoch" not in row:
                raise ValueError("it has no epoch")
        except ValueError as error:
            raise UserError(
                f"{self.jsonl}: line {number} is no row of a run ({reason(error)}); restore the file, or start a new "
                "run with another --out"
            ) from error
        return row

    def sizes(self) -> dict[str, int]:
        """Sizes of both files in bytes, for :meth:`rewind`."""
        return {path.name: path.stat().st_size if path.exists() else 0 for path in self.files}

    def rewind(self, sizes: dict[str, int]) -> None:
        """Truncates both files to their sizes when a checkpoint was saved; to nothing without sizes.

        Raises:
            UserError: a file is shorter than that, or a row in it is damaged.
        """
        now = self.sizes()
        for path in self.files:
            size = sizes.get(path.name, 0)
            if now[path.name] < size:
                raise UserError(f"{path}: has lost rows that were there at the last save; restore the file")
            if path.exists():
                _cut(path, size)
        # Damage is told before the epochs that go on from here, not after them.
        self.rows()

    def keep(self, rows: int) -> None:
        """Truncates both files to at most their first ``rows`` rows."""
        for path, header in ((self.csv, 1), (self.jsonl, 0)):
            if path.exists():
                lines = path.read_bytes().splitlines(keepends=True)
                _cut(path, sum(map(len, lines[: rows + header if rows else 0])))
        self.rows()


def _cut(path: Path, size: int) -> None:
    with open_own(path, "r+b") as file:
        file.truncate(size)
