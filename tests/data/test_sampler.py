"""An epoch is a function of (seed, epoch, position), not of workers, start, or what was read before."""

import random
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_files import DIGITS, GREY8, RGB16, folder_config, write_classes
from isometry.config import DataConfig
from isometry.data import Batch, TrainLoader, find_sources, make_loaders
from isometry.data.batch_reader import BatchReader, Request
from isometry.data.decoding import Reading
from isometry.data.digits import open_digits
from isometry.data.map_loader import Batches
from isometry.data.sampler import EvalRequests, TrainRequests, epoch_order
from isometry.data.splits import MapPart
from isometry.data.transforms import train_transform
from isometry.errors import UserError


def epoch_of(config: DataConfig, epoch: int = 0, start: int = 0, seed: int = 1, **ranks: int) -> list[Batch]:
    loaders = make_loaders(find_sources(config), config, GREY8, seed=seed, **ranks)
    return list(loaders.train.epoch(epoch, start))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        torch.testing.assert_close(one.targets, other.targets, rtol=0, atol=0)
        torch.testing.assert_close(one.indices, other.indices, rtol=0, atol=0)


@pytest.mark.parametrize("repeats", [0, 3])
def test_workers_change_nothing(repeats: int):
    config = replace(DIGITS, aug_repeats=repeats)
    assert_same(epoch_of(config, epoch=3), epoch_of(replace(config, workers=2), epoch=3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_start_yields_the_rest_of_the_epoch(workers: int):
    config = replace(DIGITS, workers=workers)
    assert_same(epoch_of(config, epoch=1)[4:], epoch_of(config, epoch=1, start=4 * config.batch_size))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_halfway_leaves_no_trace(workers: int):
    config = replace(DIGITS, workers=workers)
    loader = make_loaders(find_sources(config), config, GREY8, seed=1).train
    interrupted = loader.epoch(0)
    next(interrupted)
    assert_same(list(loader.epoch(1)), epoch_of(DIGITS, epoch=1))
    assert_same(list(loader.epoch(0)), epoch_of(DIGITS, epoch=0))


class CountingPart(MapPart):
    """Remembers what was decoded."""

    decoded: ClassVar[list[int]] = []

    def load(self, index: int) -> tuple[Image.Image, int]:
        self.decoded.append(index)
        return super().load(index)


def test_batches_before_the_start_are_not_decoded():
    digits = open_digits()[0]
    part = CountingPart(digits.images, digits.numbers)
    reader = BatchReader(part, train_transform(DIGITS, GREY8), Reading("L"), seed=1, skip_bad_images=False)
    loader = TrainLoader(reader, TrainRequests(len(part), 300, seed=1, repeats=0))
    (last,) = loader.epoch(0, start=600)
    assert part.decoded == last.indices.tolist()


def test_seed_and_epoch_both_matter():
    runs = [epoch_of(DIGITS), epoch_of(DIGITS, epoch=1), epoch_of(DIGITS, seed=2)]
    for one, other in pairwise(runs):
        assert not torch.equal(one[0].indices, other[0].indices)
        assert not torch.equal(one[0].images, other[0].images)


def test_augmentation_is_a_function_of_seed_epoch_and_position():
    def image(seed: int, epoch: int, position: int) -> torch.Tensor:
        transform = train_transform(DIGITS, GREY8)
        reader = BatchReader(open_digits()[0], transform, Reading("L"), seed=seed, skip_bad_images=False)
        return reader[Request(epoch, position, [7])].images

    torch.testing.assert_close(image(1, 2, 3), image(1, 2, 3), rtol=0, atol=0)
    for other in (image(2, 2, 3), image(1, 3, 3), image(1, 2, 4)):
        assert not torch.equal(image(1, 2, 3), other)


def test_global_generators_are_left_alone():
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(3)
    for workers in (0, 1):
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        epoch_of(replace(DIGITS, workers=workers))
        assert (random.random(), np.random.rand()) == expected[:2]
        torch.testing.assert_close(torch.rand(3), expected[2], rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_cut_the_same_global_batches(world_size: int):
    whole = epoch_of(replace(DIGITS, batch_size=60))
    config = replace(DIGITS, batch_size=60 // world_size)
    ranks = [epoch_of(config, rank=rank, world_size=world_size) for rank in range(world_size)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        torch.testing.assert_close(torch.cat([part.images for part in parts]), batch.images, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([part.indices for part in parts]), batch.indices)


def test_an_epoch_sees_each_image_once_but_for_the_last_partial_batch():
    config = replace(DIGITS, batch_size=128)
    indices = torch.cat([batch.indices for batch in epoch_of(config)])
    assert len(indices) == 7 * 128
    assert len(indices.unique()) == len(indices)


def test_repeats_give_an_image_three_augmentations_and_keep_the_length():
    batches = epoch_of(replace(DIGITS, aug_repeats=3, batch_size=90, hflip=0.0))
    assert len(batches) == 10
    indices, counts = torch.cat([batch.indices for batch in batches]).unique(return_counts=True)
    assert len(indices) == 300
    assert (counts == 3).all()
    first, second, third = batches[0].images[:3]
    assert batches[0].indices[0] == batches[0].indices[2]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_order_is_a_permutation_without_repeats():
    assert epoch_order(50, seed=1, epoch=0, repeats=0).sort().values.tolist() == list(range(50))


def test_fewer_images_than_a_batch_make_one_smaller_batch():
    (batch,) = epoch_of(replace(DIGITS, batch_size=2000))
    assert len(batch) == 900
    for rank in (0, 1):
        (request,) = TrainRequests(7, 64, seed=1, repeats=0, rank=rank, world_size=2)
        assert len(request.indices) == 3


def test_fewer_images_than_ranks_are_refused():
    with pytest.raises(UserError, match="4 processes"):
        TrainRequests(3, 8, seed=1, repeats=0, rank=0, world_size=4)


def test_evaluation_is_in_order_and_complete():
    config = replace(DIGITS, validation_batch_size=150, workers=2)
    val = make_loaders(find_sources(config), config, GREY8, seed=1).val
    first, second = list(val), list(val)
    assert_same(first, second)
    assert [len(batch) for batch in first] == [150, 150, 97]
    assert len(val) == 3
    assert torch.cat([batch.indices for batch in first]).tolist() == list(range(397))


def test_evaluation_at_its_own_size_is_the_image_itself():
    sources = find_sources(DIGITS)
    batch = next(iter(make_loaders(sources, DIGITS, GREY8, seed=1).val))
    pixels = np.stack([np.array(sources.val.load(index)[0]) for index in range(len(batch))])
    np.testing.assert_array_equal(batch.images[:, 0].numpy(), pixels)


def requested(ranks: int, batch: int, start: int, epoch: int = 3) -> list[list[tuple[int, int]]]:
    """(position, image) of each global batch of 100 images, read by ``ranks`` ranks from position ``start`` on."""
    loaders = [
        TrainRequests(100, batch, seed=1, repeats=0, rank=rank, world_size=ranks) for rank in range(ranks)
    ]
    for requests in loaders:
        requests.epoch, requests.start = epoch, start
    return [
        [pair for share in shares for pair in enumerate(share.indices, start=share.position)]
        for shares in zip(*loaders, strict=True)
    ]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_order_is_the_same_for_any_number_of_ranks(ranks: int):
    """The same images at the same places of the same global batches, so with the same augmentation."""
    batches = requested(ranks, 24 // ranks, 0)
    assert batches == requested(1, 24, 0)
    assert [len(batch) for batch in batches] == [24] * 4


@pytest.mark.parametrize(("ranks", "batch"), [(1, 24), (2, 12), (4, 6), (3, 8), (3, 5), (5, 4), (1, 60)])
def test_an_epoch_that_goes_on_with_other_ranks_repeats_and_drops_no_image(ranks: int, batch: int):
    done, rest = requested(2, 12, 0)[:2], requested(ranks, batch, 48)
    seen = [pair for some in done + rest for pair in some]
    whole = list(enumerate(epoch_order(100, seed=1, epoch=3, repeats=0).tolist()))
    assert seen == whole[: len(seen)]
    # What is left out at the end is less than a batch, as in every epoch.
    assert 100 - len(seen) < ranks * batch


def test_ranks_share_the_evaluation_without_duplicates():
    ranks = [EvalRequests(11, 2, rank=rank, world_size=3) for rank in range(3)]
    shares = [[index for request in requests for index in request.indices] for requests in ranks]
    assert shares == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]


def test_a_folders_epoch_is_the_same_for_any_workers(tmp_path):
    write_classes(tmp_path, {"cat": 10, "dog": 10}, ".jpg")
    config = folder_config(tmp_path, aa="rand-m9-mstd0.5-inc1", batch_size=6)
    sources = find_sources(config)
    configs = [replace(config, workers=workers) for workers in (0, 2)]
    one, other = (list(make_loaders(sources, config, RGB16, seed=3).train.epoch(2)) for config in configs)
    assert_same(one, other)
    assert one[0].images.shape == (6, 3, 16, 16)
    assert one[0].images.dtype == torch.uint8
    assert one[0].targets.dtype == one[0].indices.dtype == torch.int64


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "v0", "rand-m15-mmax20-mstd2-inc1"])
def test_the_strongest_policies_pass_over_every_image(policy: str):
    # full strength posterises to 0 bits, which Pillow 13 refuses
    config = replace(DIGITS, aa=policy)
    loader = make_loaders(find_sources(config), config, GREY8, seed=1).train
    assert sum(len(batch) for epoch in range(3) for batch in loader.epoch(epoch)) == 2700


def run_of(config: DataConfig, epochs: int) -> TrainLoader:
    return make_loaders(find_sources(config), config, GREY8, seed=1, epochs=epochs).train


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_read_in_one_stream_are_those_read_alone(workers: int):
    loader = run_of(replace(DIGITS, workers=workers), epochs=3)
    for epoch in range(3):
        assert_same(list(loader.epoch(epoch)), epoch_of(DIGITS, epoch=epoch))
    # Not in order: the stream starts anew.
    assert_same(list(loader.epoch(1, start=400)), epoch_of(DIGITS, epoch=1, start=400))
    assert_same(list(loader.epoch(2)), epoch_of(DIGITS, epoch=2))
    assert_same(list(loader.epoch(2)), epoch_of(DIGITS, epoch=2))
    loader.close()
    assert_same(list(loader.epoch(1)), epoch_of(DIGITS, epoch=1))
    halfway = loader.epoch(2)
    next(halfway)
    assert_same(list(loader.epoch(2)), epoch_of(DIGITS, epoch=2))
    loader.close()


def test_the_next_epoch_is_requested_while_this_one_ends_and_nothing_after_the_last():
    requests = TrainRequests(900, 300, seed=1, repeats=0, epochs=2)
    requests.start = 300
    assert [(request.epoch, request.position) for request in requests] == [
        *((0, position) for position in (300, 600)),
        *((1, position) for position in (0, 300, 600)),
    ]
    requests.epoch, requests.start = 1, 600
    assert [(request.epoch, request.position) for request in requests] == [(1, 600)]


def test_workers_read_the_next_epoch_before_it_is_asked_for(tmp_path: Path):
    """Files that vanish after the epoch before has ended do no harm, for a batch of each was read already."""
    write_classes(tmp_path, {"a": 6, "b": 6})
    config = folder_config(tmp_path, workers=1, batch_size=5)
    expected = list(make_loaders(find_sources(config), config, RGB16, seed=1).train.epoch(1))
    loader = make_loaders(find_sources(config), config, RGB16, seed=1, epochs=2).train
    list(loader.epoch(0))
    wait_until_read(loader, len(expected))
    shutil.rmtree(tmp_path / "a")
    assert_same(list(loader.epoch(1)), expected)
    loader.close()


def test_validation_is_read_ahead(tmp_path: Path):
    write_classes(tmp_path, {"a": 6, "b": 6})
    config = folder_config(tmp_path, workers=1, batch_size=2, val_fraction=0.34)
    val = make_loaders(find_sources(config), config, RGB16, seed=1).val
    expected = list(val)
    val.prefetch()
    val.prefetch()
    wait_until_read(val, len(expected))
    shutil.rmtree(tmp_path / "a")
    assert_same(list(val), expected)
    with pytest.raises(UserError, match="cannot read"):
        list(val)


def wait_until_read(loader: Batches, count: int) -> None:
    """Waits until the workers have read so many batches ahead."""
    queue = loader._loader._iterator._data_queue
    deadline = time.monotonic() + 60
    while queue.qsize() < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
