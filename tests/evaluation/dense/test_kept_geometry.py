"""Agreement of neighbours against a loop, its invariances, and chance."""

import numpy as np
import pytest
import torch

from isometry.evaluation.dense.kept_geometry import agreement, neighbours_compared, patch_agreement
from oracles import dense as oracle


def features(seed: int, count: int = 60, width: int = 8) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(count, width)))


@pytest.mark.parametrize("count", [1, 4, 10])
def test_it_agrees_with_a_loop(count):
    teacher = features(0)
    student = torch.cat([teacher + 0.7 * features(1), features(2, width=3)], 1)
    found = agreement(student, teacher, count)
    wanted = oracle.agreement(student.tolist(), teacher.tolist(), count)
    assert found.tolist() == pytest.approx(wanted)
    assert 0.1 < found.mean() < 0.9


def test_a_rotated_and_scaled_teacher_keeps_all():
    teacher = features(0)
    rotation, _ = torch.linalg.qr(features(1, 8))
    assert agreement(3 * teacher @ rotation, teacher, 5).tolist() == [1.0] * 60


def test_another_network_keeps_what_chance_keeps():
    found = agreement(features(0, 500), features(1, 500), 25)
    assert float(found.mean()) == pytest.approx(25 / 499, abs=0.01)


def test_patches_are_compared_within_their_image():
    teacher, student = features(0, 36).view(3, 12, 8), features(1, 36).view(3, 12, 8)
    wanted = [
        np.mean(oracle.agreement(ours, theirs, 5))
        for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert patch_agreement(student, teacher, 5).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(("others", "wanted"), [(1, 1), (3, 1), (8, 4), (19, 9), (20, 10), (5000, 10)])
def test_no_more_neighbours_than_half_of_the_others(others, wanted):
    assert neighbours_compared(others) == wanted
