"""Differences between variants of a network, their accuracy, and the speed-up."""

import random
from types import SimpleNamespace

import pytest
import torch

from isometry.errors import UserError
from isometry.evaluation.scores import wilson
from isometry.export import equivalence
from isometry.export.equivalence import TOLERANCE, check_differences, differences, evaluate_variants, speed_up

IMAGES = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network(images):
    return images.flatten(1)[:, :5] * 3


def test_a_variant_equals_itself():
    for row in differences(network, network, IMAGES, (1, 5)):
        assert (row["gap"], row["share"], row["apart"]) == (0, 0, 0)
    check_differences(differences(network, network, IMAGES, (1, 5)), 0, "form")


def test_the_gap_is_the_largest_difference_and_the_share_is_relative_to_the_spread():
    def variant(images):
        answers = network(images).clone()
        answers[images.flatten(1)[:, 15] == IMAGES[3].flatten()[15], 2] += 0.5
        return answers

    row, _ = differences(variant, network, IMAGES, (1, 4))
    spread = float(network(IMAGES).max() - network(IMAGES).min())
    assert row["images"] == 12
    assert row["gap"] == pytest.approx(0.5, abs=1e-6)
    assert row["share"] == pytest.approx(0.5 / spread, abs=1e-6)
    assert row["apart"] == 1


def test_batches_have_exactly_the_given_size():
    seen = []

    def variant(images):
        seen.append(len(images))
        return network(images)

    first, second = differences(variant, network, IMAGES, (1, 5))
    assert seen == [1] * 12 + [5] * 2
    assert (first["images"], second["images"]) == (12, 10)


def test_differences_within_the_tolerance_are_accepted():
    spread = float(network(IMAGES).max() - network(IMAGES).min())
    near = differences(lambda images: network(images) + 0.9 * TOLERANCE * spread, network, IMAGES, (1,))
    far = differences(lambda images: network(images) + 1.1 * TOLERANCE * spread, network, IMAGES, (1,))
    assert (near[0]["apart"], far[0]["apart"]) == (0, 12)
    check_differences(near, 0, "form")
    with pytest.raises(UserError, match=r"^form: .* 12 of 12 images"):
        check_differences(far, 0.5, "form")
    check_differences(far, 1, "form")
    check_differences(far, 0, "form", exact=False)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_always_refused(wrong):
    rows = differences(lambda images: network(images) * wrong, network, IMAGES, (1,))
    assert rows[0]["apart"] == 12
    with pytest.raises(UserError):
        check_differences(rows, 0, "form", exact=False)


def dataset(labels, labelled=True):
    pairs = [(IMAGES[:7], labels[:7]), (IMAGES[7:], labels[7:])]
    return SimpleNamespace(pairs=lambda: iter(pairs), part="test", labelled=labelled)


def test_accuracy_and_agreement_equal_counts():
    labels = torch.arange(12) % 5
    variants = {"first": network, "second": lambda images: network(images).flip(1)}
    found = evaluate_variants(variants, dataset(labels), 5)
    for name, variant in variants.items():
        answers = [int(variant(image[None]).argmax()) for image in IMAGES]
        right = sum(answer == int(label) for answer, label in zip(answers, labels, strict=True))
        same = sum(
            answer == int(network(image[None]).argmax())
            for answer, image in zip(answers, IMAGES, strict=True)
        )
        low, high = wilson(right, 12)
        assert found[name] == {
            "images": 12,
            "part": "test",
            "top1": pytest.approx(100 * right / 12),
            "top1_low": pytest.approx(100 * low),
            "top1_high": pytest.approx(100 * high),
            "agreement": pytest.approx(100 * same / 12),
        }
    assert found["first"]["agreement"] == 100 > found["second"]["agreement"]


def test_uneven_classes_have_the_mean_of_their_accuracies():
    answers = network(IMAGES).argmax(1)
    # Nine images of the network's own answers, and one each of three other classes.
    labels = torch.full((12,), int(answers[0]))
    labels[9:] = (labels[0] + torch.arange(1, 4)) % 5
    found = evaluate_variants({"first": network}, dataset(labels), 5)["first"]
    shares = []
    for label in set(labels.tolist()):
        of_class = [int(answer) == label for answer, its in zip(answers, labels, strict=True) if its == label]
        shares.append(sum(of_class) / len(of_class))
    assert found["top1_by_class"] == pytest.approx(100 * sum(shares) / 4)
    assert found["top1_by_class"] != found["top1"]


def test_without_labels_there_is_no_top1_and_without_classes_a_cosine():
    nothing = torch.full((12,), -1)
    assert evaluate_variants({"form": network}, dataset(nothing, labelled=False), 5)["form"] == {
        "images": 12,
        "part": "test",
        "agreement": 100.0,
    }
    found = evaluate_variants(
        {"form": network, "minus": lambda x: -network(x)}, dataset(nothing, labelled=False), 0
    )
    assert found["form"]["cosine"] == pytest.approx(1)
    assert found["minus"]["cosine"] == pytest.approx(-1)
    assert "top1" not in found["minus"]


def timed(monkeypatch, fast, slow):
    monkeypatch.setattr(equivalence, "interleaved_times", lambda contenders, seconds: {0: fast, 1: slow})
    return speed_up(network, network, IMAGES, 1.0)


def test_the_speed_up_is_paired_by_round(monkeypatch):
    draw = random.Random(0)
    busy = [draw.choice([1, 10, 100]) for _ in range(101)]
    found = timed(monkeypatch, busy, [2 * each for each in busy])
    assert found == {"median": 2, "low": 2, "high": 2, "rounds": 101}


def test_the_interval_of_the_speed_up_contains_the_median_in_95_percent(monkeypatch):
    draw = random.Random(1)
    held = 0
    for _ in range(400):
        found = timed(monkeypatch, [1.0] * 30, [draw.lognormvariate(0, 0.5) for _ in range(30)])
        assert found["low"] <= found["median"] <= found["high"]
        held += found["low"] <= 1 <= found["high"]
    assert held / 400 == pytest.approx(0.95, abs=0.035)


def test_few_rounds_make_the_widest_interval(monkeypatch):
    found = timed(monkeypatch, [1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found["low"], found["median"], found["high"]) == (1, 3, 5)
