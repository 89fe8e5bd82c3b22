"""Terminal tables of an evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from isometry.evaluation.scores import Row, frequent_confusions
from isometry.report import formats

MOST_IN_MATRIX = 12
"""Most classes in a confusion table."""
MOST_LISTED = 10


def tables(found: Row) -> Iterator[Table]:
    """The tables of ``evaluation.json``, most important first."""
    if "scores" in found:
        yield scores_table(found["scores"])
        yield from class_tables(found["scores"])
    if "probes" in found:
        yield probes_table(found["probes"])
    if "transfer" in found:
        yield transfer_table(found["transfer"])


def scores_table(scores: Row) -> Table:
    """Top-1, top-5 and calibration."""
    table = _table("", ("figure", "95 % interval"))
    for key, name in (("top1", "top-1"), ("top5", "top-5")):
        if key in scores:
            table.add_row(name, formats.percent(scores[key]["value"]), interval_text(scores[key]))
    table.add_row("calibration error (ECE)", formats.percent(scores["calibration"]["ece"]), "")
    return table


def class_tables(scores: Row) -> Iterator[Table]:
    """For few classes the confusion matrix; for many the worst classes and the most frequent confusions."""
    rows, counts = scores["classes"], np.asarray(scores["confusion"])
    names = [row["name"] for row in rows]
    if len(rows) <= MOST_IN_MATRIX:
        table = _table("class", ("right", "95 % interval", *names), title="Confusion matrix, images")
        for row, predicted in zip(rows, counts, strict=True):
            table.add_row(*_class(row), *(str(count) if count else "·" for count in predicted))
        yield table
        return
    evaluated = sorted((row for row in rows if row["images"]), key=lambda row: float(row["value"]))
    worst = _table("class", ("right", "95 % interval"), title=f"The worst of {len(rows)} classes")
    for row in evaluated[:MOST_LISTED]:
        worst.add_row(*_class(row))
    yield worst
    table = _table("class", ("predicted as", "images"), title="The most frequent confusions")
    for i, j, images in frequent_confusions(counts, MOST_LISTED):
        table.add_row(escape(names[i]), escape(names[j]), str(images))
    yield table


def probes_table(probes: Row) -> Table:
    """k-NN and linear probe of each kind of feature."""
    heads = ("numbers", "k-NN", "95 % interval", "linear probe", "95 % interval")
    table = _table("features", heads)
    for row in probes["features"]:
        cells = [cell for key in ("knn", "linear") for cell in _cells(row[key])]
        table.add_row(row["name"], str(row["numbers"]), *cells)
    return table


def transfer_table(rows: Sequence[Row]) -> Table:
    """Top-1 on each folder after fine-tuning on it."""
    table = _table("fine-tuned on", ("classes", "images", "epochs", "top-1", "95 % interval", "evaluated on"))
    for row in rows:
        evaluated = f"{row['images']:,} {row['part']}"
        counts = (str(row["classes"]), f"{row['train']:,}", str(row["epochs"]))
        table.add_row(escape(str(row["folder"])), *counts, *_cells(row), evaluated)
    return table


def interval_text(row: Row) -> str:
    """``90.1 to 94.2 %``."""
    return f"{row['low']:.1f} to {row['high']:.1f} %"


def _class(row: Row) -> list[str]:
    if not row["images"]:
        return [escape(row["name"]), formats.MISSING, "no images"]
    return [escape(row["name"]), *_cells(row)]


def _cells(row: Row) -> list[str]:
    return [formats.percent(row["value"]), interval_text(row)]


def _table(first: str, others: Sequence[str], title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(escape(name), justify="right")
    return table
