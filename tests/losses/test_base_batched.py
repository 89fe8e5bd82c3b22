"""Losses that take all blocks at once: the values and gradients of one call each, in few operations."""

import collections
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from isometry.functional import relations
from isometry.losses import available, base, build_loss
from isometry.losses.base import values_of_calls

BATCHED = sorted(name for name, loss in available().items() if loss.batched)
VIEWS = (
    "view _unsafe_view reshape expand slice select transpose t permute unsqueeze squeeze "
    "diagonal as_strided unbind split split_with_sizes"
)
EMPTY = "empty empty_like new_empty empty_strided new_empty_strided detach alias lift_fresh"
FREE = {*VIEWS.split(), *EMPTY.split()}
"""Operations that launch nothing."""


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (relations, base):
        monkeypatch.setattr(module, "launches_dominate", lambda device: True)


class Launches(TorchDispatchMode):
    """Counts the operations inside the block that launch work on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # A GPU multiplies float16 with float32 sums; the CPU that stands in for it converts both factors first.
        stands_in = name == "_to_copy" and args[0].dtype == torch.float16
        if name not in FREE and not stands_in:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def launches(name: str, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> int:
    students = [tokens.requires_grad_() for tokens in students]
    losses = [build_loss(name, {}) for _ in students]
    with Launches() as counted:
        values_of_calls(losses, list(zip(students, teachers, strict=True))).mean().backward()
    assert all(tokens.grad is not None for tokens in students)
    return counted.counts.total()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("name", ["whole", "intra"])
@pytest.mark.parametrize("tokens", [9, 196])
def test_eight_equal_blocks_take_at_most_60_launches(
    name: str, tokens: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "_SMALL", 0)
    monkeypatch.setattr(relations, "_default_precision", lambda device: precision)
    students = [torch.randn(4, tokens, 24) for _ in range(8)]
    teachers = [torch.randn(4, tokens, 32) for _ in range(8)]
    assert launches(name, students, teachers) <= 60


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_larger_problems_take_equally_many_more_for_each_tile(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight blocks of 4 images of 16 tokens of 24 and 32 channels, in tiles of 4, 2 and 1 blocks."""
    monkeypatch.setattr(relations, "_SMALL", 0)
    monkeypatch.setattr(relations, "_default_precision", lambda device: precision)
    counts = []
    for tiles in (2, 4, 8):
        monkeypatch.setattr("isometry.functional._batched_gap._TILE", 8 // tiles * 4 * 16 * (24 + 32))
        students, teachers = ([torch.randn(4, 16, width) for _ in range(8)] for width in (24, 32))
        counts.append(launches("whole", students, teachers))
        assert counts[-1] <= 60 * tiles
    two, four, eight = counts
    assert (four - two) / 2 == (eight - four) / 4 <= 30


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_a_pair_of_four_stages_takes_at_most_200(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_SMALL", 0)
    monkeypatch.setattr(relations, "_default_precision", lambda device: precision)
    sizes = [(64, 8, 16), (16, 16, 32), (4, 32, 64), (1, 64, 128)]
    students = [torch.randn(2, tokens, width) for tokens, width, _ in sizes]
    teachers = [torch.randn(2, tokens, width) for tokens, _, width in sizes]
    assert launches("whole", students, teachers) <= 200


SHAPES = {
    "equal blocks": [((3, 10, 8), (3, 10, 12))] * 3,
    "two kinds": [((3, 10, 8), (3, 10, 12)), ((3, 10, 8), (3, 10, 12)), ((3, 5, 8), (3, 5, 6))],
}


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", BATCHED)
def test_blocks_at_once_have_the_values_of_one_after_another(
    name: str, shapes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "similarity":
        shapes = [((s[0] * s[1], s[2]), (t[0] * t[1], t[2])) for s, t in shapes]
    generator = torch.Generator().manual_seed(0)
    calls = [
        tuple(torch.randn(shape, generator=generator).requires_grad_() for shape in pair) for pair in shapes
    ]
    found = []
    for at_once in (True, False):
        monkeypatch.setattr(base, "launches_dominate", lambda device, at_once=at_once: at_once)
        drawing = torch.Generator().manual_seed(1)
        losses = [build_loss(name, {"k": 7} if name == "random" else {}, generator=drawing) for _ in calls]
        values = values_of_calls(losses, calls)
        found.append(
            (values, *torch.autograd.grad((values * torch.arange(1, 4)).sum(), [call[0] for call in calls]))
        )
    for batched, alone in zip(*found, strict=True):
        torch.testing.assert_close(batched, alone)


def test_relation_losses_are_batched() -> None:
    assert {"whole", "intra", "inter", "random", "similarity"} <= set(BATCHED)
