"""The figures printed in the paper and the orderings that it claims, from `published.yaml`."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from isometry.parsing import parse_yaml

Measure = Literal["top1", "level", "steadiness"]


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table: the name of its run, its text cells, top-1 in percent."""

    run: str
    cells: tuple[str, ...]
    top1: float


@dataclass(frozen=True)
class Ordering:
    """A claim of the paper: run ``ahead`` is better than run ``behind``.

    Attributes:
        ahead, behind: names of runs.
        source: where the paper claims it.
        measure: the quantity compared.
        close: the paper calls the two very close instead.
    """

    ahead: str
    behind: str
    source: str
    measure: Measure = "top1"
    close: bool = False


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper; ``columns`` are the headers of its text cells."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    orderings: tuple[Ordering, ...]

    def gain(self, ordering: Ordering) -> float:
        """Printed top-1 of the run ahead minus that of the run behind, in points."""
        top1 = {row.run: row.top1 for row in self.rows}
        return top1[ordering.ahead] - top1[ordering.behind]

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of its runs."""
        return tuple(row.run for row in self.rows)


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the paper; ``curves`` are its labels by run."""

    number: int
    title: str
    curves: dict[str, str]
    orderings: tuple[Ordering, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of its runs."""
        return tuple(self.curves)


@dataclass(frozen=True)
class Published:
    """``published.yaml``; ``networks`` are the rows of the paper's Table 1."""

    title: str
    authors: str
    version: str
    tables: dict[int, PublishedTable]
    figure: PublishedFigure
    networks: tuple[dict[str, str], ...]


@cache
def published() -> Published:
    """``published.yaml``, parsed."""
    content = parse_yaml(files("reproduction").joinpath("published.yaml").read_text(encoding="utf-8"))
    tables = [_table(given) for given in content["tables"]]
    networks = tuple({key: str(value) for key, value in row.items()} for row in content["networks"])
    return Published(
        **content["paper"],
        tables={table.number: table for table in tables},
        figure=_figure(content["figure"]),
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
