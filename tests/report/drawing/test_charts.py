"""Curves by epoch."""

import re

import pytest

from isometry.report.drawing.charts import line_chart
from isometry.report.drawing.panels import epoch_range, panels


def drawn_texts(rows):
    (panel,) = panels(rows)
    return re.findall(r"<text[^>]*>([^<]*)</text>", str(line_chart(panel, epoch_range(rows)).svg))


@pytest.mark.parametrize(
    ("key", "value", "ticks"),
    [
        ("val/ap", 6.3, ["1", "0", "2", "4", "6"]),
        ("lr", 2.58e-4, ["1", "0", "0.0001", "0.0002", "0.0003"]),
        ("val/top1", 98.0, ["1", "0", "25", "50", "75", "100"]),
    ],
)
def test_one_epoch_is_a_point_above_0_and_its_axis_has_that_epoch_alone(key, value, ticks):
    assert drawn_texts([{"epoch": 1, key: value}]) == ticks


def test_two_epochs_are_both_on_the_axis():
    assert drawn_texts([{"epoch": 1, "val/ap": 6.0}, {"epoch": 2, "val/ap": 7.0}])[:2] == ["1", "2"]
