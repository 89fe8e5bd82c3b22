"""Terminal table and messages of an export."""

from collections.abc import Sequence

from rich.table import Table

from isometry.errors import counted
from isometry.evaluation.timing import Row
from isometry.report import formats
from isometry.report.records.data import PARTS
from isometry.report.tables import Grid, rich_table

WORTH_SAYING = 1.0
"""Loss of top-1, in points, above which int8 gets a note."""


def forms_table(rows: Sequence[Row]) -> Table:
    """Forms side by side: ``forms`` of :func:`isometry.export.onnx.export_onnx`."""
    first = rows[0]
    part = PARTS.get(first["part"], first["part"])
    agreement = "same class" if "agreement" in first else "cosine"
    header = ["form", "MB", *([f"top-1 on {part}"] if "top1" in first else [])]
    header += ["mean of classes"] if "top1_by_class" in first else []
    header.append(agreement)
    header += [f"ms, batch {speed['batch_size']}" for speed in first["speeds"]]
    return rich_table(Grid(header, [_cells(row) for row in rows]))


def notes_on(rows: Sequence[Row]) -> list[str]:
    """Notes on the exported variant (the last row) compared with the row before."""
    floats, last = rows[-2:]
    if "skipping" in last["form"]:
        return _slower_batches(last, floats)
    if "int8" not in last["form"]:
        return []
    notes = []
    lost = floats.get("top1", 0.0) - last.get("top1", 0.0)
    if lost > WORTH_SAYING:
        notes.append(f"int8 loses {lost:.1f} points of top-1; omit --quantize if that is too much")
    fast, slow = last["speeds"][0]["ms"], floats["speeds"][0]["ms"]
    if fast >= slow:
        notes.append(
            f"int8 takes {fast:.3g} ms here at batch 1 and float32 {slow:.3g} ms; its file is smaller"
        )
    return notes


def _slower_batches(last: Row, floats: Row) -> list[str]:
    return [
        f"At batch {fast['batch_size']} skipping takes {fast['ms']:.3g} ms and computing every channel "
        f"{slow['ms']:.3g} ms; add --masked to export for batches"
        for fast, slow in zip(last["speeds"], floats["speeds"], strict=True)
        if fast["batch_size"] > 1 and fast["ms"] > slow["ms"]
    ]


def skipping_text(gain: Row) -> str:
    """:func:`isometry.export.equivalence.speed_up` of a skipping graph, as a sentence."""
    low, high = formats.times(gain["low"]), formats.times(gain["high"])
    return (
        f"Skipping is {formats.times(gain['median'])} as fast at batch 1 as computing every channel "
        f"(95 % interval {low} to {high}, {gain['rounds']:,} images)"
    )


def interval_text(row: Row) -> str:
    """Top-1 with its interval: ``97.0 % (95 % Wilson interval 95.1 to 98.2 %, 500 test images)``; the mean of the
    classes' accuracies behind them where classes differ much in number."""
    part = PARTS.get(row["part"], row["part"])
    low, high = formats.percent(row["top1_low"]).removesuffix(" %"), formats.percent(row["top1_high"])
    by_class = f"; mean of classes {formats.percent(row['top1_by_class'])}" if "top1_by_class" in row else ""
    images = counted(row["images"], f"{part} image")
    return f"{formats.percent(row['top1'])} (95 % Wilson interval {low} to {high}, {images}{by_class})"


def _cells(row: Row) -> list[str]:
    size = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else formats.MISSING
    agreement = formats.percent(row["agreement"]) if "agreement" in row else f"{row['cosine']:.4f}"
    top1 = [formats.percent(row[key]) for key in ("top1", "top1_by_class") if key in row]
    times = (formats.milliseconds(speed["ms"] / 1000) for speed in row["speeds"])
    return [row["form"], size, *top1, agreement, *times]


def latency_text(speed: Row) -> str:
    """A row of :func:`isometry.evaluation.timing.interleaved_speeds`: ``median 0.61 ms (quartiles 0.59 to 0.66, 812
    passes)``."""
    median, low, high = (formats.milliseconds(speed[key] / 1000) for key in ("ms", "ms_low", "ms_high"))
    return f"median {median} ms (quartiles {low} to {high}, {speed['rounds']:,} passes)"
