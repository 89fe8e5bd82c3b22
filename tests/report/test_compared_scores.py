"""A page of several runs shows scores of boxes and masks, and dense figures, each with its interval."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.compared_runs import two_variants
from helpers.html_page import Page
from isometry.report.compared_scores import compared_dense, scores_grid
from isometry.report.comparison_page import render_comparison
from isometry.report.records.data import ReportData
from isometry.report.records.groups import group_runs
from isometry.report.records.intervals import interval
from isometry.report.records.run_folders import RunReport


def scored(folder, seed, **scores):
    row = {"model": "vit", "role": "student", "part": "test", **scores}
    data = ReportData("a run", models=[row])
    return RunReport(Path(folder), data, {"seed": seed, "out": folder, "lr": len(Path(folder).parts[0])})


DETECTORS = [
    scored("one/0", 0, ap=41.25, ap_low=38.0, ap_high=44.5, ap50=60.0),
    scored("three/0", 0, ap=50.0, ap_low=48.0, ap_high=52.0, ap50=70.0),
    scored("three/1", 1, ap=54.0, ap_low=52.0, ap_high=56.0, ap50=74.0),
]
MASKS = scored("seven77/0", 0, miou=55.0, miou_low=50.2, miou_high=60.4)


def test_one_run_has_its_interval_over_pictures_and_several_that_over_seeds():
    grid = scores_grid(group_runs([*DETECTORS, MASKS]))
    assert grid.header == ["variant", "seeds", "part", "AP, %", "AP50, %", "mIoU, %"]
    _, low, high = interval([50.0, 54.0])
    assert grid.rows == [
        ["one/0", "1", "test", "41.2 (38.0–44.5)", "60.0", "–"],
        ["three", "2", "test", f"52.0 ± {(high - low) / 2:.1f}", "72.0 ± 25.4", "–"],
        ["seven77/0", "1", "test", "–", "–", "55.0 (50.2–60.4)"],
    ]
    assert scores_grid(group_runs(two_variants())) is None


def test_the_page_of_detectors_has_their_table_and_a_sentence():
    page = Page(render_comparison(group_runs(DETECTORS), "one/0"))
    assert "scores" in page.sections
    assert "accuracy" not in page.sections
    assert "41.2 (38.0–44.5)" in page.text
    assert "Highest AP on the test part: three with 52.0" in page.text
    assert "scores" not in Page(render_comparison(group_runs(two_variants()), "soft")).sections


def dense(value, chance=2.0, **more):
    rows = [
        {
            "figure": figure,
            "of": of,
            "value": value + plus,
            "low": value - 4,
            "high": value + 3,
            "chance": chance,
        }
        for figure, plus in (("mAP", 1), ("kept neighbours, images", 0))
        for of in ("trained", "before training")
    ]
    return {"figures": [{**row, "k": 10} if "kept" in row["figure"] else row for row in rows], **more}


ON = {"data": "digits: 1,797 images", "part": "test"}


def test_dense_figures_of_variants_stand_side_by_side():
    runs = two_variants()
    runs = [replace(run, dense=dense(50 + number, **ON)) for number, run in enumerate(runs)]
    groups = group_runs([*runs[::2], runs[1]])
    section = compared_dense(groups)
    assert section["grid"].header == ["%, with 95 % interval", "soft", groups[1].name, "chance"]
    _, low, high = interval([51.0, 53.0, 55.0])
    assert section["grid"].rows[0] == ["mAP", f"53.0 ({low:.1f}–{high:.1f})", "52.0 (47.0–54.0)", "2.0"]
    assert section["grid"].rows[1][0] == "kept neighbours, images (k = 10)"
    page = Page(render_comparison(groups, "soft"))
    assert "dense" in page.sections
    assert "on the test part of digits: 1,797 images" in page.text
    assert "or over seeds where a variant has several runs" in page.text
    assert "52.0 (47.0–54.0)" in page.text


def test_what_is_of_other_images_or_not_of_all_runs_is_said():
    soft, whole, *rest = two_variants()
    runs = [
        replace(soft, dense=dense(50, **ON)),
        replace(whole, dense=dense(40, 5.0, data="photos", part="val")),
    ]
    section = compared_dense(group_runs(runs))
    assert section["notes"] == [
        "The runs were measured on different images, so their figures are not of one kind"
    ]
    assert {row[-1] for row in section["grid"].rows} == {"–"}
    assert section["data"] == ""
    partly = compared_dense(group_runs([*runs, rest[1]]))
    assert len(partly["grid"].header) == 3
    assert partly["notes"] == ["Not all runs of whole were measured, so they are left out"]
    assert compared_dense(group_runs(two_variants())) is None


@pytest.mark.parametrize("name", ["trained", "mAP"])
def test_a_variant_may_be_named_like_a_figure(name):
    runs = [replace(run, dense=dense(50)) for run in two_variants()[:2]]
    groups = [replace(group, name=given) for group, given in zip(group_runs(runs), (name, "b"), strict=True)]
    assert compared_dense(groups)["grid"].header[1:3] == [name, "b"]
