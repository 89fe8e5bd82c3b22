"""What a log shows of a finished run: the report's figures and pictures."""

from dataclasses import replace

import numpy as np

from helpers.pruning_rows import PRUNED
from isometry.report.log_panels import LEAST_SIDE, logged_figures, logged_pictures, relations_picture
from isometry.report.records.data import RelationMaps, ReportData


def test_every_map_and_matrix_is_a_picture(full):
    found = logged_pictures(replace(full, pruning=PRUNED))
    assert list(found) == [
        "relations/block 1 ◄ 2",
        "relations/block 2 ◄ 4",
        "CKA/before training",
        "CKA/after training",
        *(f"saliencies and features/{layer}" for layer in PRUNED.layers),
        "images/easy",
        "images/hard",
    ]
    for picture in found.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 150
        assert picture.std() > 1


def test_maps_stand_side_by_side_with_sharp_pixels():
    teacher, before, after = np.eye(3), np.zeros((3, 3)), np.full((3, 3), -0.5)
    picture = relations_picture(RelationMaps("b", teacher, before, after, 1.0, 1.0))
    times = -(-LEAST_SIDE // 3)
    assert picture.shape == (3 * times, 9 * times + 16, 3)
    first = picture[:, : 3 * times]
    bright = first.astype(int).sum(2) > first.astype(int).sum(2).mean()
    assert np.array_equal(bright, np.kron(np.eye(3), np.ones((times, times))) > 0)
    assert (picture[:, 3 * times : 3 * times + 8] == 255).all()
    # Under one scale: what is the same value is the same colour in each map.
    assert (picture[0, 3 * times + 8] == picture[0, times]).all()
    assert (picture[0, -1] != picture[0, 3 * times + 8]).any()


def test_figures_are_those_of_the_tables(full):
    models = [*full.models, {"model": "other", "role": "companion", "top1": 1.0}]
    found = logged_figures(replace(full, models=models, pruning=PRUNED))
    assert found["teacher/top1"] == 96.4
    assert found["student/params"] == 520_812
    assert found["gap after/block 1 ◄ 2"] == full.relations[0].gap_after
    assert found["kept by hard images/layer1.0.conv2"] == 0.5
    assert not any("companion" in name or "None" in name for name in found)
    assert all(isinstance(value, float) for value in found.values())


def test_a_run_with_nothing_logs_nothing():
    assert logged_figures(ReportData("a run")) == {}
    assert logged_pictures(ReportData("a run")) == {}


def test_values_that_are_not_finite_make_a_picture():
    nan = np.full((4, 4), np.nan)
    assert relations_picture(RelationMaps("b", nan, nan, nan, 0.0, 0.0)).shape[2] == 3
