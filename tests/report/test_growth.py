"""The stages of a run that grew: as text, as a table, as bars, and on the page."""

import re
from dataclasses import replace

import pytest

from helpers.growth_stages import GROWN, stage
from helpers.html_page import Page
from isometry.report.drawing.charts import line_chart
from isometry.report.drawing.panels import panels
from isometry.report.growth import growth_grid, growth_section, growth_sentence
from isometry.report.page import render_report
from isometry.report.records.data import ReportData


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_whole_run_is_compared_with_the_full_size_model():
    sentence = growth_sentence(GROWN)
    assert "took 1 min 20 s: 1.50× faster than the 2 min 00 s" in sentence
    assert "24 epochs" in sentence


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([40.0, 40.0], "as fast as the 1 min 20 s"),
        ([40.1, 40.0], "as fast as the 1 min 20 s"),
        ([48.0, 40.0], "1.10× slower than the 1 min 20 s"),
        ([24.0, 40.0], "1.25× faster than the 1 min 20 s"),
    ],
)
def test_only_a_faster_run_is_called_faster(seconds, expected):
    sentence = growth_sentence([stage(number, spent) for number, spent in enumerate(seconds, 1)])
    assert expected in sentence
    assert ("faster" in sentence) == ("faster" in expected)


@pytest.mark.parametrize("unknown", [None, float("nan"), 0.0])
def test_a_stage_that_was_not_timed_is_not_compared(unknown):
    sentence = growth_sentence([stage(1, unknown), stage(2, 40.0)])
    assert "×" not in sentence
    assert "Not every stage was timed" in sentence


def test_a_row_a_stage():
    grid = growth_grid(GROWN)
    assert grid.header == [
        "stage", "model", "made by", "epochs", "share", "params", "MACs", "time", "at full size",
        "top-1 before → after",
    ]  # fmt: skip
    assert grid.rows == [
        ["1", "depth 4, width 192", "–", "1–8", "33 %", "1.8 M", "420 M", "15 s", "40 s", "–"],
        ["2", "depth 8, width 192", "insert", "9–16", "33 %", "3.6 M", "840 M", "25 s", "40 s",
         "68.1 % → 61.4 %"],
        ["3", "depth 12, width 192", "identity + duplicate", "17–24", "33 %", "5.4 M", "1.26 G", "40 s",
         "40 s", "81.4 % → 81.4 %"],
    ]  # fmt: skip


def test_epochs_follow_each_other_without_a_gap():
    rows = [stage(1, 1.0, epochs=1), stage(2, 1.0, first_epoch=1, epochs=3), stage(3, 1.0, epochs=0)]
    assert [row[3] for row in growth_grid(rows).rows] == ["1", "2–4", "–"]
    assert [row[4] for row in growth_grid(rows).rows] == ["25 %", "75 %", "0 %"]


def test_losses_are_no_percentages():
    grid = growth_grid([stage(1, 1.0), stage(2, 1.0, score="loss", before=1.234, after=float("nan"))])
    assert grid.header[-1] == "loss before → after"
    assert grid.rows[1][-1] == "1.23 → –"


def test_without_validation_there_is_no_column_of_scores():
    grid = growth_grid([stage(1, 1.0), stage(2, 1.0, by="stack")])
    assert grid.header[-1] == "at full size"
    assert {len(row) for row in grid.rows} == {len(grid.header)}


def test_bars_are_as_long_as_their_times():
    bars = growth_section(GROWN)["bars"]
    assert [bar.length for bar in bars] == pytest.approx([time / 40 for time in (15, 40, 25, 40, 40, 40)])
    assert [bar.label for bar in bars[:2]] == ["1 · depth 4, width 192", ""]
    assert [bar.figure for bar in bars[:2]] == ["15 s", "40 s"]


def test_a_run_without_any_time_has_empty_bars():
    bars = growth_section([stage(1, None, full_seconds=None)])["bars"]
    assert [(bar.length, bar.figure) for bar in bars] == [(0, "–"), (0, "–")]


def test_the_section_follows_the_curves(full):
    page = Page(render_report(replace(full, stages=GROWN)))
    assert page.sections == ["models", "training", "cost", "growth", "relations", "cka", "facts", "config"]
    for text in (
        "1.50× faster than",
        "identity + duplicate",
        "68.1 % → 61.4 %",
        "measured",
        "at full size",
    ):
        assert text in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_else_of_the_page_changes(full):
    with_growth, without = render_report(replace(full, stages=GROWN)), render_report(full)
    section = r'<section id="growth" .*?</section>\n\n'
    assert re.sub(section, "", with_growth, flags=re.DOTALL) == without


def test_a_run_that_did_not_grow_shows_nothing_of_it():
    page = Page(render_report(ReportData("a run")))
    assert "growth" not in page.sections
    assert "full size" not in page.text


def test_marks_are_named_as_far_as_they_fit():
    (panel,) = panels([{"epoch": epoch, "val/top1": 2.0 * epoch} for epoch in range(1, 31)])
    far, near = [(10.0, "depth 9"), (20.0, "depth 12")], [(10.0, "depth 9"), (10.5, "depth 12")]
    for marks, named in ((far, {"depth 9", "depth 12"}), (near, {"depth 9"}), (near[::-1], {"depth 9"})):
        svg = line_chart(panel, (1, 30), marks).svg
        assert {word for word in texts(svg) if "depth" in word} == named
        assert svg.count("stroke-dasharray: 1,3") == 2


def test_every_mark_is_named_in_the_text(full):
    marks = [(10.0, "depth 9"), (10.5, "depth 12, width 384")]
    page = Page(render_report(replace(full, marks=marks)))
    assert "Dotted lines: depth 9 (epoch 10); depth 12, width 384 (epoch 10.5)." in page.text
