"""Scores of answers by loops in float64, straight from their definitions."""

import math
from collections.abc import Sequence


def wilson_by_bisection(successes: int, trials: int, z: float) -> tuple[float, float]:
    """The shares p from which the observed one is z standard deviations away: |p̂ − p| = z·√(p(1−p)/n)."""
    observed = successes / trials

    def too_far(share: float) -> bool:
        return abs(observed - share) > z * math.sqrt(share * (1 - share) / trials)

    return _edge(too_far, 0.0, observed), _edge(too_far, 1.0, observed)


def _edge(too_far, outer: float, inner: float) -> float:
    if not too_far(outer):
        return outer
    for _ in range(200):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if too_far(middle) else (outer, middle)
    return inner


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int) -> float:
    """In percent; bin b of M is ((b−1)/M, b/M]."""
    total = 0.0
    for place in range(1, bins + 1):
        inside = [
            (c, r) for c, r in zip(confidences, right, strict=True) if (place - 1) / bins < c <= place / bins
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(right) * abs(accuracy - confidence)
    return 100 * total


def votes(
    train: Sequence[Sequence[float]],
    labels: Sequence[int],
    image: Sequence[float],
    k: int,
    temperature: float,
) -> int:
    """The class with most votes among the k training images of largest cosine, each weighing exp(cos / t)."""
    cosines = [(_cosine(image, other), label) for other, label in zip(train, labels, strict=True)]
    weights: dict[int, float] = {}
    for cosine, label in sorted(cosines, key=lambda pair: -pair[0])[:k]:
        weights[label] = weights.get(label, 0.0) + math.exp(cosine / temperature)
    return max(weights, key=lambda label: weights[label])


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
