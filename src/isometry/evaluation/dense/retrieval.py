"""Retrieval: each image is a query, all others are ranked by the cosine of their features, those of its class are
right."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isometry.evaluation.dense.intervals import mean_share
from isometry.evaluation.dense.neighbours import cosine_blocks
from isometry.evaluation.scores import Row, accuracy

FIRST = (1, 5)
"""Numbers of candidates that recall is measured at."""
MOST_TIES = 64
"""From so many ties in one ranking on, all of it is sorted stably."""


@dataclass(frozen=True)
class Ranked:
    """What the rankings of Q queries give; queries are the images whose class has another image.

    Attributes:
        best: the rank, from 1, of the first right candidate, int64 (Q,).
        precision: the average precision, float64 (Q,):  AP = 1/P Σ_{i=1..P} i / r_i,  where r_1 < ... < r_P are the
            ranks of the P right candidates among all N − 1.
        right: P of each query, int64 (Q,).
        images: N, of which those that are not queries are the only ones of their class.
    """

    best: np.ndarray
    precision: np.ndarray
    right: np.ndarray
    images: int


def rank(features_ND: Tensor, labels_N: np.ndarray) -> Ranked:
    """Ranks all candidates of every query by cosine; of equal ones the first image comes first.

    Exact, without sorting image numbers: a right candidate's rank is the number of cosines above its own, which is
    looked up among the sorted cosines. The product of a block of queries runs on the features' device, and the rankings
    of a block on as many threads as torch has.
    """
    members = {label: np.flatnonzero(labels_N == label) for label in np.unique(labels_N).tolist()}
    queries_N = np.array([len(members[label]) > 1 for label in labels_N.tolist()], dtype=bool)
    found: list[tuple[int, float, int]] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for numbers_B, cosines_BN in cosine_blocks(features_ND):
            rows_BN = cosines_BN.cpu().numpy()
            rows = [
                (row_N, _without(members[int(labels_N[number])], number))
                for number, row_N in zip(numbers_B.tolist(), rows_BN, strict=True)
                if queries_N[number]
            ]
            found += threads.map(_ranking, *zip(*rows, strict=True)) if rows else []
    best, precision, right = np.array(found).reshape(-1, 3).T
    return Ranked(best.astype(np.int64), precision, right.astype(np.int64), len(labels_N))


def figures(ranked: Ranked) -> dict[str, Row]:
    """Rows by name: ``recall@1`` and ``recall@5``, the share of queries with a right image among the first 1 and 5
    (interval by Wilson), and ``mAP``, the mean of the average precisions (by the bootstrap over queries); each with
    ``chance``, its expectation for rankings at random."""
    rows = {
        f"recall@{count}": accuracy(ranked.best <= count) | {"chance": 100 * recall_by_chance(ranked, count)}
        for count in FIRST
    }
    return {**rows, "mAP": mean_share(ranked.precision) | {"chance": 100 * precision_by_chance(ranked)}}


def recall_by_chance(ranked: Ranked, count: int) -> float:
    """The mean over queries of 1 − Π_{i<k} (M − P − i) / (M − i), for M candidates of which P are right."""
    candidates = ranked.images - 1
    missed_Q = np.ones(len(ranked.right))
    for place in range(min(count, candidates)):
        missed_Q *= np.maximum(candidates - ranked.right - place, 0) / (candidates - place)
    return float(1 - missed_Q.mean())


def precision_by_chance(ranked: Ranked) -> float:
    """The mean over queries of E[AP] = (H + (P − 1)/(M − 1)·(M − H)) / M, with H = Σ_{r=1..M} 1/r.

    Rank r is right with probability P/M, and then each rank before it with (P − 1)/(M − 1).
    """
    candidates = ranked.images - 1
    harmonic = float((1 / np.arange(1, candidates + 1)).sum())
    others_Q = (ranked.right - 1) / max(1, candidates - 1)
    return float(((harmonic + others_Q * (candidates - harmonic)) / candidates).mean())


def _without(members: np.ndarray, number: int) -> np.ndarray:
    return members[members != number]


def _ranking(cosines_N: np.ndarray, right_P: np.ndarray) -> tuple[int, float, int]:
    ranks_P = _ranks(cosines_N, right_P)
    return int(ranks_P[0]), float((np.arange(1, len(ranks_P) + 1) / ranks_P).mean()), len(ranks_P)


def _ranks(cosines_N: np.ndarray, right_P: Sequence[int] | np.ndarray) -> np.ndarray:
    """The ranks, from 1 and ascending, of the right candidates, int64 (P,)."""
    right_P = np.asarray(right_P)
    order_N = np.sort(cosines_N)
    # Looked up in ascending order, which is quicker.
    right_P = right_P[np.argsort(cosines_N[right_P], kind="stable")]
    values_P = cosines_N[right_P]
    not_above_P = np.searchsorted(order_N, values_P, side="right")
    ranks_P = len(order_N) + 1 - not_above_P
    tied = np.flatnonzero((not_above_P > 1) & (order_N[not_above_P - 2] == values_P))
    if len(tied) > MOST_TIES:
        places_N = np.empty(len(order_N), dtype=np.int64)
        places_N[np.argsort(-cosines_N, kind="stable")] = np.arange(1, len(order_N) + 1)
        ranks_P = places_N[right_P]
    else:
        for place in tied:
            ranks_P[place] += np.count_nonzero(cosines_N[: right_P[place]] == values_P[place])
    return np.sort(ranks_P)
