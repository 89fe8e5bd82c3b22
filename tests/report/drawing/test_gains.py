import numpy as np
import pytest
from PIL import Image

from isometry.errors import UserError
from isometry.report.drawing.gains import GAIN, LOSS, UNDECIDED, Panel, comparison_picture
from isometry.report.records.intervals import comparison_row

BASE = [92.0, 93.0, 94.0]
ROWS = [
    comparison_row("soft", BASE),
    comparison_row("better", [95.0, 96.2, 96.9], BASE),
    comparison_row("worse", [90.0, 91.2, 91.9], BASE),
    comparison_row("alike", [92.5, 92.4, 94.2], BASE),
]


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def rows_with(pixels: np.ndarray, colour: str) -> np.ndarray:
    """Heights, in pixels, at which exactly this colour occurs."""
    return np.flatnonzero((pixels == rgb(colour)).all(axis=2).any(axis=1))


def test_each_variant_is_drawn_in_the_colour_of_what_can_be_told(tmp_path):
    comparison_picture(tmp_path / "ablation.png", ROWS, "What each term adds", "soft")
    pixels = np.asarray(Image.open(tmp_path / "ablation.png").convert("RGB"))
    better, worse, alike = (rows_with(pixels, colour) for colour in (GAIN, LOSS, UNDECIDED))
    assert better.max() < worse.min()
    assert worse.max() < alike.min()


def test_svg_names_every_variant_and_figure(tmp_path):
    comparison_picture(tmp_path / "ablation.svg", ROWS, "What <each> term $adds$", "soft")
    svg = (tmp_path / "ablation.svg").read_text(encoding="utf-8")
    for text in (
        "better",
        "worse",
        "alike",
        "gain over soft, points",
        "What &lt;each&gt; term $adds$",
        "baseline",
    ):
        assert text in svg
    assert "+3.0" in svg


def test_more_scores_are_drawn_below(tmp_path):
    worse = [comparison_row("soft", BASE), comparison_row("better", [91.0, 92.1, 92.9], BASE)]
    comparison_picture(tmp_path / "a.png", ROWS[:2], "title", "soft", [Panel(worse, "boxes: AP, %")])
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert rows_with(pixels, GAIN).max() < rows_with(pixels, LOSS).min()
    comparison_picture(tmp_path / "a.svg", [], "title", "soft", [Panel(worse, "boxes: AP, %")])
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "boxes: AP, %" in svg
    assert "top-1" not in svg


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_same_rows_same_bytes(tmp_path, name):
    path = tmp_path / name
    comparison_picture(path, ROWS, "title", "soft")
    first = path.read_bytes()
    comparison_picture(path, ROWS, "title", "soft")
    assert path.read_bytes() == first


def test_one_seed_and_diverged_seeds_are_drawn(tmp_path):
    nan = float("nan")
    rows = [comparison_row("soft", [92.0]), comparison_row("lost", [nan], [92.0])]
    comparison_picture(tmp_path / "a.svg", rows, "title", "soft")
    assert "–" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_another_ending_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        comparison_picture(tmp_path / "a.jpg", ROWS, "title", "soft")


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="sav"):
        comparison_picture(tmp_path / "missing" / "a.png", ROWS, "title", "soft")
