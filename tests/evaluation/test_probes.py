"""Probes: clusters, noise, invariances, and votes by loops."""

import numpy as np
import pytest

from isometry.errors import UserError
from isometry.evaluation.probes import NEIGHBOURS, TEMPERATURE, linear_probe, nearest_neighbours, probe
from oracles.evaluation import votes

PROBES = (nearest_neighbours, linear_probe)


def clusters(images: int = 120, spread: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 6) around one direction for each of 4 classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, 6))
    labels = np.arange(images) % 4
    noise = random.normal(scale=spread, size=(images, 6))
    return (centres[labels] + noise).astype(np.float32), labels


@pytest.mark.parametrize("classify", PROBES)
def test_clusters_are_found_in_new_images(classify):
    train, labels = clusters()
    test, wanted = clusters(seed=1)
    assert (classify(train, labels, test) == wanted).mean() > 0.98


@pytest.mark.parametrize("classify", PROBES)
def test_random_labels_are_not_predicted(classify):
    train, _ = clusters(400, seed=0)
    labels = np.random.default_rng(5).integers(0, 4, 400)
    test, wanted = clusters(400, seed=1)
    assert abs((classify(train, labels, test) == wanted).mean() - 0.25) < 0.15


@pytest.mark.parametrize("neighbours", [1, 5, NEIGHBOURS])
def test_votes_are_those_of_the_definition(neighbours):
    train, labels = clusters(40, spread=1.5)
    test, _ = clusters(25, spread=1.5, seed=1)
    wanted = [
        votes(train.tolist(), labels.tolist(), image, neighbours, TEMPERATURE) for image in test.tolist()
    ]
    assert nearest_neighbours(train, labels, test, neighbours).tolist() == wanted


def test_nearest_neighbours_ignore_lengths():
    train, labels = clusters(spread=1)
    test, _ = clusters(spread=1, seed=1)
    lengths = np.random.default_rng(2).uniform(0.1, 10, (len(train), 1)).astype(np.float32)
    found = nearest_neighbours(train, labels, test)
    assert (nearest_neighbours(train * lengths, labels, 3 * test) == found).all()


def test_the_linear_probe_ignores_units():
    train, labels = clusters(spread=1)
    test, _ = clusters(spread=1, seed=1)
    scale = np.array([1e-3, 1, 50, 0.2, 7, 1e3])
    found = linear_probe(train, labels, test)
    assert (linear_probe(train * scale + 5, labels, test * scale + 5) == found).mean() > 0.97


def test_a_small_separating_feature_is_found_by_the_linear_probe_only():
    """The classes differ in one small feature among large random ones."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = random.normal(scale=10, size=(400, 20))
    features[:, 3] = (labels - 0.5) + random.normal(scale=0.1, size=400)
    found = probe(features[:200], labels[:200], features[200:], labels[200:])
    assert found["linear"]["value"] > 95
    assert found["knn"]["value"] < 70
    assert found["linear"]["images"] == 200


def test_fewer_images_than_neighbours_are_enough():
    train, labels = clusters(8)
    assert (nearest_neighbours(train, labels, train) == labels).all()
    assert (linear_probe(train, labels, train) == labels).all()


def test_a_class_with_one_image_is_named():
    train, labels = clusters(9)
    with pytest.raises(UserError, match="class 3"):
        linear_probe(train[[0, 1, 2, 4, 5, 6, 3]], labels[[0, 1, 2, 4, 5, 6, 3]], train)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    train, labels = clusters()
    test = train.copy()
    test[3, 2] = value
    with pytest.raises(UserError, match="finite"):
        probe(train, labels, test, labels)
