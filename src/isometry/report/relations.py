"""The section on relation maps, block by block: the teacher's, the student's before and after; of one run or more."""

from collections.abc import Sequence
from typing import NamedTuple

from isometry.report import formats
from isometry.report.drawing.images import colour_range, map_png
from isometry.report.headline import change
from isometry.report.records.data import RelationMaps, ReportData

LabelledMap = tuple[str, str, str]
"""(caption, PNG, gap)."""


class MapSet(NamedTuple):
    """Relation maps that share one colour scale.

    Attributes:
        name: of the pair of blocks, or of the layer.
        rows: (name of the run, its maps); the name is "" where there is one run.
        low, high: ends of the colour scale.
    """

    name: str
    rows: list[tuple[str, list[LabelledMap]]]
    low: str
    high: str


def block_maps(runs: Sequence[tuple[str, ReportData]]) -> list[MapSet]:
    """The blocks that any of the runs, given with their names, has maps of; each with the runs that have them."""
    found: dict[str, list[tuple[str, RelationMaps]]] = {}
    for name, data in runs:
        for maps in data.relations:
            found.setdefault(maps.block, []).append((name, maps))
    return [_map_set(name, rows) for name, rows in found.items()]


def _map_set(name: str, rows: Sequence[tuple[str, RelationMaps]]) -> MapSet:
    low, high = colour_range([each for _, maps in rows for each in (maps.teacher, maps.before, maps.after)])
    drawn = [(run, _labelled(maps, low, high)) for run, maps in rows]
    return MapSet(name, drawn, formats.number(low), formats.number(high))


def _labelled(maps: RelationMaps, low: float, high: float) -> list[LabelledMap]:
    after = f"gap {formats.number(maps.gap_after)}{change(maps.gap_before, maps.gap_after)}"
    return [
        ("teacher", map_png(maps.teacher, low, high), ""),
        ("student before", map_png(maps.before, low, high), f"gap {formats.number(maps.gap_before)}"),
        ("student after", map_png(maps.after, low, high), after),
    ]
