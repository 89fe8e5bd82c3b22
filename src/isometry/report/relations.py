"""The section on relation maps, block by block: the teacher's, the student's before and after; of one run or more."""

from collections.abc import Sequence
from typing import NamedTuple

from isometry.report import formats
from isometry.report.drawing.images import colour_range, map_png
from isometry.report.headline import change
from isometry.report.records.data import Matrix, RelationMaps, ReportData

CaptionedMap = tuple[str, Matrix, str]
"""(caption, map, gap)."""


class MapSet(NamedTuple):
    """Relation maps that share one colour scale, from ``low`` to ``high``."""

    name: str
    """Of the pair of blocks, or of the layer."""
    rows: list[tuple[str, list[tuple[str, str, str]]]]
    """(name of the run, its maps as (caption, PNG, gap)); the name is "" where there is one run."""
    low: str
    high: str


def block_maps(runs: Sequence[tuple[str, ReportData]]) -> list[MapSet]:
    """The blocks that any of the runs, given with their names, has maps of; each with the runs that have them."""
    found: dict[str, list[tuple[str, list[CaptionedMap]]]] = {}
    for name, data in runs:
        for maps in data.relations:
            found.setdefault(maps.block, []).append((name, _captioned(maps)))
    return [map_set(name, rows) for name, rows in found.items()]


def map_set(name: str, rows: Sequence[tuple[str, Sequence[CaptionedMap]]]) -> MapSet:
    """The maps of (name of a run, its maps), drawn."""
    low, high = colour_range([matrix for _, maps in rows for _, matrix, _ in maps])
    drawn = [
        (run, [(caption, map_png(matrix, low, high), gap) for caption, matrix, gap in maps])
        for run, maps in rows
    ]
    return MapSet(name, drawn, formats.number(low), formats.number(high))


def _captioned(maps: RelationMaps) -> list[CaptionedMap]:
    after = f"gap {formats.number(maps.gap_after)}{change(maps.gap_before, maps.gap_after)}"
    return [
        ("teacher", maps.teacher, ""),
        ("student before", maps.before, f"gap {formats.number(maps.gap_before)}"),
        ("student after", maps.after, after),
    ]
