"""Predictions of a made-up teacher, and caches of them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isometry.distributed import World
from isometry.models.taps import Grid
from isometry.models.teacher import BatchPosition, TeacherOutput
from isometry.training.teacher_cache import TeacherCache

ALONE = World(0, 1, torch.device("cpu"))
IDENTITY = {
    "the teacher": "cait",
    "the SHA-256 of its weights": "a" * 64,
    "--seed": 42,
    "--scale": (0.08, 1.0),
}
GRIDS = {1: (2, 3), 5: (1, 2)}
WIDTH = 8
PLENTY = 2**30
FIRST = BatchPosition(0, 0)


def images(place: BatchPosition, count: int = 6) -> Tensor:
    """The images (B, 1, 8, 8) at a place."""
    generator = torch.Generator().manual_seed(1000 * place.epoch + place.seen)
    return torch.randn(count, 1, 8, 8, generator=generator)


class Teacher:
    """Predictions that are a function of the images, and how often they were asked for."""

    def __init__(self, classes: int = 10, dtype: torch.dtype = torch.float32) -> None:
        self.classes, self.dtype, self.asked = classes, dtype, 0

    def __call__(self, input_BCHW: Tensor, grids: dict[int, Grid]) -> TeacherOutput:
        self.asked += 1
        return TeacherOutput(
            self._numbers(input_BCHW, 0, self.classes),
            {
                block: self._numbers(input_BCHW, block, rows * columns * WIDTH).view(
                    -1, rows * columns, WIDTH
                )
                for block, (rows, columns) in grids.items()
            },
        )

    def _numbers(self, input_BCHW: Tensor, purpose: int, count: int) -> Tensor:
        weight = torch.randn(64, count, generator=torch.Generator().manual_seed(purpose))
        return (input_BCHW.flatten(1) @ weight).to(self.dtype)


def cache_in(folder: Path, limit: int = PLENTY, world: World = ALONE, **changes: Any) -> TeacherCache:
    """The cache of the made-up teacher."""
    return TeacherCache(folder, IDENTITY | changes, limit_bytes=limit, world=world)


def ask(
    cache: TeacherCache, teacher: Teacher, place: BatchPosition = FIRST, grids: dict[int, Grid] | None = None
) -> TeacherOutput:
    """What a cache says at a place, with the teacher behind it."""
    grids = GRIDS if grids is None else grids
    input_BCHW = images(place)
    return cache.output(place, input_BCHW, grids, lambda: teacher(input_BCHW, grids))


def check_same(found: TeacherOutput, wanted: TeacherOutput) -> None:
    """Bit by bit, in type and in layout."""
    assert found.tokens.keys() == wanted.tokens.keys()
    pairs = [(found.logits, wanted.logits), *((found.tokens[n], wanted.tokens[n]) for n in wanted.tokens)]
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert torch.equal(ours, theirs)


def entries(folder: Path) -> list[Path]:
    """The files of a cache's answers, whole or not."""
    return sorted(folder.glob("epoch-*/*"))
