"""The embedded digits: a split that nothing moves."""

import hashlib

import numpy as np
import pytest

from helpers.image_files import DIGITS
from isometry.data import find_sources
from isometry.data.digits import open_digits


def test_parts_are_disjoint_and_cover_all():
    parts = open_digits()
    numbers = [number for part in parts for number in part.numbers]
    assert [len(part) for part in parts] == [900, 397, 500]
    assert sorted(numbers) == list(range(1797))


def test_split_never_changes():
    numbers = [number for part in open_digits() for number in part.numbers]
    digest = hashlib.sha256(np.array(numbers, dtype="<i8").tobytes()).hexdigest()
    assert digest == "d43829630e40c3d81c2f0b397df561b1490e11bf2389cc20a2d08683f9bdc20a"


@pytest.mark.parametrize("part", range(3))
def test_parts_are_stratified(part: int):
    digits = open_digits()[part]
    all_counts = np.bincount(digits.images.targets)
    counts = np.bincount([digits.load(index)[1] for index in range(len(digits))])
    np.testing.assert_allclose(counts, all_counts * len(digits) / 1797, atol=1)


def test_pixels_are_scikit_learns():
    from sklearn.datasets import load_digits

    train, _, _ = open_digits()
    image, target = train.load(0)
    data = load_digits()
    number = train.numbers[0]
    assert (image.mode, image.size, target) == ("L", (8, 8), data.target[number])
    np.testing.assert_array_equal(np.array(image), np.rint(data.images[number] / 16 * 255))


def test_sources_describe_the_digits():
    sources = find_sources(DIGITS)
    assert sources.num_classes == 10
    assert sources.class_names == [str(digit) for digit in range(10)]
    assert sources.labelled
    assert "900 training, 397 validation, 500 test" in sources.description
    assert "\n" not in sources.description
