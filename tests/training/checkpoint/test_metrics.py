"""Rows of metrics and times: appended, rewound to a save, never through a link; damage is told."""

from pathlib import Path

import pytest

from isometry.errors import UserError
from isometry.training.checkpoint.metrics import Metrics

ROWS = [{"epoch": 1, "train/loss": 0.1 + 0.2}, {"epoch": 2, "train/loss": 1e-17}]


def test_metrics_are_rewound_to_a_save(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.append(ROWS[0])
    sizes, before = metrics.sizes(), metrics.csv.read_text()
    metrics.append(ROWS[1])
    whole = metrics.csv.read_bytes(), metrics.jsonl.read_bytes()
    assert metrics.rows() == ROWS
    metrics.rewind(sizes)
    assert metrics.csv.read_text() == before
    assert metrics.rows() == ROWS[:1]
    metrics.append(ROWS[1])
    assert (metrics.csv.read_bytes(), metrics.jsonl.read_bytes()) == whole
    metrics.rewind({})
    metrics.append(ROWS[0])
    assert metrics.csv.read_text() == before


@pytest.mark.parametrize("rows", range(4))
def test_times_keep_the_epochs_that_were_saved(rows: int, tmp_path: Path) -> None:
    """Whatever was written after the save goes, also half a row."""
    times = Metrics(tmp_path, "times")
    sizes = [times.sizes()]
    for epoch in range(1, 4):
        times.append({"epoch": epoch, "data": 0.1 * epoch})
        sizes.append(times.sizes())
    with times.csv.open("a") as file:
        file.write("4,0.")
    times.keep(rows)
    assert times.sizes() == sizes[rows]
    assert [row["epoch"] for row in times.rows()] == list(range(1, rows + 1))
    times.append({"epoch": rows + 1, "data": 1.0})
    assert times.csv.read_text().splitlines()[0] == "epoch,data"
    assert len(times.csv.read_text().splitlines()) == 1 + len(times.rows()) == rows + 2


def test_times_that_are_fewer_than_the_epochs_stay(tmp_path: Path) -> None:
    times = Metrics(tmp_path, "times")
    times.keep(3)
    assert times.rows() == []
    assert not times.csv.exists()
    times.append({"epoch": 5, "data": 1.0})
    times.keep(3)
    assert times.rows() == [{"epoch": 5, "data": 1.0}]


def test_metrics_that_lost_rows_are_not_filled_up(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.append(ROWS[0])
    sizes = metrics.sizes()
    metrics.jsonl.write_text("")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        metrics.rewind(sizes)


@pytest.mark.parametrize("name", ["metrics", "times"])
@pytest.mark.parametrize(
    "damage",
    [
        b'{"loss"',
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b'{"epoch": 2, "loss": "x"}',
        b"\x00\x00",
        b"1e999999x",
        b"[" * 10_000,
    ],
)
def test_a_damaged_row_is_told_when_the_run_resumes(tmp_path: Path, name: str, damage: bytes):
    metrics = Metrics(tmp_path, name)
    metrics.append({"epoch": 1})
    metrics.append({"epoch": 2})
    rows = metrics.jsonl.read_bytes().splitlines(keepends=True)
    metrics.jsonl.write_bytes(rows[0] + damage + b"\n")
    for resume in (lambda: metrics.rewind(metrics.sizes()), lambda: metrics.keep(2)):
        with pytest.raises(UserError, match=rf"{name}\.jsonl: line 2 .*another --out") as refused:
            resume()
        assert len(str(refused.value).splitlines()) == 1


def test_rows_are_neither_added_nor_cut_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    metrics = Metrics(tmp_path)
    for path in metrics.files:
        path.symlink_to(outside)
    for touch in (lambda: metrics.append({"a": 1}), lambda: metrics.rewind({}), lambda: metrics.keep(0)):
        with pytest.raises(UserError, match=r"metrics\.csv: is a link"):
            touch()
    assert outside.read_text() == "theirs"
