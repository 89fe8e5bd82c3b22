"""Feature pyramids: strides that suit the images, and one width."""

import pytest
import torch

from isometry.models.dense.pyramid import (
    PlainPyramid,
    StagePyramid,
    build_pyramid,
    coarser_levels,
    finest_stride,
)
from isometry.models.taps import BlockShape


def strides(stages, size):
    pyramid, blocks = build_pyramid(stages, (size, size), 32)
    taken = [stage for stage in stages if stage.block in blocks]
    levels = pyramid([torch.randn(2, stage.width, *stage.grid) for stage in taken])
    assert all(level.shape[:2] == (2, 32) for level in levels)
    assert len(levels) == pyramid.count
    return [size / level.shape[3] for level in levels]


@pytest.mark.parametrize(
    ("patch", "size", "wanted"),
    [
        (8, 96, [4, 8, 16]),
        (16, 224, [8, 16, 32]),
        (14, 224, [7, 14, 28]),
        (16, 96, [4, 8, 16]),
        (32, 224, [8, 16, 32]),
        (16, 640, [8, 16, 32, 64, 640 / 5]),
        (8, 64, [2, 4, 8]),
    ],
)
def test_a_plain_network_has_finer_and_coarser_levels_than_its_patches(patch, size, wanted):
    assert strides([BlockShape(5, 48, (size // patch, size // patch))], size) == wanted


@pytest.mark.parametrize(
    ("size", "wanted"), [(96, [4, 8, 16, 32]), (224, [8, 16, 32]), (640, [8, 16, 32, 64, 128])]
)
def test_a_hierarchical_network_gives_its_stages(size, wanted):
    stages = [BlockShape(n, 8 * n, (size >> n, size >> n)) for n in range(1, 6)]
    assert strides(stages, size) == wanted


def test_a_network_whose_finest_stage_is_coarse_gives_all_of_them():
    stages = [BlockShape(n, 8, (14 >> n, 14 >> n)) for n in range(3)]
    assert strides(stages, 224) == [16, 32, 224 / 3]


def test_the_last_level_reaches_across_the_image_and_no_earlier_one_does():
    for size in (32, 96, 224, 500, 1024):
        for stride in (2, 4, 7, 16):
            more = coarser_levels(stride, (size, size // 2))
            assert 8 * stride * 2**more >= size
            assert more == 0 or 8 * stride * 2 ** (more - 1) < size


def test_the_shorter_side_has_24_cells_or_the_stride_is_8():
    assert finest_stride((96, 200)) == 4
    assert finest_stride((2000, 1000)) == 8


def test_levels_of_a_plain_pyramid_see_the_place_that_they_stand_for():
    """A map that is non-zero in one corner changes that corner of each level only."""
    torch.manual_seed(0)
    pyramid = PlainPyramid(8, (2, 1, 0, -1), 32)
    nothing, corner = torch.zeros(1, 8, 16, 16), torch.zeros(1, 8, 16, 16)
    corner[..., :2, :2] = 1
    for before, after in zip(pyramid([nothing]), pyramid([corner]), strict=True):
        changed = (before != after).any(1)[0]
        side = len(changed)
        assert changed[0, 0]
        assert not changed[side // 2 :].any()
        assert not changed[:, side // 2 :].any()


def test_levels_of_a_stage_pyramid_beyond_its_stages_are_every_second_cell():
    pyramid = StagePyramid([8, 8], 2, 32)
    levels = pyramid([torch.randn(1, 8, 10, 10), torch.randn(1, 8, 5, 5)])
    assert torch.equal(levels[2], levels[1][:, :, ::2, ::2])
    assert torch.equal(levels[3], levels[2][:, :, ::2, ::2])
