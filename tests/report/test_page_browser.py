"""The pages in a real browser: no complaint, no request, everything there, on any screen and on paper."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.browser import Browser, Tab, find_browser, opened, running_browser
from helpers.compared_runs import two_variants, with_data
from helpers.epoch_times import ROWS
from helpers.growth_stages import GROWN
from helpers.pruning_rows import PRUNED
from isometry.report.comparison_page import render_comparison
from isometry.report.page import render_report
from isometry.report.records.groups import group_runs

SCREENS = [(1280, 900, False), (1280, 900, True), (390, 844, False), (390, 844, True)]
"""Width and height in CSS pixels, and whether the reader prefers dark."""
SPEEDS = [{"batch_size": 1, "ms": 2.0, "ms_low": 1.9, "ms_high": 2.2, "images_per_s": 500.0}]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module", params=["run", "compared"])
def report_page(request, full, tmp_path_factory) -> Path:
    """Both kinds of pages, with every section."""
    extra = {"stages": GROWN, "pruning": PRUNED, "times": ROWS, "marks": [(2.0, "depth 2")]}
    if request.param == "run":
        runtimes = [{"runtime": "eager", "speeds": SPEEDS}, {"runtime": "onnx", "speeds": SPEEDS}]
        bench = {"name": "run", "forms": [{"form": "dense", "top1": 90.0, "runtimes": runtimes}]}
        html = render_report(replace(full, **extra), bench)
    else:
        runs = [with_data(run, **extra) for run in two_variants()]
        html = render_comparison(group_runs(runs), "soft", command="isometry report runs")
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def shown(tab: Tab, selector: str) -> list[bool]:
    """Of each element that the selector finds, whether it takes any room."""
    return tab.ask(f"[...document.querySelectorAll({selector!r})].map(e => e.getClientRects().length > 0)")


@pytest.mark.parametrize(("width", "height", "dark"), SCREENS)
def test_the_page_is_whole_on_every_screen(chromium, report_page, width, height, dark):
    with opened(chromium, report_page, width, height, dark) as tab:
        assert tab.complaints == []
        assert tab.requests == [report_page.resolve().as_uri()]
        # Tables may go on behind their edge; the page may not.
        assert tab.ask("document.scrollingElement.scrollWidth") <= width
        assert tab.ask("document.querySelectorAll('section').length") >= 8
        lost = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert tab.ask(lost) == 0
        assert tab.ask("[...document.images].every(i => i.alt)")
        svgs = "[...document.querySelectorAll('svg')]"
        assert tab.ask(f"{svgs}.every(s => s.getAttribute('role') === 'img' && s.getAttribute('aria-label'))")
        empty = (
            f"{svgs}.filter(s => s.getClientRects().length && s.getBoundingClientRect().height < 50).length"
        )
        assert tab.ask(empty) == 0
        assert tab.ask(f"{svgs}.filter(s => s.getClientRects().length).length") >= 8
        assert tab.ask("parseFloat(getComputedStyle(document.querySelector('.lead')).fontSize)") >= 14
        picture = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("L"), dtype=float)
    assert picture.shape[0] > 3 * height
    # Not blank: paper is most of it, and ink stands out from it all the way down.
    paper = np.median(picture)
    assert (paper < 60) == dark
    bands = np.array_split(np.abs(picture - paper) > 60, 10)
    assert all(0.002 < band.mean() < 0.6 for band in bands)


def test_one_block_is_shown_at_a_time_and_keys_choose_it(chromium, report_page):
    with opened(chromium, report_page) as tab:
        panels = "#relations .panel"
        assert shown(tab, panels) == [False, True]
        tab.ask("document.getElementById('block-2').focus()")
        tab.press("ArrowLeft", 37)
        assert shown(tab, panels) == [True, False]
        outline = "getComputedStyle(document.querySelector('#block-1 + label')).outlineStyle"
        assert tab.ask(outline) == "solid"
        tab.press("ArrowLeft", 37)
        assert shown(tab, panels) == [True, True]
        assert tab.ask("document.activeElement.id") == "block-all"


def test_touch_selects_a_block(chromium, report_page):
    with opened(chromium, report_page, 390, 844) as tab:
        label = "document.querySelector('#block-1 + label')"
        tab.ask(f"{label}.scrollIntoView({{block: 'center'}})")
        box = tab.ask(f"(r => [r.x, r.y, r.width, r.height])({label}.getBoundingClientRect())")
        assert min(box[2:]) >= 40
        tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
        tab.tap(box[0] + box[2] / 2, box[1] + box[3] / 2)
        tab.ask("new Promise(done => setTimeout(done, 0))")
        assert shown(tab, "#relations .panel") == [True, False]


def test_print_shows_every_panel_in_dark_on_light(chromium, report_page):
    with opened(chromium, report_page, 800, 1100, dark=True) as tab:
        assert not all(shown(tab, ".panel"))
        tab.emulate("print")
        assert all(shown(tab, ".panel"))
        assert not any(shown(tab, ".tabs > label"))
        assert tab.ask("document.scrollingElement.scrollWidth") <= 800
        assert tab.ask(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth + 1)"
        )
        assert tab.ask("matchMedia('print').matches")
        picture = Image.open(io.BytesIO(tab.screenshot(whole=False))).convert("L")
        assert np.median(np.asarray(picture)) > 240
        assert tab.paper().startswith(b"%PDF-")


def test_a_complaint_and_a_request_would_be_noticed(chromium, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='other.png' alt=''><script>console.error('x'); throw Error('y')</script>")
    with opened(chromium, path) as tab:
        assert len(tab.complaints) >= 2
        assert len(tab.requests) == 2


def test_the_error_without_a_browser_names_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(RuntimeError, match="install Chromium"):
        find_browser()
