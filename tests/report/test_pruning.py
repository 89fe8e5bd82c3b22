"""A pruned network: its forms as text and as a table, and the section of the page that shows what its images used."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers.html_page import Page
from helpers.pruning_rows import LAYERS, PRUNED, examples, forms, speeds
from isometry.report.drawing.charts import shares_chart
from isometry.report.drawing.images import picture_png
from isometry.report.drawing.panels import panels
from isometry.report.page import render_report
from isometry.report.pruning import forms_grid, saving_sentence, slower_sentences
from isometry.report.records.data import ImageGroup, PruningData, ReportData, SaliencyMaps


def test_forms_that_are_not_faster_are_named_with_the_batch_size():
    assert slower_sentences(forms(1.5, 0.93)) == [
        "skipping is slower at batch 64: 0.93 times as fast as dense"
    ]
    assert slower_sentences(forms(1.5, 1.01)) == []
    assert slower_sentences(forms(0.3, 1.004)) == [
        "skipping is slower at batch 1: 0.30 times as fast as dense",
        "skipping is not faster at batch 64: 1.00 times as fast as dense",
    ]


def test_a_cut_network_is_named_too_and_the_trained_form_never():
    cut = [forms(1, 1)[0], {"form": "cut", "macs": 2e7, "speeds": speeds(0.9, 1.4)}]
    assert slower_sentences(cut) == ["cut is slower at batch 1: 0.90 times as fast as dense"]
    assert slower_sentences(forms(2, 2)) == []


@pytest.mark.parametrize("ratio", [None, float("nan")])
def test_what_was_not_compared_is_not_said_to_be_slower(ratio):
    assert slower_sentences([{"form": "skipping", "macs": 1, "speeds": speeds(ratio, 2.0)}]) == []


def test_a_column_a_form():
    grid = forms_grid(forms(1.5, 0.93))
    assert grid.header == ["", "dense", "masked", "skipping"]
    assert grid.rows == [
        ["top-1 on test", "99.0 %", "98.6 %", "98.6 %"],
        ["params", "269 k", "285 k", "285 k"],
        ["MACs", "40.0 M", "40.1 M · 1.00×", "16.0 M · 0.40×"],
        ["over images", "–", "–", "± 575 k, 15.0 M–17.0 M"],
        ["batch 1, ms", "4", "8 · 0.50×", "2.67 · 1.50×"],
        ["batch 64, images/s", "500", "400 · 0.80×", "465 · 0.93×"],
    ]


def test_rows_that_no_form_fills_are_left_out():
    alone = [{"form": "dense", "macs": 40e6, "speeds": speeds(1.0, 1.0)}]
    assert [row[0] for row in forms_grid(alone).rows] == ["MACs", "batch 1, ms", "batch 64, images/s"]
    assert forms_grid([]).rows == []


def test_the_saving_stands_beside_the_measured_speed():
    sentence = saving_sentence(forms(1.5, 0.93))
    for figure in ("16.0 M", "15.0 M to 17.0 M", "40.0 M (−60 %)", "1.50× at batch 1, 0.93× at batch 64"):
        assert figure in sentence
    cut = [forms(1, 1)[0], {"form": "cut", "macs": 2e7, "speeds": speeds(1.3, 1.4)}]
    for figure in ("20.0 M", "40.0 M (−50 %)", "1.30× at batch 1, 1.40× at batch 64"):
        assert figure in saving_sentence(cut)
    assert saving_sentence(forms(1, 1)[:1]) == ""
    assert saving_sentence([]) == ""


def bars(svg: str) -> list[float]:
    """Heights of the bars, in pixels, in the order drawn."""
    found = re.findall(
        r'<path d="M [\d.]+ ([\d.]+) \nL [\d.]+ [\d.]+ \nL [\d.]+ ([\d.]+) [^"]*z\n" clip-path', svg
    )
    return [float(low) - float(high) for low, high in found]


def test_bars_are_as_high_as_their_shares():
    groups = [("easy images", [0.5, 0.25, 0.75]), ("hard images", [0.6, 0.5, 1.0])]
    heights = bars(shares_chart(LAYERS, groups)[0])
    assert heights == pytest.approx(
        [heights[-1] * share for share in (0.5, 0.25, 0.75, 0.6, 0.5, 1.0)], rel=1e-3
    )


def test_every_layer_is_named_however_many_there_are():
    layers = [f"layer{number}.conv1" for number in range(54)]
    svg, width = shares_chart(layers, [("easy images", [0.5] * 54), ("hard images", [0.5] * 54)])
    assert [name for name in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if name in layers] == layers
    assert width > 20 * 54


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_keeps_its_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, channels), dtype=np.uint8)
    data = base64.b64decode(picture_png(pixels).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(5, 7, channels), pixels)


def test_the_section_follows_the_curves(full):
    page = Page(render_report(replace(full, pruning=PRUNED)))
    assert page.sections == ["models", "training", "cost", "pruning", "relations", "cka", "facts", "config"]
    for text in (
        "skipping is slower at batch 64: 0.93 times as fast as dense.",
        "1 thread on cpu",
        "An easy one took 15.0\u00a0M multiply-accumulates on average, a hard one 18.0\u00a0M (+20.0\u00a0%).",
        "layer2.0.conv1",
        "16.0\u00a0M MACs",
        "loss 5.25",
        "gap 0.0123",
    ):
        assert text in page.text
    assert "loss −0" not in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_else_of_the_page_changes(full):
    section = r'<section id="pruning" .*?</section>\n\n'
    shown = render_report(replace(full, pruning=PRUNED))
    assert re.sub(section, "", shown, flags=re.DOTALL) == render_report(full)


def test_a_network_without_gates_shows_its_forms_alone(full):
    cut = [forms(1, 1)[0], {"form": "cut", "macs": 2e7, "speeds": speeds(0.9, 1.4)}]
    page = Page(render_report(ReportData("cut", pruning=PruningData(cut))))
    assert page.sections == ["pruning"]
    assert "cut is slower at batch 1: 0.90 times as fast as dense" in page.text
    assert "Channels kept" not in page.text
    assert page.count("img") == 0


def test_hostile_names_stay_text():
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac$'
    data = replace(
        PRUNED,
        forms=[dict(form, form=hostile) for form in PRUNED.forms],
        conditions=hostile,
        layers=[hostile] * 3,
        maps=[replace(PRUNED.maps[0], layer=hostile)],
    )
    page = Page(render_report(ReportData("x", pruning=data)))
    assert page.count("script") == 0
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_figures_that_are_not_finite_make_a_page():
    nan = float("nan")
    group = ImageGroup([nan] * 3, nan, examples(nan))
    maps = [SaliencyMaps("conv", np.full((3, 3), nan), np.full((3, 3), nan), nan)]
    lost = [dict(form, macs=nan, speeds=speeds(nan, nan)) for form in forms(1, 1)]
    page = Page(
        render_report(ReportData("x", pruning=replace(PRUNED, forms=lost, easy=group, hard=group, maps=maps)))
    )
    assert "nan" not in page.text.lower()


def test_same_data_same_characters():
    assert render_report(ReportData("x", pruning=PRUNED)) == render_report(ReportData("x", pruning=PRUNED))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"2 .*3"):
        replace(PRUNED, easy=ImageGroup([0.5, 0.5], 1.0))
    with pytest.raises(ValueError, match="shapes"):
        SaliencyMaps("conv", np.eye(3), np.eye(4), 0.0)
    with pytest.raises(ValueError, match="shapes"):
        SaliencyMaps("conv", np.ones((3, 2)), np.ones((3, 2)), 0.0)


def test_the_keep_rate_has_a_panel_of_its_own_and_is_linear():
    rows = [
        {"epoch": at, "lr": 0.1, "keep_rate": rate, "step": at} for at, rate in enumerate((1.0, 0.6, 0.02))
    ]
    found = panels(rows)
    assert [panel.title for panel in found] == ["Learning rate", "Keep rate"]
    assert not found[1].log_span
