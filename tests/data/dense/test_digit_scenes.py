"""The embedded scenes: what they show is known, parts share no digit, and nothing moves them."""

import hashlib

import numpy as np
import pytest

from isometry.config import DataConfig
from isometry.data import find_sources
from isometry.data.dense.digit_scenes import CANVAS, MOST_HIDDEN, SceneBoxes, open_scenes
from isometry.data.dense.sources import find_dense_sources
from isometry.data.digits import open_digits

SCENES = DataConfig(dataset="digit-scenes", workers=0)
SOME = range(0, 300, 7)


def test_scenes_never_change():
    """Pixels are left out: a Pillow that rounds otherwise would change them."""
    digest = hashlib.sha256()
    for part in open_scenes("detect")[0]:
        for index in range(5):
            scene = part.scene(index)
            digest.update(scene.digits.astype("<i8").tobytes())
            places = [(left, top, len(alpha)) for left, top, alpha in scene.layers]
            digest.update(np.array(places, "<i8").tobytes())
    assert digest.hexdigest() == "f2aac3e4e2ea1d7652927f77574417014166cc4b6170c8282e5067a522c0b714"


def test_parts_are_made_of_the_digits_of_their_own_part():
    for scenes, digits in zip(open_scenes("detect")[0], open_digits(), strict=True):
        assert list(scenes.numbers) == list(digits.numbers)


def test_counts_and_names():
    boxes, masks = (find_dense_sources(SCENES, task) for task in ("detect", "segment"))
    assert [len(part) for part in (boxes.train, boxes.val, boxes.test)] == [2000, 300, 500]
    assert boxes.class_names == [str(digit) for digit in range(10)]
    assert masks.class_names == ["background", *boxes.class_names]
    assert "2,000 training, 300 validation, 500 test images with boxes, 10 classes" in boxes.description


@pytest.mark.parametrize("part", range(3))
def test_boxes_are_those_of_the_visible_pixels(part: int):
    """By a loop over the pixels of each digit."""
    scenes = open_scenes("detect")[0][part]
    for index in SOME:
        scene, (image, boxes) = scenes.scene(index), scenes.load(index)
        assert (image.mode, image.size) == ("L", (CANVAS, CANVAS))
        for number, label in enumerate(boxes.labels):
            rows, columns = np.nonzero(scene.owner == number)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert boxes.xyxy[number].tolist() == box
            assert scene.visible()[number] == len(rows)
            assert boxes.areas[number] == (box[2] - box[0]) * (box[3] - box[1])
            assert label == scene.digits[number]
        assert not boxes.crowd.any()


def test_a_later_digit_hides_an_earlier_one_but_not_much_of_it():
    scenes = open_scenes("detect")[0][0]
    hidden = 0
    for index in SOME:
        scene = scenes.scene(index)
        owner = np.full((CANVAS, CANVAS), -1)
        for number, (left, top, alpha) in enumerate(scene.layers):
            side = len(alpha)
            owner[top : top + side, left : left + side][alpha >= 0.5] = number
        np.testing.assert_array_equal(owner, scene.owner)
        whole = np.array([(alpha >= 0.5).sum() for _, _, alpha in scene.layers])
        assert (scene.visible() >= (1 - MOST_HIDDEN) * whole).all()
        hidden += (scene.visible() < whole).sum()
    assert hidden > 0


def test_masks_have_the_class_of_the_digit_on_top():
    (boxes, *_), (masks, *_) = open_scenes("detect")[0], open_scenes("segment")[0]
    for index in SOME:
        scene, (image, mask) = boxes.scene(index), masks.load(index)
        assert mask.dtype == np.uint8
        for number, digit in enumerate(scene.digits):
            assert (mask[scene.owner == number] == digit + 1).all()
        assert (mask[scene.owner < 0] == 0).all()
        assert image.tobytes() == boxes.load(index)[0].tobytes()


def test_digits_are_lighter_than_what_is_around_them():
    scenes = open_scenes("segment")[0][0]
    for index in SOME:
        image, mask = scenes.load(index)
        pixels = np.array(image)
        assert pixels[mask > 0].mean() > pixels[mask == 0].mean() + 20


def test_scenes_vary_and_are_functions_of_part_seed_and_index():
    train, val, _ = open_scenes("detect")[0]
    pictures = {train.load(index)[0].tobytes() for index in range(20)} | {val.load(0)[0].tobytes()}
    assert len(pictures) == 21
    assert train.load(3)[0].tobytes() == open_scenes("detect")[0][0].load(3)[0].tobytes()
    other = SceneBoxes(train.digits, train.numbers, train.part, train.count, seed=1)
    assert other.picture(3)[0].tobytes() != train.load(3)[0].tobytes()
    counts = {len(train.boxes(index)) for index in range(100)}
    sides = np.concatenate([np.ptp(train.boxes(index).xyxy[:, 1::2], axis=1) for index in range(100)])
    assert counts == {2, 3, 4, 5, 6}
    assert sides.min() < 16
    assert sides.max() > 48


def test_a_loaded_scene_is_kept_and_can_not_be_painted_over():
    (scenes, *_), _ = open_scenes("segment")
    image, mask = scenes.load(3)
    first = np.array(image)
    image.paste(0, (0, 0, 96, 96))
    again, same = scenes.load(3)
    assert same is mask
    np.testing.assert_array_equal(np.array(again), first)
    np.testing.assert_array_equal(first, np.array(scenes.picture(3)[0]))


def test_scenes_are_a_classification_data_set_too():
    sources = find_sources(SCENES)
    assert sources.num_classes == 10
    assert sources.labelled
    assert "2,000 training, 300 validation, 500 test" in sources.description
    assert sum(sources.train_counts.values()) == 2000
    assert min(sources.train_counts.values()) > 100
    labels = sources.val.labels()
    scenes = open_scenes("detect")[0][1]
    for index in SOME:
        image, label = sources.val.load(index)
        scene = scenes.scene(index)
        pixels = [(scene.owner == number).sum() for number in range(len(scene.digits))]
        assert label == labels[index] == scene.digits[np.argmax(pixels)]
        assert image.tobytes() == scenes.load(index)[0].tobytes()
