"""Terminal tables of an evaluation."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rich.table import Table

from isometry.evaluation.scores import Row, frequent_confusions
from isometry.report import formats
from isometry.report.terminal import plain

MOST_IN_MATRIX = 12
"""Most classes in a confusion table."""
MOST_LISTED = 10


INTERVAL = "95 % interval"


def tables(found: Row) -> Iterator[Table]:
    """The tables of ``evaluation.json``, most important first."""
    if "scores" in found:
        yield scores_table(found["scores"])
        yield from class_tables(found["scores"])
    if "probes" in found:
        yield probes_table(found["probes"])
    if "dense" in found:
        yield dense_table(found["dense"]["figures"])
    if "transfer" in found:
        yield transfer_table(found["transfer"])


def scores_table(scores: Row) -> Table:
    """Top-1, top-5 and calibration."""
    rows = [["top-1", *_cells(scores["top1"])]]
    if "top1_by_class" in scores:
        rows.append(["mean of the classes", formats.percent(scores["top1_by_class"]["value"]), ""])
    if "top5" in scores:
        rows.append(["top-5", *_cells(scores["top5"])])
    rows.append(["calibration error (ECE)", formats.percent(scores["calibration"]["ece"]), ""])
    return _table(["", "figure", INTERVAL], rows)


def class_tables(scores: Row) -> Iterator[Table]:
    """For few classes the confusion matrix; for many the worst classes and the most frequent confusions."""
    rows, counts = scores["classes"], np.asarray(scores["confusion"])
    names = [row["name"] for row in rows]
    header = ["class", "right", INTERVAL]
    if len(rows) <= MOST_IN_MATRIX:
        cells = [
            [*_class(row), *(str(count) if count else "·" for count in predicted)]
            for row, predicted in zip(rows, counts, strict=True)
        ]
        yield _table([*header, *names], cells, title="Confusion matrix, images")
        return
    worst = sorted((row for row in rows if row["images"]), key=lambda row: float(row["value"]))[:MOST_LISTED]
    yield _table(header, map(_class, worst), title=f"The worst of {len(rows)} classes")
    confused = frequent_confusions(counts, MOST_LISTED)
    yield _table(
        ["class", "predicted as", "images"],
        ([names[i], names[j], str(images)] for i, j, images in confused),
        title="The most frequent confusions",
    )


def probes_table(probes: Row) -> Table:
    """k-NN and linear probe of each kind of feature."""
    return _table(
        ["features", "numbers", "k-NN", INTERVAL, "linear probe", INTERVAL],
        (
            [row["name"], str(row["numbers"]), *_cells(row["knn"]), *_cells(row["linear"])]
            for row in probes["features"]
        ),
    )


def dense_table(rows: Sequence[Row]) -> Table:
    """Each dense figure of each network, and chance."""
    cells, above = [], ""
    for row in rows:
        name = row["figure"] if row["figure"] != above else ""
        chance = formats.percent(row["chance"]) if name else ""
        cells.append([name, row["of"], *_cells(row), chance])
        above = row["figure"]
    return _table(["features", "network", "figure", INTERVAL, "chance"], cells)


def transfer_table(rows: Sequence[Row]) -> Table:
    """Top-1 on each folder after fine-tuning on it, and the mean of the classes' accuracies where one has it."""
    cells = []
    uneven = any("top1_by_class" in row for row in rows)
    for row in rows:
        counts = str(row["classes"]), f"{row['train']:,}", str(row["epochs"])
        by_class = [formats.percent(row.get("top1_by_class"))] if uneven else []
        cells.append(
            [str(row["folder"]), *counts, *_cells(row), *by_class, f"{row['images']:,} {row['part']}"]
        )
    header = ["folder", "classes", "images", "epochs", "top-1", INTERVAL]
    return _table([*header, *["mean of classes"] * uneven, "measured on"], cells)


def _class(row: Row) -> list[str]:
    return [row["name"], *(_cells(row) if row["images"] else (formats.MISSING, "no images"))]


def _cells(row: Row) -> list[str]:
    return [formats.percent(row["value"]), f"{formats.fixed(row['low'])} to {formats.percent(row['high'])}"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(header):
        # A wide table wraps names before an interval.
        table.add_column(plain(name), justify="right" if index else "left", no_wrap=name == INTERVAL)
    for row in rows:
        table.add_row(*map(plain, row))
    return table
