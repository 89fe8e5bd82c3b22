"""The gap and its gradients against float64 oracles, on tokens that are hard on rounding."""

import pytest
import torch

from isometry.functional import relations
from oracles import relations as oracle
from oracles.relation_checks import FORMS, assert_as_promised, normal, tokens_of, with_gradients

CASES = tuple(oracle.hard_tokens(16, 8, torch.Generator().manual_seed(0)))


# Ratios a little above the round ones, so that each is on the strict side of the promise that it tests.
@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "student_channels", "teacher_channels"), [(16, 8, 8), (196, 64, 128)])
def test_precision(case: str, n: int, student_channels: int, teacher_channels: int, form: str) -> None:
    student = tokens_of(case, n, student_channels)
    for seed, ratio in enumerate(oracle.RATIOS):
        generator = torch.Generator().manual_seed(seed)
        teacher = oracle.teacher_at(student, 1.02 * ratio, teacher_channels, generator)
        assert_as_promised(with_gradients(student, teacher, form=form), oracle.explicit_gap(student, teacher))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ratio", [1e-3, 1e-6])
def test_precision_at_a_networks_width(case: str, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_SMALL", 0)
    student = tokens_of(case, 1536, 192)
    teacher = oracle.teacher_at(student, 1.02 * ratio, 384, torch.Generator().manual_seed(2))
    true = oracle.channel_gap(student, teacher)
    assert_as_promised(with_gradients(student, teacher, form="channels"), true)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_precision_against_an_unrelated_teacher(case: str, form: str) -> None:
    student, teacher = tokens_of(case, 196, 64), tokens_of(case, 196, 128).flip(0)
    if oracle.explicit_gap(student, teacher).value < 1e-6 * oracle.explicit_gap(student, teacher).scale:
        teacher = normal(196, 128, seed=5)
    assert_as_promised(with_gradients(student, teacher, form=form), oracle.explicit_gap(student, teacher))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ratio", [1e-3, 1e-6])
def test_precision_with_many_tokens_against_explicit_maps(ratio: float, form: str) -> None:
    student = tokens_of("common mean", 4096, 192)
    teacher = oracle.teacher_at(student, 1.02 * ratio, 384, torch.Generator().manual_seed(3))
    assert_as_promised(with_gradients(student, teacher, form=form), oracle.explicit_gap(student, teacher))


@pytest.mark.slow
@pytest.mark.parametrize(("case", "ratio"), [("isotropic", 1e-3), ("common mean", 1e-6)])
def test_precision_at_the_papers_batch(case: str, ratio: float) -> None:
    student = tokens_of(case, 128 * 196, 192)
    teacher = oracle.teacher_at(student, 1.02 * ratio, 384, torch.Generator().manual_seed(4))
    assert_as_promised(with_gradients(student, teacher), oracle.channel_gap(student, teacher))


def test_oracles_agree() -> None:
    student, teacher = normal(40, 6), normal(40, 9, seed=1)
    for explicit, by_channels in zip(
        oracle.explicit_gap(student, teacher), oracle.channel_gap(student, teacher), strict=True
    ):
        torch.testing.assert_close(explicit, by_channels, rtol=1e-12, atol=1e-12)
