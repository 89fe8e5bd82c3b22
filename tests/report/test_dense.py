"""The section on dense features: its table, its chart, and that it is there only if they were measured."""

import json
import re
from dataclasses import replace

import pytest

from helpers.html_page import Page
from isometry.report.dense import dense_grid, dense_section
from isometry.report.page import render_report
from isometry.report.records.data import ReportData
from isometry.report.records.run_folders import read_run


def row(figure: str, of: str, value: float, chance: float = 25.0, **more: object) -> dict:
    return {
        "figure": figure,
        "of": of,
        "value": value,
        "low": value - 4,
        "high": value + 3,
        "chance": chance,
        **more,
    }


ROWS = [
    row("mAP", "trained", 61.25),
    row("mAP", "before training", 31),
    row("mAP", "teacher", 70),
    row("kept neighbours, images", "trained", 55, 2, k=10),
    row("kept neighbours, images", "before training", 20, 2, k=10),
]
DENSE = {
    "figures": ROWS,
    "teacher": "cait_s24",
    "notes": ["figures of patches are of 500 of the 9,000 images"],
}


def test_a_line_has_each_networks_figure_with_its_interval_and_chance():
    grid = dense_grid(ROWS)
    assert grid.header == ["%, with 95 % interval", "trained", "before training", "teacher", "chance"]
    assert grid.rows == [
        ["mAP", "61.2 (57.2–64.2)", "31.0 (27.0–34.0)", "70.0 (66.0–73.0)", "25.0"],
        ["kept neighbours, images (k = 10)", "55.0 (51.0–58.0)", "20.0 (16.0–23.0)", "–", "2.0"],
    ]


def test_the_page_has_the_section_where_it_was_measured():
    data = ReportData("a run")
    page = Page(render_report(data, dense=DENSE))
    assert page.sections == ["dense"]
    for text in ("the teacher is cait_s24", "61.2 (57.2–64.2)", "500 of the 9,000 images."):
        assert text in page.text
    assert Page(render_report(data)).sections == []
    assert dense_section({}) is None
    assert dense_section({"figures": []}) is None


def test_names_of_others_are_text():
    named = {**DENSE, "teacher": "<script>alert(1)</script>", "figures": [row("<b>x</b>", "<i>", 5)]}
    page = render_report(replace(ReportData("a run")), dense=named)
    assert not re.search(r"<script>|<b>x|<i>[^c]", page)


@pytest.mark.parametrize(
    "changed", [{"value": "high"}, {"chance": "low"}, {"k": [1]}, {"of": None}, {"figure": ["mAP"]}]
)
def test_figures_that_are_none_are_left_out_and_named(changed, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "evaluation.json").write_text(json.dumps({"dense": DENSE}))
    assert read_run(tmp_path).dense == DENSE
    figures = [*ROWS[:-1], {**ROWS[-1], **changed}]
    (tmp_path / "evaluation.json").write_text(json.dumps({"dense": {"figures": figures}}))
    run = read_run(tmp_path)
    assert run.dense == {}
    assert any("evaluation.json: can't be read" in note for note in run.data.notes)


def test_bars_are_as_long_as_their_figures():
    svg = str(dense_section(DENSE)["chart"])
    assert (
        'aria-label="Dense figures. mAP: trained 61.2 %, before training 31.0 %, teacher 70.0 %; kept' in svg
    )
    # A bar is a closed path M x y L x2 y ... z from 0 %.
    bars = re.findall(r"M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \nL \2 [\d.]+ \nL \1 [\d.]+ \nz", svg)
    lengths = sorted({round(float(end) - float(start), 1) for start, end in bars})
    unit = lengths[-1] / 70
    assert [round(length / unit) for length in lengths] == [20, 31, 55, 61, 70]
