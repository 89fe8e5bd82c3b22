import base64
import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from helpers.digit_maps import relation_map, relations
from helpers.growth_stages import GROWN
from helpers.html_page import Page
from isometry.errors import UserError
from isometry.files import OUTPUTS
from isometry.report.drawing.images import MAP_COLOURS, NOT_FINITE, map_png
from isometry.report.page import render_report, write_page
from isometry.report.records.data import RelationMaps, ReportData

SECTIONS = ("models", "training", "cost", "relations", "cka", "facts", "config")


def test_every_section_is_there_and_in_order(full):
    page = Page(render_report(full))
    assert page.sections == list(SECTIONS)
    for text in (
        "The student keeps 98.7\u00a0% of the teacher’s accuracy with 9.1\u00a0% of its parameters.",
        "deit_tiny ◄ cait_s24 on digits",
        "ran without a teacher's weights: a dry run",
        "isometry distill --teacher cait_s24",
        "Term “soft”",
        "Term “whole”",
        "block 2 ◄ 4",
        "1 min 12 s",
        "6 → 12 blocks",
        "losses:\n  soft: 1",
    ):
        assert text in page.text


@pytest.mark.parametrize(
    ("lost", "emptied"),
    [
        ("models cost", {"models": []}),
        ("training", {"epochs": []}),
        ("relations", {"relations": []}),
        ("cka", {"cka_before": None, "cka_after": None}),
        ("facts", {"facts": []}),
        ("config", {"config_yaml": ""}),
    ],
)
def test_a_section_without_data_is_left_out(full, lost, emptied):
    page = Page(render_report(replace(full, **emptied)))
    assert page.sections == [name for name in SECTIONS if name not in lost.split()]


def test_minimal_data_make_a_page():
    page = Page(render_report(ReportData("Isometry · training")))
    assert page.sections == []
    assert "No accuracy was measured in this run." in page.text


def test_one_epoch_and_one_sided_cka_make_a_page(full):
    page = Page(render_report(replace(full, epochs=full.epochs[:1], cka_before=None)))
    assert page.sections == list(SECTIONS)
    assert "After training" in page.text
    assert "Before training" not in page.text


def test_values_that_are_not_finite_are_named_and_not_drawn(full):
    nan, inf = float("nan"), float("inf")
    epochs = [dict(row) for row in full.epochs]
    epochs[3]["train/loss"], epochs[4]["train/loss"], epochs[5]["val/top1"] = nan, inf, None
    for row in epochs:
        row["train/whole"] = nan
    broken = RelationMaps("block 1", *(np.full((4, 4), nan) for _ in range(3)), nan, nan)
    models = [dict(full.models[2], top1=nan, images_per_s=inf, seconds=None)]
    page = Page(render_report(replace(full, epochs=epochs, relations=[broken], models=models)))
    assert "not finite in epochs 3, 4" in page.text
    assert "not drawn: train/whole." in page.text
    assert "The gap to the teacher’s cosines is not finite." in page.text
    paths = [attributes["d"] for tag, attributes in page.tags if tag == "path"]
    assert paths
    assert not any("nan" in path.lower() or "inf" in path.lower() for path in paths)


def test_hostile_strings_stay_text(full):
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;$\\frac$ --> ]]>'
    data = replace(
        full,
        title=hostile,
        subtitle=hostile,
        facts=[(hostile, hostile)],
        models=[dict(full.models[2], model=hostile, top1_part=hostile, **{hostile: hostile})],
        epochs=[{**row, f"train/{hostile}": 1.0, f"{hostile}/top1": 2.0} for row in full.epochs],
        relations=[replace(full.relations[0], block=hostile)],
        student_blocks=[hostile] * 3,
        teacher_blocks=[hostile] * 4,
        notes=[hostile],
        config_yaml=hostile,
        marks=[(3.0, hostile)],
        stages=[dict(row, model=hostile, by=hostile, score=hostile) for row in GROWN],
    )
    page = Page(render_report(data))
    assert page.count("script") == 0
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(
        attributes["src"].startswith("data:image/png;base64,")
        for tag, attributes in page.tags
        if tag == "img"
    )
    assert page.text.count("<script>alert(1)</script>") >= 20


def test_nothing_outside_the_file_is_asked_for(full):
    html = render_report(full)
    page = Page(html)
    assert {"script", "link", "iframe", "object", "embed", "base"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#"))
        for reference in re.findall(
            r"url\(([^)]*)\)", attributes.get("style", "") + attributes.get("clip-path", "")
        ):
            assert reference.startswith("#")
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert not re.search(r"https?://|//\w+\.\w", html)


def test_every_reference_within_the_page_finds_its_one_target(full):
    page = Page(render_report(full))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {attributes["xlink:href"][1:] for tag, attributes in page.tags if tag == "use"}
    wanted |= {attributes["clip-path"][5:-1] for _, attributes in page.tags if "clip-path" in attributes}
    assert wanted
    assert wanted <= set(ids)


def test_same_data_same_bytes(full, tmp_path):
    write_page(tmp_path / "one.html", render_report(full))
    write_page(tmp_path / "two.html", render_report(full))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_users_matplotlib_settings_change_nothing(full):
    plain = render_report(full)
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "axes.grid": False, "font.size": 30, "svg.fonttype": "path"}
    ):
        assert render_report(full) == plain


def test_pyplot_and_its_global_state_are_not_loaded():
    code = "import isometry.report.page, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_eight_blocks_of_196_tokens_stay_small(full, tmp_path):
    page = render_report(replace(full, relations=relations(side=14, blocks=8)))
    assert len(page) < 2_500_000


def test_a_failed_write_keeps_the_older_report(full, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_page(path, "older")

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match=r"(?i)report\.html: .*no space left on device"):
        write_page(path, render_report(full))
    assert path.read_text() == "older"
    assert {each.name for each in tmp_path.iterdir()} == {path.name, OUTPUTS}


def test_a_missing_folder_is_one_clear_line(full, tmp_path):
    with pytest.raises(UserError, match="could not save: there is no folder") as caught:
        write_page(tmp_path / "missing" / "report.html", render_report(full))
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_refused(full):
    square = np.eye(3)
    with pytest.raises(ValueError, match=r"'after' .*\(3, 2\)"):
        RelationMaps("block 1", square, square, square[:, :2], 0.0, 0.0)
    with pytest.raises(ValueError, match="CKA after"):
        replace(full, cka_after=np.eye(3))


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(
        int
    )


def test_a_map_png_keeps_the_order_of_its_values():
    values = relation_map(0, side=6)
    lightness = pixels(map_png(values, -1.0, 1.0)) @ np.array([0.2126, 0.7152, 0.0722])
    assert lightness.shape == values.shape
    order = np.argsort(values, axis=None)
    steps = np.diff(lightness.ravel()[order])
    # Neighbouring colours of 8 bits may round against the order by less than one level.
    assert steps.min() > -1.0
    assert np.corrcoef(values.ravel(), lightness.ravel())[0, 1] > 0.98


def test_a_map_png_clips_and_marks_what_is_not_finite():
    colours = pixels(map_png(np.array([[-9.0, 0.0], [9.0, np.nan]]), 0.0, 1.0))
    assert (colours[0, 0] == colours[0, 1]).all()
    assert (colours[1, 0] != colours[0, 1]).any()
    assert tuple(colours[1, 1]) == NOT_FINITE


def test_a_large_map_is_averaged_down():
    large = np.kron(relation_map(0, side=10), np.ones((5, 5)))
    assert pixels(map_png(large, -1.0, 1.0)).shape == (224, 224, 3)
    assert MAP_COLOURS < 256
