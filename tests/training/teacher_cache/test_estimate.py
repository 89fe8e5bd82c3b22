"""The estimated size of a cache against the files that are written."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from helpers.teacher_outputs import GRIDS, IDENTITY, PLENTY, Teacher, cache_in, entries
from isometry.distributed import World
from isometry.files import format_bytes
from isometry.models.teacher import BatchPosition
from isometry.training.teacher_cache import Estimate, TeacherCache, estimate
from isometry.training.teacher_cache.cache import LEFT_FREE

BATCH = 150


def size_of(classes: int, epochs: int, dtype: torch.dtype = torch.float32) -> Estimate:
    probe = Teacher(classes, dtype)(torch.zeros(2, 1, 8, 8), GRIDS)
    return estimate(probe, GRIDS, batch_size=BATCH, batches=3, epochs=epochs)


@pytest.mark.parametrize(
    ("classes", "dtype"), [(10, torch.float32), (10, torch.bfloat16), (1000, torch.float32)]
)
def test_the_estimate_is_what_is_written(tmp_path: Path, classes: int, dtype: torch.dtype):
    cache, teacher = cache_in(tmp_path / "cache"), Teacher(classes, dtype)
    for epoch in range(2):
        for batch in range(3):
            images = torch.randn(BATCH, 1, 8, 8)
            cache.output(
                BatchPosition(epoch, BATCH * batch),
                images,
                GRIDS,
                lambda images=images: teacher(images, GRIDS),
            )
    size = size_of(classes, 2, dtype)
    assert size.entries == len(entries(tmp_path / "cache"))
    written = sum(path.stat().st_size for path in entries(tmp_path / "cache"))
    assert size.entry * size.entries == pytest.approx(written, rel=0.01)


@dataclass
class Usage:
    free: int


def forecast(folder: Path, size: Estimate, limit: int, processes: int = 1) -> str:
    world = World(0, processes, torch.device("cpu"))
    return TeacherCache(folder, IDENTITY, limit_bytes=limit, world=world).forecast(size)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Usage:
    """A disk's free bytes, to be set."""
    usage = Usage(200 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return usage


@pytest.mark.usefixtures("free")
def test_a_run_that_fits_is_noted(tmp_path: Path):
    folder = tmp_path / "cache"
    size = Estimate(logits=2**10, tokens=2**20, header=0, batches=64, epochs=32)
    assert forecast(folder, size, 16 * 2**30) == (
        f"teacher cache {folder}: logits 2 MiB, tokens 2 GiB for 32 epochs; fits the limit of 16 GiB "
        "(--teacher-cache-size) and the disk (200 GiB free)"
    )
    assert "logits 4 MiB, tokens 4 GiB" in forecast(folder, size, 16 * 2**30, processes=2)
    assert "tokens" not in forecast(folder, Estimate(2**10, 0, 0, 64, 32), 16 * 2**30)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_that_applies_is_named(tmp_path: Path, free: Usage):
    size = Estimate(logits=0, tokens=2**20, header=0, batches=64, epochs=300)
    limited = forecast(tmp_path / "cache", size, 768 * 2**20)
    assert limited.endswith(
        "the first 12 of 300 epochs fit the limit of 768 MiB (--teacher-cache-size), "
        "and after that the teacher runs"
    )
    assert "the first 6 of 300 epochs fit" in forecast(tmp_path / "cache", size, 768 * 2**20, processes=2)
    assert "the first 10 of 64 batches of an epoch fit the limit" in forecast(
        tmp_path / "cache", size, 10 * 2**20
    )
    free.free = LEFT_FREE + 128 * 2**20
    assert "the first 2 of 300 epochs fit the disk (1.12 GiB free)" in forecast(
        tmp_path / "cache", size, 2**40
    )
    free.free = 2**20
    assert "the first 0 of 64 batches of an epoch fit the disk" in forecast(tmp_path / "cache", size, 2**40)


def test_existing_entries_need_no_more_space(tmp_path: Path, free: Usage):
    cache, teacher = cache_in(tmp_path / "cache"), Teacher()
    for batch in range(3):
        images = torch.randn(BATCH, 1, 8, 8)
        cache.output(
            BatchPosition(0, BATCH * batch), images, GRIDS, lambda images=images: teacher(images, GRIDS)
        )
    free.free = LEFT_FREE + 500
    said = forecast(tmp_path / "cache", size_of(10, 1), PLENTY)
    assert "fits" in said
    written = sum(path.stat().st_size for path in entries(tmp_path / "cache"))
    assert said.endswith(f"; {format_bytes(written)} exist already")
    assert "the first 1 of 2 epochs" in forecast(tmp_path / "cache", size_of(10, 2), PLENTY)
