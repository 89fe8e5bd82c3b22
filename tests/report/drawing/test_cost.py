"""Accuracy against cost: the points, their positions, and the text alternative of the chart."""

import re

import pytest

from helpers.compared_runs import compared_run, two_variants
from isometry.report.drawing.cost import (
    COSTS,
    LATENCY,
    Point,
    bench_points,
    cost_charts,
    cost_svg,
    group_points,
    model_points,
    side_by_side,
)
from isometry.report.records.groups import group_runs
from isometry.report.records.intervals import interval

PARAMS, SPEED = COSTS


def test_models_of_one_part_of_the_data_are_points():
    rows = [
        {"model": "teacher", "top1": 97.0, "top1_part": "test", "params": 100},
        {"model": "other part", "top1": 99.0, "top1_part": "val", "params": 100},
        {"model": "never measured", "top1_part": "test", "params": 100},
        {"model": "free", "top1": 50.0, "top1_part": "test", "params": 0},
        {"model": "student", "top1": 91.0, "top1_part": "test", "params": 10},
    ]
    assert model_points(rows, "params") == [Point("teacher", 100, 97.0), Point("student", 10, 91.0)]
    assert model_points([], "params") == []


def test_a_group_is_a_point_with_an_interval():
    points = group_points(group_runs(two_variants()), "images_per_s")
    assert points == [
        Point("soft", 28_001.0, *interval([88.0, 86.0, 90.0])),
        Point("whole", 28_001.0, *interval([94.0, 94.0, 94.0])),
    ]


def test_a_group_with_a_run_that_is_not_finished_is_no_point():
    runs = [compared_run(f"r/{seed}", 90.0, seed) for seed in (0, 1)]
    runs[1].data.models.clear()
    assert group_points(group_runs(runs), "params") == []


def test_bench_gives_a_point_a_form_and_runtime():
    def speeds(ms):
        return [{"batch_size": 1, "ms": ms, "images_per_s": 1000 / ms}]

    runtimes = [{"runtime": "eager", "speeds": speeds(2.0)}, {"runtime": "onnx", "speeds": speeds(1.0)}]
    forms = [{"form": "dense", "top1": 90.0, "runtimes": runtimes}]
    found = bench_points([{"name": "a", "forms": forms}])
    assert found == [Point("a, eager", 2.0, 90.0), Point("a, onnx", 1.0, 90.0)]
    untrained = [{"form": "dense", "runtimes": runtimes}]
    assert bench_points([{"name": "a", "forms": untrained}]) == []


def test_one_point_is_no_picture():
    points = [Point("a", 1.0, 90.0)]
    assert cost_charts([(PARAMS, points), (SPEED, [])], "test") == []
    (chart,) = cost_charts([(LATENCY, [*points, Point("b", 2.0, 91.0)])], "val")
    assert chart.legend == [(0, "a", "1"), (1, "b", "2")]
    assert "Top-1 on validation, %" in chart.svg


def test_points_of_one_cost_stand_side_by_side_around_it():
    places = side_by_side([10.0, 1000.0, 10.0, 10.0], 0.1)
    assert len({*places}) == 4
    assert places[1] == pytest.approx(1000)
    assert places[2] == pytest.approx(10)
    assert places[0] * places[3] == pytest.approx(100)
    assert side_by_side([1.0, 2.0], 0.1) == pytest.approx([1.0, 2.0])


def dots(svg: str) -> dict[str, tuple[float, float]]:
    """Where the dot of each colour is."""
    found = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: var\(--(series-\d)\)', svg)
    return {colour: (float(x), float(y)) for x, y, colour in found}


def test_more_accurate_is_higher_and_more_expensive_is_to_the_right():
    points = [Point("small", 1e4, 80.0, 75.0, 85.0), Point("large", 1e6, 95.0), Point("middle", 1e5, 90.0)]
    where = dots(cost_svg(points, PARAMS, "Top-1, %"))
    small, large, middle = (where[f"series-{number}"] for number in (1, 2, 3))
    assert small[0] < middle[0] < large[0]
    assert small[1] > middle[1] > large[1]
    assert middle[0] - small[0] == pytest.approx(large[0] - middle[0], abs=0.1)


def test_the_text_alternative_has_the_figures_and_names_literally():
    svg = cost_svg([Point("<a> $x$", 1e4, 80.0), Point("b", 1e4, 90.0)], PARAMS, "Top-1, %")
    label = re.search(r'aria-label="([^"]*)"', svg)[1]
    assert label == "Top-1 against parameters: &lt;a&gt; $x$ 80.0 % at 10.0 k; b 90.0 % at 10.0 k"
    assert len(dots(svg)) == 2
