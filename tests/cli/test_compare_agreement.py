"""Correlations of what students keep of their teacher with their scores, and the picture."""

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from isometry.cli.compare_agreement import agreements, draw_agreement
from isometry.cli.compare_geometry import Geometry
from isometry.cli.compare_results import AGREEMENT, KEPT, TaskResults

KEEPS = {"untrained": [5.0, 6.0], "soft": [20.0, 24.0], "whole": [40.0, 37.0]}
SCORES = {"untrained": [10.0, 12.0], "soft": [30.0, 11.0], "whole": [33.0, 35.0], "teacher": [50.0, 51.0]}
GEOMETRY = Geometry(
    {name: [{KEPT: value} for value in each] for name, each in KEEPS.items()}
    | {"teacher": [{"mAP": 1.0}] * 2},
    [],
)
TASK = TaskResults(
    "boxes", "detect", {name: [{"ap": value} for value in each] for name, each in SCORES.items()}
)


def test_correlations_are_over_students_and_over_means_of_variants():
    found = agreements(GEOMETRY, [TASK])["boxes"]
    pairs = [(x, y) for name in KEEPS for x, y in zip(KEEPS[name], SCORES[name], strict=True)]
    assert found["students"]["rho"] == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert found["students"]["n"] == 6
    assert (found["variants"]["rho"], found["variants"]["n"]) == (1, 3)
    assert (found["figure"], found["score"]) == (KEPT, "AP")


def test_a_student_without_the_figure_is_left_out():
    lost = Geometry({**GEOMETRY.figures, "whole": [{KEPT: 40.0}, {}]}, [])
    assert agreements(lost, [TASK])["boxes"]["students"]["n"] == 5


def test_the_picture_is_there_and_not_blank(tmp_path):
    draw_agreement(tmp_path, GEOMETRY, [TASK], agreements(GEOMETRY, [TASK]))
    pixels = np.asarray(Image.open(tmp_path / AGREEMENT).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_without_the_figure_there_is_neither(tmp_path):
    nothing = Geometry({"soft": [{"mAP": 1.0}, {"mAP": 2.0}]}, [])
    assert agreements(nothing, [TASK]) == {}
    draw_agreement(tmp_path, nothing, [TASK], {})
    assert list(tmp_path.iterdir()) == []
