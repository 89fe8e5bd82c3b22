"""An evaluation on the terminal."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from isometry.evaluation.scores import Row, frequent_confusions
from isometry.report import formats

MOST_IN_MATRIX = 12
"""Classes that a terminal has room for."""
MOST_LISTED = 10


def tables(found: Row) -> Iterator[Table]:
    """What ``evaluation.json`` holds, most important first."""
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
            table.add_row(name, formats.percent(scores[key]["value"]), interval_words(scores[key]))
    table.add_row("calibration error (ECE)", formats.percent(scores["calibration"]["ece"]), "")
    return table


def class_tables(scores: Row) -> Iterator[Table]:
    """Of few classes all, with what they are taken for; of many the worst, and the most frequent confusions."""
    rows, counts = scores["classes"], np.asarray(scores["confusion"])
    names = [row["name"] for row in rows]
    if len(rows) <= MOST_IN_MATRIX:
        table = _table(
            "class", ("right", "95 % interval", *names), title="What each class is taken for, images"
        )
        for row, taken in zip(rows, counts, strict=True):
            table.add_row(*_class(row), *(str(count) if count else "·" for count in taken))
        yield table
        return
    judged = sorted((row for row in rows if row["images"]), key=lambda row: float(row["value"]))
    worst = _table("class", ("right", "95 % interval"), title=f"The worst of {len(rows)} classes")
    for row in judged[:MOST_LISTED]:
        worst.add_row(*_class(row))
    yield worst
    table = _table("class", ("taken for", "images"), title="The most frequent confusions")
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
    table = _table("fine-tuned on", ("classes", "images", "epochs", "top-1", "95 % interval", "judged on"))
    for row in rows:
        judged = f"{row['images']:,} {row['part']}"
        counts = (str(row["classes"]), f"{row['train']:,}", str(row["epochs"]))
        table.add_row(escape(str(row["folder"])), *counts, *_cells(row), judged)
    return table


def interval_words(row: Row) -> str:
    """``90.1 to 94.2 %``."""
    return f"{row['low']:.1f} to {row['high']:.1f} %"


def _class(row: Row) -> list[str]:
    if not row["images"]:
        return [escape(row["name"]), formats.MISSING, "no images"]
    return [escape(row["name"]), *_cells(row)]


def _cells(row: Row) -> list[str]:
    return [formats.percent(row["value"]), interval_words(row)]


def _table(first: str, others: Sequence[str], title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(escape(name), justify="right")
    return table
