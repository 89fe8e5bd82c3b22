"""Columns of the results tables: the list, and a new entry, as the page on extending has it, in a real run."""

import csv
import json
import os
import shutil
import subprocess
import sys

from helpers.pages import DOCS, ROOT, code_blocks
from isometry.report import formats
from isometry.report.tables import Column, Grid, figure, grid, measured_figures, model_columns

RUN_AND_TEST = """
import sys, pytest
from isometry.cli.main import main
words = "compare --config compare.yaml --out out --seeds 1".split()
sys.exit(main(words) or pytest.main(["-q", "test_column.py"]))
"""
TITLE = "## A column of the results table"


def test_a_column_without_any_figure_is_left_out():
    columns = [figure("a", "A", str), figure("b", "B", str), Column("a", "twice", lambda row: 2 * row["a"])]
    assert grid(columns, [{"a": "x"}, {"a": "y", "b": None}]) == Grid(
        ["A", "twice"], [["x", "xx"], ["y", "yy"]]
    )


def test_a_row_without_the_figure_has_a_dash():
    assert grid([figure("a", "A", str)], [{"a": "x"}, {}]).rows == [["x"], ["–"]]


def test_keys_are_unique_and_nothing_is_measured_but_what_has_a_function():
    keys = [column.key for column in model_columns()]
    assert len(keys) == len(set(keys))
    assert list(measured_figures(None)) == [column.key for column in model_columns() if column.measure]


def test_a_new_column_is_one_entry_as_the_page_says(tmp_path):
    """The page's lines, applied to a copy of the package, give a column in every place that shows the results."""
    page = DOCS / "extend.md"
    start = page.read_text(encoding="utf-8").partition(TITLE)[0].count("\n")
    blocks = [block for block in code_blocks(page) if block.line > start]
    (diff,) = (block.text.splitlines() for block in blocks if block.language == "diff")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / diff[0].removeprefix("+++ ")
    before, after = diff[1][1:], "\n".join(line[1:] for line in diff[1:])
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")
    (its_test,) = (block.text for block in blocks if block.title)
    (tmp_path / "test_column.py").write_text(its_test, encoding="utf-8")

    small = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    (tmp_path / "base.yaml").write_text(
        "{dataset: digits, img_size: 8, in_chans: 1, epochs: 1, batch_size: 300, workers: 0, warmup_epochs: 0, "
        f"device: cpu, model: vit_tiny_patch16_224, model_kwargs: {json.dumps(small)}}}"
    )
    (tmp_path / "compare.yaml").write_text("{base: base.yaml, baseline: a, variants: {a: {}}}")
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TEST],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "out" / "a" / "seed-0" / "summary.json").read_text(encoding="utf-8"))
    assert 0 < row["nonzero"] <= row["params"]
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8", newline="") as lines:
        assert [float(line["nonzero"]) for line in csv.DictReader(lines)] == [row["nonzero"]]
    cell = formats.params(row["nonzero"])
    for place in ("comparison.md", "a/seed-0/report.html"):
        shown = (tmp_path / "out" / place).read_text(encoding="utf-8")
        assert "non-zero" in shown
        assert cell.replace(" ", "\u00a0") in shown or cell in shown
    assert "non-zero" in done.stdout
    assert cell in done.stdout
