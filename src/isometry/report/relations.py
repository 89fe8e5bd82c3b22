"""Relation maps block by block: the teacher's, the student's before and after, of one run or of several."""

from collections.abc import Sequence
from typing import NamedTuple

from isometry.report import formats
from isometry.report.drawing.charts import colour_range, map_png
from isometry.report.headline import change
from isometry.report.records.data import RelationMaps, ReportData


class MapRow(NamedTuple):
    """The three maps of one run."""

    run: str
    """Whose; "" where there is one run."""
    maps: list[tuple[str, str, str]]
    """(whose map, data URI, what its gap is)."""


class Block(NamedTuple):
    """The maps of one pair of blocks, all under one colour scale."""

    name: str
    rows: list[MapRow]
    low: str
    high: str


def blocks(runs: Sequence[tuple[str, ReportData]]) -> list[Block]:
    """The blocks that any of the runs has maps of, each with the runs that have them.

    Args:
        runs: their names ("" where there is one run) and data.
    """
    found: dict[str, list[tuple[str, RelationMaps]]] = {}
    for name, data in runs:
        for maps in data.relations:
            found.setdefault(maps.block, []).append((name, maps))
    return [_block(name, rows) for name, rows in found.items()]


def _block(name: str, found: Sequence[tuple[str, RelationMaps]]) -> Block:
    every = [matrix for _, maps in found for matrix in (maps.teacher, maps.before, maps.after)]
    low, high = colour_range(every)
    rows = [MapRow(run, _drawn(maps, low, high)) for run, maps in found]
    return Block(name, rows, formats.number(low), formats.number(high))


def _drawn(maps: RelationMaps, low: float, high: float) -> list[tuple[str, str, str]]:
    after = f"gap {formats.number(maps.gap_after)}{change(maps.gap_before, maps.gap_after)}"
    return [
        ("teacher", map_png(maps.teacher, low, high), ""),
        ("student before", map_png(maps.before, low, high), f"gap {formats.number(maps.gap_before)}"),
        ("student after", map_png(maps.after, low, high), after),
    ]
