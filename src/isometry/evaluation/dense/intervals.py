"""95 % intervals of figures that are computed from sums over images, by the bootstrap."""

from collections.abc import Callable

import numpy as np

from isometry.evaluation.scores import Row
from isometry.seeding import derive_seed

RESAMPLES = 2000


def bootstrap(columns_NM: np.ndarray, figure: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of a figure over resamples of the N images.

    ``figure`` is a function of the sums of M ``columns`` over the images, such as hits and trials. Each of 2,000
    resamples draws N images with replacement, always the same ones for the same N (B. Efron, "Bootstrap methods:
    another look at the jackknife", Annals of Statistics 7, 1979; percentile method). The interval covers the choice of
    images, not the variation between training runs.
    """
    count = len(columns_NM)
    random = np.random.default_rng(derive_seed("bootstrap", count))
    columns_NM = np.asarray(columns_NM, dtype=np.float64)
    found = []
    for _ in range(RESAMPLES):
        found.append(figure(columns_NM[random.integers(count, size=count)].sum(0)))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def multiplicities(images: int, resamples: int) -> np.ndarray:
    """How often each image is in each resample of as many images, always the same for the same numbers: int64
    (resamples, images)."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=resamples)


def mean_share(shares_N: np.ndarray) -> Row:
    """The mean of the images' shares, in [0, 1]: ``value``, ``low`` and ``high`` (percent), and ``images``."""
    low, high = bootstrap(shares_N[:, None], lambda sums: float(sums[0]) / len(shares_N))
    return {
        "value": 100 * float(shares_N.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "images": len(shares_N),
    }


def pooled_share(hits_N: np.ndarray, trials_N: np.ndarray) -> Row:
    """All hits over all trials of N images, as :func:`mean_share`. An image of no trial counts for nothing."""
    columns_N2 = np.stack([hits_N, trials_N], 1)
    low, high = bootstrap(columns_N2, lambda sums: float(sums[0] / sums[1]) if sums[1] else np.nan)
    value = float(hits_N.sum() / trials_N.sum())
    return {"value": 100 * value, "low": 100 * low, "high": 100 * high, "images": int((trials_N > 0).sum())}
