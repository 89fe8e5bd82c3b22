"""Batches of annotated images: the same for any number of workers, and from any start."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from isometry.config import DataConfig
from isometry.data import ImageSpec
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import DenseBatch, dense_loaders
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.data.dense.transforms import EvalTransform
from isometry.errors import UserError

SPEC = ImageSpec((1, 64, 64), (0.3,), (0.2,), interpolation="bilinear")
SCENES = DataConfig(dataset="digit-scenes", workers=0, batch_size=8, hflip=0.0)


class Pictures:
    """Three pictures of different sizes, the second of which can be made unreadable."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 3

    def load(self, number: int) -> tuple[Image.Image, Boxes]:
        if self.broken and number == 1:
            raise ValueError("cut off")
        size = (30 + 10 * number, 40)
        return Image.new("L", size, 50 * number), Boxes.of([(0, 0, *size)], [number])

    def where(self, number: int) -> str:
        return f"picture {number}"

    def boxes(self, number: int) -> None:
        return None


def same(one: DenseBatch, other: DenseBatch) -> bool:
    annotations = one.annotations, other.annotations
    if isinstance(annotations[0], torch.Tensor):
        equal = torch.equal(*annotations)
    else:
        equal = all(
            torch.equal(first[key], second[key])
            for first, second in zip(*annotations, strict=True)
            for key in first
        )
    return equal and torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_batches_have_the_shapes_that_are_promised(task):
    loaders = dense_loaders(find_dense_sources(SCENES, task), SCENES, SPEC, 0)
    assert (len(loaders.train), len(loaders.val), len(loaders.test)) == (250, 38, 63)
    for batch in (next(loaders.train.epoch(0)), next(iter(loaders.val))):
        assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (8, 1, 64, 64))
        assert batch.sizes == [(96, 96)] * 8
        if task == "segment":
            assert (batch.annotations.dtype, batch.annotations.shape) == (torch.int64, (8, 64, 64))
            continue
        for each in batch.annotations:
            count = len(each["labels"])
            assert (each["boxes"].dtype, each["boxes"].shape) == (torch.float32, (count, 4))
            assert (each["labels"].dtype, each["crowd"].dtype) == (torch.int64, torch.bool)
            assert each["area"].shape == (count,)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_epochs_are_functions_of_seed_and_epoch(task):
    sources = find_dense_sources(SCENES, task)
    train = dense_loaders(sources, SCENES, SPEC, 0).train
    first = next(train.epoch(0))
    assert same(first, next(dense_loaders(sources, SCENES, SPEC, 0).train.epoch(0)))
    assert not same(first, next(train.epoch(1)))
    assert not same(first, next(dense_loaders(sources, SCENES, SPEC, 1).train.epoch(0)))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_workers_and_the_start_change_nothing(task):
    sources = find_dense_sources(SCENES, task)
    sources = replace(sources, train=replace(sources.train, count=32))
    alone = list(dense_loaders(sources, SCENES, SPEC, 0).train.epoch(2))
    with_workers = dense_loaders(sources, replace(SCENES, workers=2), SPEC, 0)
    assert [same(*pair) for pair in zip(alone, with_workers.train.epoch(2), strict=True)] == [True] * 4
    assert [same(*pair) for pair in zip(alone[2:], with_workers.train.epoch(2, 16), strict=True)] == [
        True
    ] * 2
    with_workers.close()


def test_augmentation_differs_between_copies_of_an_image():
    sources = find_dense_sources(SCENES, "detect")
    config = replace(SCENES, aug_repeats=2)
    batch = next(dense_loaders(sources, config, SPEC, 0).train.epoch(0))
    assert batch.indices[0] == batch.indices[1]
    assert not torch.equal(batch.images[0], batch.images[1])


