"""Rank correlation of two figures of the same networks, with its bootstrap interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.report import formats
from isometry.seeding import derive_seed

LEAST = 3
"""Pairs; of two, any two figures are perfectly correlated."""
RESAMPLES = 2000


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Spearman's ρ of n pairs: ``n``, ``rho``, and ``low`` and ``high`` of its 95 % interval.

    ρ is Pearson's correlation of the ranks, where equal values have the mean of their ranks (C. Spearman, "The proof
    and measurement of association between two things", 1904). The interval is the 2.5 % and 97.5 % quantiles over 2,000
    resamples of the pairs with replacement, always the same ones for the same n, without resamples in which a figure is
    constant. Pairs with a number that is not finite are left out. All but ``n`` are None for fewer than three pairs, or
    where a figure is constant.

    Raises:
        ValueError: the two differ in length.
    """
    pairs = [
        pair for pair in zip(first, second, strict=True) if all(formats.is_number(value) for value in pair)
    ]
    count = len(pairs)
    found: dict[str, Any] = {"n": count, "rho": None, "low": None, "high": None}
    if count < LEAST:
        return found
    values_2N = np.array(pairs, dtype=np.float64).T
    rho = float(_correlations(values_2N[None])[0])
    if np.isnan(rho):
        return found
    random = np.random.default_rng(derive_seed("rank correlation", count))
    drawn_RN = random.integers(count, size=(RESAMPLES, count))
    resampled_R = _correlations(values_2N[:, drawn_RN].swapaxes(0, 1))
    low, high = np.nanquantile(resampled_R, (0.025, 0.975))
    return found | {"rho": rho, "low": float(low), "high": float(high)}


def _correlations(values_R2N: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each of R samples, NaN where a figure is constant."""
    from scipy.stats import rankdata  # takes half a second to import

    ranks_R2N = rankdata(values_R2N, axis=-1)
    centred_R2N = ranks_R2N - ranks_R2N.mean(-1, keepdims=True)
    products_R = centred_R2N.prod(1).sum(-1)
    squares_R = (centred_R2N**2).sum(-1).prod(-1)
    rho_R = np.divide(
        products_R, np.sqrt(squares_R), out=np.full(len(products_R), np.nan), where=squares_R > 0
    )
    return rho_R.clip(-1, 1)
