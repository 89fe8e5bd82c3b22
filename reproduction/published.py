"""What the paper printed, and the orderings that it claims: `published.yaml` as records."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from isometry.recipes import load

Measure = Literal["top1", "level", "steadiness"]


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table: the run that stands for it, what the table says in words, top-1 in percent."""

    run: str
    cells: tuple[str, ...]
    top1: float


@dataclass(frozen=True)
class Ordering:
    """A claim: the run ``ahead`` does better than the run ``behind`` by ``measure``; where the paper says so.

    ``close``: the paper says of the two that they are very close, and of neither that it is ahead.
    """

    ahead: str
    behind: str
    source: str
    measure: Measure = "top1"
    close: bool = False


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper; ``columns`` are those of its words."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    orderings: tuple[Ordering, ...]

    def gain(self, ordering: Ordering) -> float:
        """Printed top-1 of the run ahead minus that of the run behind, points."""
        top1 = {row.run: row.top1 for row in self.rows}
        return top1[ordering.ahead] - top1[ordering.behind]

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that it needs."""
        return tuple(row.run for row in self.rows)


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the paper: the runs whose curves it has, by what it calls them."""

    number: int
    title: str
    curves: dict[str, str]
    orderings: tuple[Ordering, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that it needs."""
        return tuple(self.curves)


@dataclass(frozen=True)
class Published:
    """All that is taken from the paper; ``networks`` are the rows of its Table 1."""

    title: str
    authors: str
    version: str
    tables: dict[int, PublishedTable]
    figure: PublishedFigure
    networks: tuple[dict[str, str], ...]


@cache
def published() -> Published:
    """The file that comes with the package."""
    told = load(files("reproduction").joinpath("published.yaml").read_text(encoding="utf-8"))
    tables = [_table(given) for given in told["tables"]]
    networks = tuple({key: str(value) for key, value in row.items()} for row in told["networks"])
    return Published(
        **told["paper"],
        tables={table.number: table for table in tables},
        figure=_figure(told["figure"]),
        networks=networks,
    )


def _table(given: dict[str, Any]) -> PublishedTable:
    rows = tuple(
        PublishedRow(row["run"], tuple(map(str, row["cells"])), row["top1"]) for row in given["rows"]
    )
    orderings = tuple(Ordering(**ordering) for ordering in given["orderings"])
    return PublishedTable(given["number"], given["title"], tuple(given["columns"]), rows, orderings)


def _figure(given: dict[str, Any]) -> PublishedFigure:
    curves = {curve["run"]: curve["name"] for curve in given["curves"]}
    orderings = tuple(Ordering(**ordering) for ordering in given["orderings"])
    return PublishedFigure(given["number"], given["title"], curves, orderings)
