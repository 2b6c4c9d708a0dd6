"""Is the difference more than luck: Diebold-Mariano, block bootstrap intervals, Kolmogorov-Smirnov.

Forecasts over a horizon of h bars overlap, so their losses are correlated over h - 1 lags; every test here allows for that, and none
treats rows of several symbols at one moment as independent: give it series over time (`evaluation.by_time`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 1000


@dataclass(frozen=True)
class DieboldMariano:
    """mean: of loss_a - loss_b, so negative where a is better. p_less: probability of so low a statistic were a no better than b; p: two
    sides. kernel: what the variance was estimated with. n: times."""

    statistic: float
    p: float
    p_less: float
    mean: float
    kernel: str
    n: int


def autocovariances(d: Floats, lags: int) -> Floats:
    """Sample autocovariances of d at lags 0 to `lags`, each divided by n."""
    centred = d - d.mean()
    return np.array([float(centred[k:] @ centred[: len(d) - k]) / len(d) for k in range(lags + 1)])


def diebold_mariano(loss_a: Floats, loss_b: Floats, horizon: int = 1) -> DieboldMariano:
    """Equal accuracy of two forecasts of the same times (Diebold and Mariano 1995) with the correction of Harvey, Leybourne and Newbold
    (1997), against Student's t with n - 1 degrees.

    horizon: how many steps ahead, so horizon - 1 autocovariances count, with the rectangular kernel of the paper; where that variance is
    not positive, with Bartlett's (Newey and West 1987). NaN for fewer than three times or where the losses never differ.
    """
    d = np.asarray(loss_a, np.float64) - np.asarray(loss_b, np.float64)
    n = len(d)
    h = max(1, min(horizon, n // 2))
    nothing = DieboldMariano(float("nan"), float("nan"), float("nan"), float(d.mean()) if n else float("nan"), "none", n)
    if n < 3:
        return nothing
    gamma = autocovariances(d, h - 1)
    kernel, variance = "rectangular", float(gamma[0] + 2.0 * gamma[1:].sum())
    if variance <= gamma[0] * 1e-9:
        kernel, variance = "bartlett", float(gamma[0] + 2.0 * np.sum((1.0 - np.arange(1, h) / h) * gamma[1:]))
    if not variance > 0.0:
        return nothing
    correction = (n + 1 - 2 * h + h * (h - 1) / n) / n
    statistic = float(d.mean() / np.sqrt(variance / n) * np.sqrt(correction))
    return DieboldMariano(statistic, float(2.0 * stats.t.sf(abs(statistic), n - 1)), float(stats.t.cdf(statistic, n - 1)), float(d.mean()),
                          kernel, n)


def stationary_indices(n: int, block: float, rng: np.random.Generator) -> Ints:
    """One resample of 0 … n-1 in blocks of geometric length, mean `block`, wrapping round (Politis and Romano 1994)."""
    fresh = rng.random(n) < 1.0 / max(block, 1.0)
    fresh[0] = True
    starts = rng.integers(0, n, int(fresh.sum()))
    heads = np.flatnonzero(fresh)
    which = np.cumsum(fresh) - 1
    return np.asarray((starts[which] + np.arange(n) - heads[which]) % n, np.int64)


def circular_indices(n: int, block: int, rng: np.random.Generator) -> Ints:
    """One resample of 0 … n-1 in blocks of a fixed length, wrapping round (Politis and Romano 1992)."""
    size = max(1, min(block, n))
    starts = rng.integers(0, n, -(-n // size))
    return np.asarray(((starts[:, None] + np.arange(size)).ravel()[:n]) % n, np.int64)


def block_length(n: int, horizon: int) -> int:
    """Bars per block: n^(1/3), the rate that is best for a variance (Hall, Horowitz and Jing 1995), and at least twice the horizon."""
    return int(min(max(2 * horizon, round(n ** (1 / 3)), 1), max(1, n)))


@dataclass(frozen=True)
class Interval:
    """A figure and the interval that it lies in with probability `level`, by percentiles of the resamples."""

    value: float
    low: float
    high: float
    level: float


def bootstrap_interval(series: tuple[Floats, ...], figure: Callable[..., float], block: int, seed: int, level: float = 0.95,
                       resamples: int = RESAMPLES, kind: str = "stationary") -> Interval:
    """Percentile interval of `figure(*series)`; the series are resampled together, so what belongs to one time stays together.

    kind: stationary or circular. A resample whose figure is not finite is left out; NaN bounds where fewer than half are left.
    """
    n = len(series[0])
    value = float(figure(*series)) if n else float("nan")
    if n < 3:
        return Interval(value, float("nan"), float("nan"), level)
    rng = np.random.default_rng(seed)
    draw = {"stationary": stationary_indices, "circular": circular_indices}[kind]
    made = np.empty(resamples)
    for k in range(resamples):
        at = draw(n, block, rng)
        made[k] = figure(*(s[at] for s in series))
    made = made[np.isfinite(made)]
    if 2 * len(made) < resamples:
        return Interval(value, float("nan"), float("nan"), level)
    low, high = np.quantile(made, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(low), float(high), level)


def mean_interval(values: Floats, horizon: int, seed: int, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Interval of a mean over time."""
    return bootstrap_interval((values,), lambda x: float(x.mean()), block_length(len(values), horizon), seed, level, resamples)


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """statistic: the largest distance of two distributions. p: of so large a distance were they the same. n: effective size of the smaller
    sample."""

    statistic: float
    p: float
    n: int


def kolmogorov_smirnov(a: Floats, b: Floats, block: int = 1) -> KolmogorovSmirnov:
    """Whether two samples have one distribution. The test wants independent values, so series over time are thinned to one per block."""
    step = max(1, block)
    x, y = a[np.isfinite(a)][::step], b[np.isfinite(b)][::step]
    if min(len(x), len(y)) < 3:
        return KolmogorovSmirnov(float("nan"), float("nan"), min(len(x), len(y)))
    found = stats.ks_2samp(x, y)
    return KolmogorovSmirnov(float(found.statistic), float(found.pvalue), min(len(x), len(y)))
