"""Curves of groups: the mean over seeds and its interval, against a slow calculation."""

import math

import pytest
from scipy import stats

from helpers.compared_runs import compared_run, two_variants, with_data
from isometry.report.comparison_page import group_panels, mean_series
from isometry.report.drawing.charts import SERIES, line_chart
from isometry.report.records.groups import group_runs


def test_a_line_is_the_mean_and_its_interval():
    soft, _ = group_runs(two_variants())
    line = mean_series(soft, "val/top1")
    assert line.epochs == (1, 2, 3, 4, 5)
    for place, epoch in enumerate(line.epochs):
        values = [top1 * epoch / 5 for top1 in (88.0, 86.0, 90.0)]
        low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
        assert line.values[place] == pytest.approx(sum(values) / 3)
        assert (line.low[place], line.high[place]) == pytest.approx((low, high))
    assert line.last_text == "88 ± 5"


def test_one_run_has_no_interval():
    (group,) = group_runs([compared_run("r/a", 90.0)])
    line = mean_series(group, "val/top1")
    assert line.values == pytest.approx((18, 36, 54, 72, 90))
    assert (line.low, line.last_text) == ((), "90")


def test_a_mean_is_of_all_runs_or_not_drawn():
    first, second = (compared_run(f"r/{seed}", 90.0, seed) for seed in (0, 1))
    second = with_data(second, epochs=second.data.epochs[:3])
    (group,) = group_runs([first, second])
    assert mean_series(group, "val/top1").epochs == (1, 2, 3)


def test_a_value_that_is_not_finite_breaks_the_line_there_alone():
    first, second = (compared_run(f"r/{seed}", 90.0, seed) for seed in (0, 1))
    second.data.epochs[1]["val/loss"] = math.inf
    (group,) = group_runs([first, second])
    line = mean_series(group, "val/loss")
    assert [math.isfinite(value) for value in line.values] == [True, False, True, True, True]
    assert line.last == (5, pytest.approx(0.4))


def test_a_group_keeps_its_colour_in_every_panel():
    runs = two_variants()
    for run in runs[::2]:
        for row in run.data.epochs:
            del row["train/whole"]
    found = {panel.title: panel for panel in group_panels(group_runs(runs))}
    assert [line.colour for line in found["Top-1 accuracy, %"].series] == [0, 1]
    svg = line_chart(found["Term “whole”"], (1, 5)).svg
    assert "var(--series-2)" in svg
    assert "var(--series-1)" not in svg


def test_averaged_weights_have_a_panel_of_their_own():
    runs = two_variants()
    for run in runs:
        for row in run.data.epochs:
            row["val_ema/top1"] = 50.0
    titles = [panel.title for panel in group_panels(group_runs(runs))]
    assert titles[:2] == ["Top-1 accuracy, %", "Top-1 accuracy, %, averaged weights"]


def test_more_groups_than_colours_are_dashed():
    runs = [compared_run(f"r/{name}", 90.0, aa=name) for name in "abcdefghij"]
    panel = group_panels(group_runs(runs))[0]
    svg = line_chart(panel, (1, 5)).svg
    assert len(panel.series) == 10 > len(SERIES)
    assert svg.count("stroke-dasharray") == 2


def test_an_interval_below_zero_leaves_a_logarithmic_axis_alone():
    runs = [compared_run(f"r/{seed}", 90.0, seed) for seed in (0, 1)]
    for run, scale in zip(runs, (1.0, 9.0), strict=True):
        for row in run.data.epochs:
            row["train/loss"] = scale * 10.0 ** -row["epoch"]
    panel = next(p for p in group_panels(group_runs(runs)) if p.metric == "train/loss")
    assert panel.log_span
    assert min(panel.series[0].low) < 0
    svg = line_chart(panel, (1, 5)).svg
    assert "nan" not in svg
    assert "inf" not in svg
