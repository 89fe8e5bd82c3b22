"""The time of training by phase: as text, as a table, as bars, and on the page."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from helpers.epoch_times import PHASES, ROWS, epoch
from helpers.html_page import Page
from isometry.report.page import render_report
from isometry.report.records.data import ReportData
from isometry.report.times import times_grid, times_section, times_sentence, waiting_sentence

LABELS = ["data", "teacher", "student forward", "losses", "backward", "optimizer", "other"]


def text_of(rows: list[dict[str, Any]], taken: int = 20) -> str:
    section = times_section(rows, [{"epoch": 1, "step": taken}])
    assert section is not None
    return section["text"]


def test_a_row_a_phase_and_all_together():
    grid = times_grid(ROWS)
    assert grid.header == ["phase", "whole run", "ms per step", "share"]
    assert grid.rows == [
        ["data", "2 s", "100", "5.0 %"],
        ["teacher", "16 s", "800", "40.0 %"],
        ["student forward", "6 s", "300", "15.0 %"],
        ["losses", "4 s", "200", "10.0 %"],
        ["backward", "10 s", "500", "25.0 %"],
        ["optimizer", "1 s", "50", "2.5 %"],
        ["other", "1 s", "50", "2.5 %"],
        ["together", "40 s", "2,000", "100.0 %"],
    ]


def test_the_text_has_the_figures():
    text = text_of(ROWS)
    assert "20 optimizer steps took 40 s, 2,000 ms each" in text
    assert "“teacher” with 40 %" in text


def test_what_stands_between_epochs_has_its_share():
    def text(seconds: float | None, taken: int = 20) -> str:
        section = times_section(ROWS, [{"epoch": 2, "step": taken}], "", seconds)
        assert section is not None
        return section["text"]

    assert "the run took 50 s, so they took 20" in text(50.0)
    # Not where it isn't known, where the clock disagrees, and where steps are missing.
    for other in (text(None), text(39.0), text(50.0, taken=30)):
        assert "so they took" not in other


def test_steps_that_were_not_timed_are_counted():
    assert "were timed" not in text_of(ROWS)
    text = text_of([epoch(1, 10), epoch(2, 4)], 20)
    assert "14 optimizer steps took 40 s, 2,860 ms each" in text
    assert "Of the run's 20 steps 14 were timed" in text


def test_a_step_takes_the_mean_of_all_steps_and_not_of_epochs():
    rows = [epoch(1, 30, data=3.0), epoch(2, 10, data=5.0)]
    assert times_grid(rows).rows[0] == ["data", "8 s", "200", "100.0 %"]


@pytest.mark.parametrize(("key", "phase"), [("teacher", "teacher"), ("rest", "other")])
def test_a_phase_that_never_was_is_left_out(key, phase):
    rows = [epoch(1, **{**PHASES, key: 0.0})]
    assert phase not in [row[0] for row in times_grid(rows).rows]
    assert phase not in times_sentence(rows)
    assert phase not in [bar.label for bar in times_section(rows, [])["bars"]]
    assert ("“Other” is" in text_of(rows)) == (key != "rest")


def test_a_phase_of_some_epochs_is_there():
    rows = [epoch(1, **{**PHASES, "teacher": 0.0}), epoch(2)]
    assert times_grid(rows).rows[1] == ["teacher", "8 s", "400", "25.0 %"]


def test_the_sentence_begins_with_the_largest():
    assert times_sentence(ROWS) == (
        "teacher 40 %, backward 25 %, student forward 15 %, losses 10 %, data 5 %, optimizer 2 %, other 2 %"
    )


@pytest.mark.parametrize(
    "rows", [[], [epoch(1, 0, **dict.fromkeys(PHASES, 0.0))], [epoch(1, 0, data=0.0, rest=1e-6)]]
)
def test_without_a_timed_step_there_is_no_section(rows):
    """A run that was killed after its last step, before its evaluation."""
    assert times_sentence(rows) == ""
    assert times_section(rows, [{"epoch": 1, "step": 10}]) is None
    assert (
        Page(render_report(ReportData("x", epochs=[{"epoch": 1, "step": 10}], times=rows))).text.count("time")
        == 0
    )


def test_bars_are_as_long_as_their_shares():
    section = times_section(ROWS, [])
    assert [bar.label for bar in section["bars"]] == LABELS
    assert [bar.length for bar in section["bars"]] == pytest.approx(
        [seconds / 8 for seconds in PHASES.values()]
    )
    assert [bar.figure for bar in section["bars"][:2]] == ["5 %", "40 %"]


def test_the_section_stands_before_the_facts(full):
    page = Page(
        render_report(replace(full, times=ROWS, epochs=[{"epoch": 2, "step": 20, "train/loss": 1.0}]))
    )
    assert page.sections == ["models", "training", "cost", "relations", "cka", "times", "facts", "config"]
    for text in (
        "2,000 ms each",
        "student forward",
        "40.0 %",
        "“teacher” with 40\u00a0%",
    ):
        assert text in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_else_of_the_page_changes(full):
    epochs = [row | {"step": 10} for row in full.epochs]
    shown, without = (render_report(replace(full, epochs=epochs, times=rows)) for rows in (ROWS, []))
    assert re.sub(r'<section id="times" .*?</section>\n\n', "", shown, flags=re.DOTALL) == without


def rows_that_wait(seconds: float, steps: int = 10) -> list[dict[str, Any]]:
    """Three epochs of 10 s each, so many of them waiting; in the first the workers started, for a minute."""
    later = [epoch(number, steps, data=seconds, student=10.0 - seconds) for number in (2, 3)]
    return [epoch(1, steps, data=60.0, student=10.0), *later]


@pytest.mark.parametrize(
    ("waited", "workers", "needed"), [(5.0, 4, 8), (2.5, 2, 3), (1.0, 9, 10), (5.0, 0, 1), (8.0, 0, 4)]
)
def test_what_waits_is_told_how_many_workers_would_do(waited: float, workers: int, needed: int):
    sentence = waiting_sentence(rows_that_wait(waited), workers, cores=16)
    assert f"{10 * waited:.0f}\u00a0%" in sentence or f"{10 * waited:.0f} %" in sentence
    assert f"--workers {needed};" in sentence


def test_the_number_of_workers_is_what_keeps_up():
    """W workers that are never idle deliver an image in t/W; training takes s, so t/s of them are never waited for."""
    for workers in (1, 2, 3, 7):
        loading, training = 20.0, 4.0
        waited = max(0.0, loading / workers - training)
        rows = [epoch(1, data=waited, student=training)]
        assert (
            f"--workers {math.ceil(loading / training)};" in waiting_sentence(rows, workers, 64) or not waited
        )


def test_no_more_workers_are_recommended_than_cores_are_left_by_training():
    for workers in (4, 6, 9):
        sentence = waiting_sentence(rows_that_wait(5.0), workers, cores=7)
        assert "7 cores" in sentence
        assert (f"--workers 6 (it was {workers})" in sentence) == (workers < 6)
        assert sentence.count("--workers") == (workers < 6)


def test_one_core_is_one_worker():
    sentence = waiting_sentence(rows_that_wait(8.0), 0, cores=1)
    assert "1 core that" in sentence.replace("cores", "CORES")
    assert "--workers 1 (it was 0)" in sentence


@pytest.mark.parametrize("cores", [4, 16])
def test_decoding_in_full_is_named_where_it_is_switched_on(cores: int):
    told = [waiting_sentence(rows_that_wait(5.0), 4, cores, in_full) for in_full in (True, False)]
    assert ["--decode scaled" in sentence for sentence in told] == [True, False]


def test_the_first_epoch_is_left_out_and_that_is_said():
    assert waiting_sentence(rows_that_wait(5.0), 2, 8).startswith("After the first epoch training waited")
    assert waiting_sentence([epoch(1, data=5.0, student=5.0)], 2, 8).startswith("Training waited")


@pytest.mark.parametrize("rows", [[], rows_that_wait(0.9), rows_that_wait(9.0, steps=0), ROWS])
def test_nothing_is_said_where_data_is_not_the_bottleneck(rows: list[dict[str, Any]]):
    assert waiting_sentence(rows, 2, 8) == ""


@pytest.mark.parametrize(
    "seconds",
    [
        dict.fromkeys(PHASES, 0.0),
        {"data": math.nan, "student": 1.0},
        {"data": -5.0, "student": 1.0},
        {"data": 1e308, "student": 1e308},
    ],
)
def test_clocks_that_go_wrong_say_nothing_on_waiting(seconds: dict[str, float]):
    rows = [epoch(1, **seconds), epoch(2, **seconds)]
    assert waiting_sentence(rows, 2, 8) == ""


def test_epochs_without_any_time_have_no_section():
    rows = [epoch(1, **dict.fromkeys(PHASES, 0.0))]
    assert times_section(rows, []) is None
    assert times_sentence(rows) == ""


def test_a_single_worker_that_would_do_is_one():
    assert "About 1 worker would" in waiting_sentence([epoch(1, data=1.0, student=5.0)], 0, 8)


def test_a_run_of_one_epoch_counts_it():
    assert "--workers 4;" in waiting_sentence([epoch(1, data=5.0, student=5.0)], 2, 8)


def test_the_page_has_the_sentence(full):
    times = rows_that_wait(5.0)
    sentence = waiting_sentence(times, 2, 16)
    page = Page(render_report(replace(full, times=times, waiting=sentence)))
    assert "--workers 4" in page.text
