"""Images, boxes and masks go the same way: a coloured rectangle stays inside its box and its mask."""

import numpy as np
import pytest
import torch
from PIL import Image

from isometry.config import DataConfig
from isometry.data import ImageSpec
from isometry.data.decoding import Reading, open_image, read_pixels
from isometry.data.dense.annotations import IGNORED, Boxes
from isometry.data.dense.transforms import EvalTransform, TrainTransform
from isometry.data.image_formats import read_bytes

SPEC = ImageSpec((3, 64, 64), (0.5, 0.25, 0.0), (0.2, 0.2, 0.2), interpolation="bilinear")
BOX = (70, 30, 130, 80)
PLAIN = DataConfig(color_jitter=0.0, hflip=0.5, vflip=0.5)


def rectangle() -> tuple[Image.Image, Boxes, np.ndarray]:
    """A white rectangle on black, its box and its mask."""
    image = Image.new("RGB", (200, 120))
    image.paste((255, 255, 255), BOX)
    mask = np.zeros((120, 200), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 3
    return image, Boxes.of([BOX], [3]), mask


def test_evaluation_shows_the_whole_image_on_the_mean_colour():
    image, boxes, mask = rectangle()
    example = EvalTransform(SPEC)(image, boxes)
    assert example.pixels.shape == (3, 64, 64)
    assert example.placement.target == (0, 13, 64, 51)
    assert example.pixels[:, 0, 0].tolist() == [128, 64, 0]
    np.testing.assert_allclose(example.annotation.xyxy, [[22.4, 22.5, 41.6, 38.33]], atol=0.01)
    assert example.truth is boxes
    placed = EvalTransform(SPEC)(image, mask).annotation
    assert (placed[:13] == IGNORED).all()
    assert (placed[51:] == IGNORED).all()
    assert set(np.unique(placed[13:51])) == {0, 3}


@pytest.mark.parametrize("seed", range(30))
def test_training_moves_image_box_and_mask_together(seed):
    image, boxes, mask = rectangle()
    transform = TrainTransform(PLAIN, SPEC)
    torch.manual_seed(seed)
    with_boxes = transform(image, boxes)
    torch.manual_seed(seed)
    with_mask = transform(image, mask)
    assert torch.equal(with_boxes.pixels, with_mask.pixels)
    assert with_boxes.placement == with_mask.placement
    white = with_mask.pixels.numpy().min(0) > 127
    # Half a pixel at the edges, at both ends of each side.
    assert (white != (with_mask.annotation == 3)).sum() <= 0.05 * 64 * 64
    assert with_boxes.truth is None
    if len(with_boxes.annotation):
        rows, columns = np.nonzero(white)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(with_boxes.annotation.xyxy[0], found, atol=1)
    else:
        assert white.sum() < 0.2 * 64 * 64


def test_windows_vary_in_size_and_place_and_stay_within_their_range():
    image, boxes, _ = rectangle()
    transform = TrainTransform(PLAIN, SPEC)
    torch.manual_seed(0)
    placements = [transform(image, boxes).placement for _ in range(200)]
    assert len({(each.source, each.hflip, each.vflip) for each in placements}) > 150
    assert 60 < sum(each.hflip for each in placements) < 140
    assert 60 < sum(each.vflip for each in placements) < 140
    # The square that holds the image has sides of 200 pixels; a window with a quarter of its area 100, by the ratio.
    sides = [
        (each.source[2] - each.source[0]) / (each.target[2] - each.target[0]) * 64 for each in placements
    ]
    assert 100 * 0.75**0.5 - 2 <= min(sides) < 110
    assert 190 < max(sides) <= 200 * (4 / 3) ** 0.5 + 2


def test_a_given_scale_is_used_and_zooms_out_above_1():
    image, boxes, _ = rectangle()
    transform = TrainTransform(DataConfig(color_jitter=0.0, hflip=0, scale=[4, 4], ratio=[1, 1]), SPEC)
    example = transform(image, boxes)
    left, top, right, bottom = example.placement.target
    assert (right - left, bottom - top) == (32, 19)
    assert len(example.annotation) == 1


def test_no_augmentation_is_the_evaluation_transform():
    image, boxes, _ = rectangle()
    example = TrainTransform(DataConfig(no_aug=True), SPEC)(image, boxes)
    assert torch.equal(example.pixels, EvalTransform(SPEC)(image, boxes).pixels)


def test_boxes_that_the_window_leaves_out_and_crowds_are_dropped():
    image, _, _ = rectangle()
    boxes = Boxes.of([(0, 0, 4, 4), (196, 116, 200, 120), BOX], [0, 1, 2], crowd=[False, False, True])
    transform = TrainTransform(DataConfig(color_jitter=0.0, scale=[0.3, 0.3]), SPEC)
    torch.manual_seed(1)
    kept = [tuple(transform(image, boxes).annotation.labels.tolist()) for _ in range(50)]
    assert set(kept) <= {(), (0,), (1,)}
    assert () in kept
    assert EvalTransform(SPEC)(image, boxes).annotation.labels.tolist() == [0, 1, 2]


def test_areas_shrink_with_the_image_and_with_what_is_left():
    image = Image.new("RGB", (128, 128))
    boxes = Boxes.of([(0, 0, 64, 64)], [0], areas=[1000])
    assert EvalTransform(SPEC)(image, boxes).annotation.areas.tolist() == [250]


def test_colours_change_the_image_alone():
    image, _, mask = rectangle()
    transform = TrainTransform(DataConfig(color_jitter=0.4, hflip=0, scale=[1, 1], ratio=[1, 1]), SPEC)
    torch.manual_seed(0)
    first, second = transform(image, mask), transform(image, mask)
    assert not torch.equal(first.pixels, second.pixels)
    assert first.annotation.shape == (64, 64)


def test_grey_images_have_one_channel():
    spec = ImageSpec((1, 32, 32), (0.5,), (0.2,), interpolation="bilinear")
    example = TrainTransform(DataConfig(), spec)(Image.new("L", (50, 40)), Boxes.of([], []))
    assert example.pixels.shape == (1, 32, 32)
    assert example.annotation.xyxy.shape == (0, 4)


def test_large_jpegs_are_decoded_at_a_reduced_scale(tmp_path):
    """Smooth pixels, so that the scale hardly changes them; the placement is the same."""
    along = np.linspace(0, 255, 640)
    pixels = np.stack(
        [np.tile(along, (480, 1)), np.tile(along[:480, None], (1, 640)), np.full((480, 640), 99)], -1
    )
    path = tmp_path / "large.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    examples = [
        EvalTransform(SPEC)(
            read_pixels(open_image(read_bytes(path)), Reading("RGB", full=full)),
            Boxes.of([(0, 0, 640, 480)], [0]),
        )
        for full in (False, True)
    ]
    assert examples[0].placement == examples[1].placement
    difference = (examples[0].pixels.float() - examples[1].pixels.float()).abs()
    assert 0 < difference.max() <= 4
    reduced = read_pixels(open_image(read_bytes(path)), Reading("RGB"))
    TrainTransform(PLAIN, SPEC)(reduced, Boxes.of([], []))
    # Decoded in full it would hold its pixels.
    assert not reduced._decoded