def test_evaluation_visits_all_in_order_with_the_truth_in_the_pictures_own_pixels():
    sources = DenseSources("detect", Pictures(), Pictures(), None, ["a", "b", "c"], "")
    batches = list(dense_loaders(sources, replace(SCENES, batch_size=2), SPEC, 0).val)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2]]
    truths = [truth for batch in batches for truth in batch.truths]
    assert [truth.xyxy.tolist() for truth in truths] == [[[0, 0, 30 + 10 * n, 40]] for n in range(3)]
    for batch in batches:
        for placement, truth, each in zip(batch.placements, batch.truths, batch.annotations, strict=True):
            np.testing.assert_allclose(placement.to_image(each["boxes"]), truth.xyxy, atol=1e-4)


def test_unreadable_pictures_are_refused_or_replaced_or_left_out():
    broken = Pictures(broken=True)
    sources = DenseSources("detect", broken, broken, None, ["a", "b", "c"], "")
    config = replace(SCENES, batch_size=3)
    with pytest.raises(UserError, match=r"cannot read the image picture 1 \(cut off\).*--skip-bad-images"):
        list(dense_loaders(sources, config, SPEC, 0).val)
    loaders = dense_loaders(sources, replace(config, skip_bad_images=True), SPEC, 0)
    (batch,) = loaders.val
    assert batch.indices.tolist() == [0, 2]
    assert (len(batch.truths), len(batch.annotations), batch.unreadable) == (2, 2, ["picture 1"])
    (batch,) = loaders.train.epoch(0)
    assert sorted(batch.indices.tolist()) == [0, 2, 2]
    assert len(batch.annotations) == 3


def test_a_batch_of_unreadable_pictures_alone_is_joined_with_its_neighbour():
    broken = Pictures(broken=True)
    sources = DenseSources("detect", broken, broken, None, ["a", "b", "c"], "")
    config = replace(SCENES, batch_size=1, skip_bad_images=True)
    batches = list(dense_loaders(sources, config, SPEC, 0).val)
    assert [batch.indices.tolist() for batch in batches] == [[0], [2]]


def test_the_evaluation_transform_is_that_of_the_loaders():
    sources = find_dense_sources(SCENES, "segment")
    batch = next(iter(dense_loaders(sources, SCENES, SPEC, 0).val))
    image, mask = sources.val.load(5)
    example = EvalTransform(SPEC)(image, mask)
    assert torch.equal(batch.images[5], example.pixels)
    np.testing.assert_array_equal(batch.annotations[5], example.annotation)


@pytest.mark.parametrize(("given", "middle"), [(None, 8), ("0,4095", 125), ("auto", 255)])
def test_deep_greys_are_read_as_in_classification(given, middle):
    """A picture of 16 bits with the values 0 and 2,000."""

    class Deep(Pictures):
        def load(self, number: int) -> tuple[Image.Image, Boxes]:
            values = np.zeros((64, 64), np.uint16)
            values[16:48] = 2000
            return Image.fromarray(values), Boxes.of([(0, 16, 64, 48)], [0])

    sources = DenseSources("detect", Deep(), Deep(), None, ["a"], "")
    config = replace(SCENES, pixel_range=given)
    (batch,) = dense_loaders(sources, config, SPEC, 0).val
    assert batch.images[0, 0, 32, 32] == middle
    assert batch.images[0, 0, 2, 2] == 0


def test_the_evaluation_split_is_the_test_part_if_there_is_one():
    sources = find_dense_sources(SCENES, "detect")
    loaders = dense_loaders(sources, SCENES, SPEC, 0)
    assert loaders.evaluation == (loaders.test, "test")
    loaders = dense_loaders(replace(sources, test=None), SCENES, SPEC, 0)
    assert loaders.evaluation == (loaders.val, "val")


def test_options_without_effect_are_said():
    assert find_dense_sources(SCENES, "detect").notes == []
    (note,) = find_dense_sources(replace(SCENES, aa="rand-m9-mstd0.5-inc1", mixup=0.2), "detect").notes
    assert note == "options without effect on images with boxes or masks: --aa, --mixup"
