"""Where an image lies in the input: boxes there and back, and predicted maps back."""

import numpy as np
import pytest
import torch

from isometry.data.dense.placement import Placement

BOXES = np.array([[0, 0, 60, 40], [10, 5, 30, 25], [59, 39, 60, 40]], np.float32)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((60, 40), (0, 5, 32, 26)),
        ((40, 60), (5, 0, 26, 32)),
        ((32, 32), (0, 0, 32, 32)),
        ((3000, 1), (0, 15, 32, 16)),
    ],
)
def test_the_whole_image_is_as_large_as_fits(size, target):
    placement = Placement.fitted(size, (32, 32))
    assert placement.target == target
    assert placement.source == (0, 0, *size)


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_boxes_return_to_where_they_were(flips):
    fitted = Placement.fitted((60, 40), (96, 80))
    placement = Placement(fitted.size, fitted.source, fitted.target, fitted.input_size, *flips)
    there = placement.to_input(BOXES)
    assert (there[:, 2:] > there[:, :2]).all()
    back = placement.to_image(torch.from_numpy(there))
    np.testing.assert_allclose(back, BOXES, atol=1e-4)


def test_a_box_of_a_letterboxed_image_by_hand():
    placement = Placement.fitted((60, 30), (120, 120))
    assert placement.target == (0, 30, 120, 90)
    assert placement.to_input(np.array([[10, 5, 20, 30]])).tolist() == [[20, 40, 40, 90]]


def test_a_window_inside_and_one_around_the_image():
    inside = Placement.of_window((100, 50), (20, 10, 60, 50), (80, 80))
    assert (inside.source, inside.target) == ((20, 10, 60, 50), (0, 0, 80, 80))
    around = Placement.of_window((100, 50), (-50, -75, 150, 125), (100, 100))
    assert (around.source, around.target) == ((0, 0, 100, 50), (25, 38, 75, 62))


@pytest.mark.parametrize("seed", range(20))
def test_any_window_keeps_at_least_a_pixel_of_the_image(seed):
    random = np.random.RandomState(seed)
    size = tuple(random.randint(1, 50, 2).tolist())
    corners = random.uniform(-20, 60, 2)
    window = (*corners, *(corners + random.uniform(1, 60, 2)))
    placement = Placement.of_window(size, window, (16, 24))
    for rectangle, bounds in ((placement.source, size), (placement.target, (16, 24))):
        for axis in range(2):
            assert 0 <= rectangle[axis] < rectangle[2 + axis] <= bounds[axis]


def test_boxes_outside_the_window_are_clipped_to_it():
    placement = Placement.of_window((100, 100), (50, 50, 100, 100), (50, 50))
    assert placement.to_input(np.array([[40.0, 60, 70, 80]])).tolist() == [[0, 10, 20, 30]]


def test_predictions_beyond_the_image_are_clipped_to_it():
    placement = Placement.fitted((60, 30), (120, 120))
    back = placement.to_image(torch.tensor([[-5.0, 0, 125, 120]]))
    assert back.tolist() == [[0, 0, 60, 30]]


@pytest.mark.parametrize("flip", [False, True])
def test_maps_return_to_the_images_size_without_padding(flip):
    fitted = Placement.fitted((60, 30), (20, 20))
    placement = Placement(fitted.size, fitted.source, fitted.target, fitted.input_size, flip)
    values = torch.full((2, 20, 20), -1.0)
    values[0, 5:15] = torch.arange(20.0).flip(0) if flip else torch.arange(20.0)
    values[1, 5:15] = 7
    back = placement.map_to_image(values)
    assert back.shape == (2, 30, 60)
    np.testing.assert_allclose(back[1], 7, atol=1e-5)
    np.testing.assert_allclose(back[0, 3, 1::3], np.arange(20), atol=1e-5)


def test_classes_one_after_another_are_those_of_all_at_once():
    logits = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0))
    placement = Placement.fitted((70, 41), (32, 32))
    wanted = placement.map_to_image(logits).argmax(0)
    assert torch.equal(placement.classes_to_image(logits), wanted)
    assert wanted.shape == (41, 70)
