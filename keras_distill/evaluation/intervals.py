"""Confidence intervals: by resampling the test set, and over several runs."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
from scipy import stats

#: With fewer samples, the percentiles of resampled means are known to be too narrow.
FEWEST_SAMPLES = 30


def bootstrap(
    sums: scipy.sparse.csr_array,
    metrics: Callable[[np.ndarray], dict[str, np.ndarray]],
    resamples: int,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Metrics on test sets drawn with replacement from the samples.

    The same seed draws the same test sets, so that two candidates are compared on equal draws.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        sums: Sparse matrix of shape `(samples, k)`: what each sample adds to `k` sums.
        metrics: Function from sums of shape `(draws, k)` to a dict of arrays of shape `(draws,)`.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        A dict from metrics to arrays of shape `(resamples,)`.
    """
    rng = np.random.default_rng(seed)
    samples = sums.shape[0]
    transposed = sums.T.tocsr()
    parts = []
    for start in range(0, resamples, 100):
        times = np.stack(
            [
                np.bincount(rng.integers(samples, size=samples), minlength=samples)
                for _ in range(start, min(start + 100, resamples))
            ],
            axis=1,
        )
        parts.append(metrics((transposed @ times.astype("float64")).T))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """The interval that holds the middle `level` of `values`, or `None` if they don't vary."""
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def over_runs(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over runs, or `None` for fewer than two runs."""
    if len(values) < 2:
        return None
    mean = float(np.mean(np.asarray(values, "float64")))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return mean - half, mean + half
