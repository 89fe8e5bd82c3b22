"""Retrieval against a loop written from the definition, ties, classes of one image, and chance."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch

from isometry.evaluation.dense import neighbours
from isometry.evaluation.dense.retrieval import Ranked, figures, precision_by_chance, rank, recall_by_chance
from isometry.evaluation.scores import wilson
from oracles.dense import average_precision, retrieval


def clustered(images: int = 90, classes: int = 7, width: int = 12) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=images)
    centres = random.normal(size=(classes, width))
    return torch.tensor(centres[labels] + 1.5 * random.normal(size=(images, width))), labels


@pytest.mark.parametrize("block_bytes", [1, 90 * 4 * 7, 2**25])
def test_it_agrees_with_a_loop(block_bytes, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    features, labels = clustered()
    labels[[4, 50]] = 100, 101
    recall, precision, alone = retrieval(features.tolist(), labels.tolist())
    ranked = rank(features, labels)
    found = figures(ranked)
    assert alone == 2
    assert ranked.images - len(ranked.best) == alone
    assert 0.2 < precision < 0.9
    for count in (1, 5):
        row = found[f"recall@{count}"]
        assert row["value"] == pytest.approx(100 * recall[count])
        low, high = wilson(round(recall[count] * 88), 88)
        assert (row["low"], row["high"]) == pytest.approx((100 * low, 100 * high))
    assert found["mAP"]["value"] == pytest.approx(100 * precision)
    assert found["mAP"]["low"] < found["mAP"]["value"] < found["mAP"]["high"]


@pytest.mark.parametrize("most_ties", [0, 3, 1000])
def test_equal_candidates_are_ranked_by_their_number(most_ties, monkeypatch):
    """Vectors of ±1/2 have cosines that are exact, and many of them are equal."""
    monkeypatch.setattr("isometry.evaluation.dense.retrieval.MOST_TIES", most_ties)
    random = np.random.default_rng(1)
    features = torch.tensor(random.choice([-0.5, 0.5], size=(70, 4)))
    labels = random.integers(5, size=70)
    recall, precision, _ = retrieval(features.tolist(), labels.tolist())
    found = figures(rank(features, labels))
    assert found["recall@1"]["value"] == pytest.approx(100 * recall[1])
    assert found["recall@5"]["value"] == pytest.approx(100 * recall[5])
    assert found["mAP"]["value"] == pytest.approx(100 * precision)


def test_one_direction_for_all_is_a_ranking_by_number():
    ranked = rank(torch.ones(6, 3), np.array([0, 1, 0, 1, 1, 0]))
    assert ranked.best.tolist() == [2, 3, 1, 2, 2, 1]
    assert ranked.precision[2] == pytest.approx((1 / 1 + 2 / 5) / 2)


def test_lengths_of_features_are_no_matter():
    features, labels = clustered()
    longer = features * torch.linspace(0.1, 9, len(features), dtype=torch.float64)[:, None]
    assert rank(features, labels).best.tolist() == rank(longer, labels).best.tolist()


def test_chance_is_the_mean_over_all_rankings():
    right, candidates = 2, 5
    every = [average_precision(order) for order in set(permutations([True] * right + [False] * 3))]
    ranked = Ranked(np.array([1]), np.array([1.0]), np.array([right]), candidates + 1)
    assert precision_by_chance(ranked) == pytest.approx(np.mean(every))
    for count in (1, 3, 5, 9):
        missed = comb(candidates - right, count) / comb(candidates, count) if count <= candidates else 0
        assert recall_by_chance(ranked, count) == pytest.approx(1 - missed)


def test_random_features_are_at_chance():
    random = np.random.default_rng(3)
    features, labels = torch.tensor(random.normal(size=(1500, 300))), random.integers(4, size=1500)
    for row in figures(rank(features, labels)).values():
        assert row["value"] == pytest.approx(row["chance"], abs=4)
