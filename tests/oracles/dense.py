"""Figures of dense features by loops, straight from their definitions."""

import math
from collections.abc import Sequence


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def ranking(features: Sequence[Sequence[float]], query: int) -> list[int]:
    """All other images, the most similar first; of equal ones the one with the lower number."""
    others = [number for number in range(len(features)) if number != query]
    return sorted(others, key=lambda other: (-cosine(features[query], features[other]), other))


def retrieval(
    features: Sequence[Sequence[float]], labels: Sequence[int]
) -> tuple[dict[int, float], float, int]:
    """Recall at 1 and at 5, the mean average precision, and the number of images that are no queries."""
    hits: dict[int, list[bool]] = {1: [], 5: []}
    precisions, alone = [], 0
    for query in range(len(features)):
        right = [labels[other] == labels[query] for other in ranking(features, query)]
        if not any(right):
            alone += 1
            continue
        for count, found in hits.items():
            found.append(any(right[:count]))
        precisions.append(average_precision(right))
    recall = {count: sum(found) / len(found) for count, found in hits.items()}
    return recall, sum(precisions) / len(precisions), alone


def average_precision(right: Sequence[bool]) -> float:
    """The mean, over the ranks of right candidates, of the share of right ones up to that rank."""
    shares = [sum(right[:place]) / place for place in range(1, len(right) + 1) if right[place - 1]]
    return sum(shares) / len(shares)


def agreement(
    student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]], count: int
) -> list[float]:
    """Each vector's share of ``count`` neighbours that both have."""
    return [
        len(set(ranking(student, number)[:count]) & set(ranking(teacher, number)[:count])) / count
        for number in range(len(student))
    ]
