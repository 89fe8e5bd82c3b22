import numpy as np
import pytest
from PIL import Image

from isometry.errors import UserError
from isometry.report.drawing.agreement import Panel, agreement_picture
from isometry.report.drawing.colours import LIGHT

NONE = {"n": 2, "rho": None, "low": None, "high": None}
FOUND = {"n": 4, "rho": -0.8, "low": -1.0, "high": 0.25}
POINTS = {"soft": [(20.0, 40.0), (21.0, 41.0)], "whole": [(30.0, 45.0), (31.0, 46.0)]}


def places(path, colour: str) -> tuple[float, float]:
    """The median row and column of the pixels of exactly this colour, below the legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    # Points are a little transparent.
    rows, columns = np.nonzero(abs(pixels - wanted).sum(2) < 160)
    below = rows > 0.35 * len(pixels)
    assert below.any()
    return float(np.median(rows[below])), float(np.median(columns[below]))


def test_variants_lie_where_their_figures_say_in_their_colours(tmp_path):
    path = tmp_path / "a.png"
    agreement_picture(path, [Panel("boxes: AP, %", POINTS, FOUND)], "kept, %")
    (low, left), (high, right) = (places(path, LIGHT.series[place]) for place in (0, 1))
    assert high < low
    assert left < right


def test_svg_names_tasks_variants_and_correlations(tmp_path):
    panels = [Panel("boxes: AP, %", POINTS, FOUND), Panel("<masks>", {"soft": [(20.0, 4.0)]}, NONE)]
    agreement_picture(tmp_path / "a.svg", panels, "kept $neighbours$, %")
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for text in ("boxes: AP, %", "&lt;masks&gt;", "whole", "kept $neighbours$, %", "Spearman"):
        assert text in svg
    assert "ρ = −0.80 (−1.00 to 0.25), n = 4 students" in svg
    assert "ρ = –, n = 2 students" in svg


@pytest.mark.parametrize(("count", "variants"), [(1, 1), (2, 20)])
def test_many_variants_and_panels_and_figures_that_are_not_finite(tmp_path, count, variants):
    points = {f"variant {number}": [(5.0, 1.0), (float("nan"), 2.0)] for number in range(variants)}
    agreement_picture(tmp_path / "a.png", [Panel("t", points, NONE)] * count, "kept, %")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_same_points_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        agreement_picture(tmp_path / name, [Panel("t", POINTS, FOUND)], "kept, %")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_another_ending_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        agreement_picture(tmp_path / "a.jpg", [Panel("t", POINTS, FOUND)], "kept, %")
