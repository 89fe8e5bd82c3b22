"""The picture: a self-contained SVG file with a text alternative, for few and many classes."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from isometry.evaluation.pictures import evaluation_svg
from isometry.evaluation.scores import Predictions, scores


def found(classes: int, images: int = 300):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, images)
    predictions = np.where(random.random(images) < 0.7, labels, random.integers(0, classes, images))
    right = predictions == labels
    names = [f"<{number}> & co" for number in range(classes)]
    return scores(Predictions(labels, predictions, random.uniform(0.3, 1, images), right, classes), names)


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_the_svg_needs_no_other_files(classes):
    svg = evaluation_svg(found(classes), 'a "network" on <photos> & more')
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert not re.search(r'(href|src)="(?!#|data:)|url\((?!#)|@import|<script', svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert 'a "network" on <photos> & more' in texts
    assert ("<1> & co" in texts) == (classes < 31)


def test_the_text_alternative_has_the_figures():
    said = found(10)
    root = ElementTree.fromstring(evaluation_svg(said, "title"))
    words = root.attrib["aria-label"]
    assert root.attrib["role"] == "img"
    assert f"{said['top1']['value']:.1f} % of 300 images right" in words
    assert f"calibration error {said['calibration']['ece']:.1f} %" in words
    assert "mean of the classes" not in words
    uneven = evaluation_svg({**said, "top1_by_class": {"value": 55.55}}, "title")
    assert (
        "images right; mean of the classes 55.5 %; most"
        in ElementTree.fromstring(uneven).attrib["aria-label"]
    )
    assert re.search(r"<\d> & co predicted as <\d> & co \(\d+ times\)", words)


def test_colours_follow_the_colour_scheme():
    svg = evaluation_svg(found(3), "title")
    assert "prefers-color-scheme: dark" in svg
    assert {"var(--text)", "var(--muted)", "var(--series-1)", "var(--background)"} <= set(
        re.findall(r"var\(--[a-z0-9-]+\)", svg)
    )


def test_the_same_figures_give_the_same_file():
    assert evaluation_svg(found(5), "title") == evaluation_svg(found(5), "title")


def test_without_errors_there_are_no_confusions():
    labels = np.array([0, 1, 2])
    everything = scores(Predictions(labels, labels, np.ones(3), np.ones(3, dtype=bool), 3), list("abc"))
    assert "most frequent confusions: none" in evaluation_svg(everything, "title")
