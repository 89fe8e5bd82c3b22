"""Views of known crops and flips, where patches go, and matches by a loop."""

import math

import numpy as np
import pytest
import torch

from isometry.data import ImageSpec
from isometry.evaluation.dense.correspondence import (
    AREA,
    RATIO,
    View,
    centres,
    draw_views,
    matches,
    right_patches,
    seen,
)
from oracles.dense import cosine

PLAIN = View(0, 0, 1, 1, False, 1, 1, 1)
SPEC = ImageSpec((3, 32, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def right_patch_by_loop(first: View, second: View, grid: tuple[int, int], number: int) -> int:
    """The nearest centre to where a centre went, over all patches of the other view."""
    rows, columns = grid
    x, y = (number % columns + 0.5) / columns, (number // columns + 0.5) / rows
    x = 1 - x if first.mirrored else x
    x, y = first.left + x * first.width, first.top + y * first.height
    x, y = (x - second.left) / second.width, (y - second.top) / second.height
    x = 1 - x if second.mirrored else x
    if not (0 <= x < 1 and 0 <= y < 1):
        return -1
    distances = [
        math.hypot(
            (x - (other % columns + 0.5) / columns) * columns, (y - (other // columns + 0.5) / rows) * rows
        )
        for other in range(rows * columns)
    ]
    return distances.index(min(distances))


@pytest.mark.parametrize("grid", [(4, 4), (7, 5)])
def test_right_patches_are_those_of_a_loop(grid):
    outside = 0
    for index in range(30):
        first, second = draw_views(index)
        found = right_patches(first, second, grid)
        wanted = [right_patch_by_loop(first, second, grid, number) for number in range(len(found))]
        assert found.tolist() == wanted
        outside += wanted.count(-1)
    assert 0 < outside < 30 * grid[0] * grid[1] / 2


def test_views_are_drawn_by_the_index_within_their_ranges():
    assert draw_views(3) == draw_views(3) != draw_views(4)
    views = [view for index in range(200) for view in draw_views(index)]
    areas = [view.width * view.height for view in views]
    assert AREA[0] * 0.8 < min(areas) < 0.5 < 0.9 < max(areas) <= AREA[1]
    for view in views:
        assert 0 <= view.left <= view.left + view.width <= 1 + 1e-12
        assert 0 <= view.top <= view.top + view.height <= 1 + 1e-12
        # A side that would leave the image is cut.
        assert RATIO[0] * 0.75 <= view.width / view.height <= RATIO[1] / 0.75
    assert 0.4 < np.mean([view.mirrored for view in views]) < 0.6


def test_a_view_of_all_is_the_image():
    images = torch.rand(2, 3, 32, 32).sub(0.5)
    torch.testing.assert_close(seen(images, [PLAIN, PLAIN], SPEC), images)
    mirrored = View(0, 0, 1, 1, True, 1, 1, 1)
    torch.testing.assert_close(seen(images, [mirrored] * 2, SPEC), images.flip(3))


def test_what_a_view_shows_is_where_its_points_are():
    """An image whose colours are its coordinates: each view's pixel holds the point that it shows."""
    x, y = torch.meshgrid(*[(torch.arange(64) + 0.5) / 64] * 2, indexing="xy")
    spec = ImageSpec((3, 64, 64), (0, 0, 0), (1, 1, 1))
    image = torch.stack([x, y, x])[None]
    for index in range(5):
        first, _ = draw_views(index)
        plain = View(first.left, first.top, first.width, first.height, first.mirrored, 1, 1, 1)
        shown = seen(image, [plain], spec)[0, :2].flatten(1).T.numpy()
        wanted = plain.to_image(centres((64, 64)))
        # Not at the border, beyond the centre of its last pixel.
        inner = ((wanted > 1 / 128) & (wanted < 127 / 128)).all(1)
        np.testing.assert_allclose(shown[inner], wanted[inner], atol=1e-5)
        np.testing.assert_allclose(plain.from_image(wanted), centres((64, 64)), atol=1e-12)


def test_colours_change_and_stay_colours():
    images = torch.full((1, 3, 8, 8), 0.5)
    spec = ImageSpec((3, 8, 8), (0, 0, 0), (1, 1, 1))
    images[:, 0, :4] = 0.9
    brighter, flatter, grey = (
        seen(images, [View(0, 0, 1, 1, False, *factors)], spec)
        for factors in ((1.2, 1, 1), (1, 0, 1), (1, 1, 0))
    )
    torch.testing.assert_close(brighter, (1.2 * images).clamp(0, 1))
    assert float(flatter.std()) < 1e-6
    torch.testing.assert_close(grey[:, 0], images.mean(1))


def test_matches_are_those_of_a_loop():
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 8, 8)
    indices = [4, 0, 7, 2, 9, 1]
    batches = [(images[:4], indices[:4]), (images[4:], indices[4:])]
    found, trials = matches({"a": network}, batches, SPEC, (4, 4))
    for place, index in enumerate(indices):
        first, second = draw_views(index)
        with torch.no_grad():
            ours, theirs = (
                network(seen(images[place : place + 1], [view], SPEC))[0].flatten(1).T.tolist()
                for view in (first, second)
            )
        hits = counted = 0
        for number, token in enumerate(ours):
            wanted = right_patch_by_loop(first, second, (4, 4), number)
            cosines = [cosine(token, other) for other in theirs]
            counted += wanted >= 0
            hits += wanted >= 0 and cosines.index(max(cosines)) == wanted
        assert (found["a"][place], trials[place]) == (hits, counted)
    assert 0 < found["a"].sum() < trials.sum()


def test_features_that_tell_the_place_match_all(monkeypatch):
    """A network that answers with the image's coordinates as angles finds nearly all; a constant one, one patch."""
    monkeypatch.setattr("isometry.evaluation.dense.correspondence.JITTER", 0.0)
    x, y = torch.meshgrid(*[(torch.arange(32) + 0.5) / 32] * 2, indexing="xy")
    spec = ImageSpec((3, 32, 32), (0, 0, 0), (1, 1, 1))
    images = torch.stack([x, y, torch.zeros(32, 32)])[None].expand(40, -1, -1, -1)

    def places(shown):
        pooled = torch.nn.functional.adaptive_avg_pool2d(shown, 8)[:, :2] * 3
        return torch.cat([pooled.sin(), pooled.cos()], 1)

    def constant(shown):
        return torch.ones(len(shown), 2, 8, 8)

    networks = {"places": places, "constant": constant}
    found, trials = matches(networks, [(images, list(range(40)))], spec, (8, 8))
    assert found["places"].sum() / trials.sum() > 0.7
    assert found["constant"].sum() / trials.sum() < 0.05
