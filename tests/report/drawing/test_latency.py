import random
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from helpers.bench_rows import NETWORKS, form, network
from helpers.browser import Tab, running_browser
from isometry.errors import UserError
from isometry.report.drawing.canvas import PNG_DPI
from isometry.report.drawing.colours import DARK, LIGHT
from isometry.report.drawing.latency import LABEL_HEIGHT, latency_description, latency_picture, separated


def test_names_are_separated_in_order_and_only_where_they_must():
    drawn = random.Random(0)
    for count in range(1, 12):
        heights = [drawn.uniform(0, 240) for _ in range(count)]
        moved = separated(heights, 0, 240)
        assert all(0 <= each <= 240 for each in moved)
        assert all(b - a >= LABEL_HEIGHT - 1e-9 for a, b in pairwise(sorted(moved)))
        assert np.argsort(moved).tolist() == np.argsort(heights).tolist()
    assert separated([10, 90, 50], 0, 100) == [10, 90, 50]
    assert separated([50, 50], 0, 100) == [50, 50 + LABEL_HEIGHT]
    assert separated([99, 98], 0, 100) == [100, 100 - LABEL_HEIGHT]


def test_the_description_has_each_accuracy_and_time():
    words = latency_description(NETWORKS)
    assert "runs/b: top-1 93.1 %, 2.05 ms eager, 1.4 ms compiled, 0.9 ms onnx" in words
    assert "small: top-1 71.0 %, 1.2 ms eager" in words
    assert "resnet18: no accuracy, 21 ms eager" in words
    uneven = [{"name": "a", "forms": [{**NETWORKS[0]["forms"][0], "top1": 93.1, "top1_by_class": 61.0}]}]
    assert "a: top-1 93.1 % (mean of classes 61.0 %), " in latency_description(uneven)


def test_both_formats_have_the_description(tmp_path):
    for kind in ("svg", "png"):
        latency_picture(tmp_path / f"a.{kind}", NETWORKS)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    words = latency_description(NETWORKS)
    assert f'aria-label="{words}"' in svg
    assert f"<title>{words}</title>" in svg
    assert Image.open(tmp_path / "a.png").text["Description"] == words


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_same_figures_same_bytes(tmp_path, name):
    path = tmp_path / name
    latency_picture(path, NETWORKS)
    first = path.read_bytes()
    latency_picture(path, NETWORKS)
    assert path.read_bytes() == first


def test_a_runtime_without_a_mark_of_its_own_is_drawn_and_named(tmp_path):
    latency_picture(
        tmp_path / "a.svg", [network("a", form("dense", 90, eager=1, tensorrt=0.2, openvino=0.5))]
    )
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8").partition("</title>")[2]
    assert all(name in drawn for name in ("eager", "tensorrt", "openvino"))


def test_names_are_text_and_not_markup(tmp_path):
    latency_picture(tmp_path / "a.svg", [network('<b>"$x$"', form("dense", 90, eager=1))])
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert "$x$" in svg


def test_no_colour_is_left_that_does_not_follow_the_reader(tmp_path):
    latency_picture(tmp_path / "a.svg", NETWORKS)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    drawn = svg.partition("</style>")[2]
    assert re.findall(r"(?:fill|stroke): (#\w+)", drawn) == []
    for palette in (LIGHT, DARK):
        assert all(colour in svg for colour in (palette.background, palette.text, *palette.series))


@pytest.mark.parametrize("networks", [NETWORKS[4:5], NETWORKS[3:4], NETWORKS[:1], NETWORKS * 3])
def test_few_and_many_are_drawn(tmp_path, networks):
    latency_picture(tmp_path / "a.png", networks)
    assert Image.open(tmp_path / "a.png").width == 820 * PNG_DPI // 72


def test_in_a_browser_no_name_covers_another_and_all_are_seen(tmp_path):
    latency_picture(tmp_path / "a.svg", NETWORKS)
    with running_browser(tmp_path) as browser:
        tab = Tab(browser, tmp_path / "a.svg", 820, 600)
        boxes = tab.ask(
            "[...document.querySelectorAll('text')].map(t => {const b = t.getBoundingClientRect();"
            " return [t.textContent, b.left, b.top, b.right, b.bottom]})"
        )
        light = tab.ask("getComputedStyle(document.querySelector('rect')).fill")
        dark_tab = Tab(browser, tmp_path / "a.svg", 820, 600, dark=True)
        dark = dark_tab.ask("getComputedStyle(document.querySelector('rect')).fill")
        complaints = tab.complaints + dark_tab.complaints
    assert complaints == []
    assert len(boxes) > len(NETWORKS)
    width = 820 * 96 / 72
    for place, (text, left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width, text
        for other, *box in boxes[place + 1 :]:
            apart = box[0] >= right or box[2] <= left or box[1] >= bottom - 1 or box[3] <= top + 1
            assert apart, (text, other)
    assert (light, dark) == ("rgb(251, 250, 248)", "rgb(21, 21, 23)")


def test_another_ending_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        latency_picture(tmp_path / "a.jpg", NETWORKS)
