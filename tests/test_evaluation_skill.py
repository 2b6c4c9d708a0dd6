"""Tests of skill: published numbers, the size under the null by simulation, coverage of intervals, blocks as they should be."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from research.learning.tests_of_skill import (
    autocovariances,
    block_length,
    bootstrap_interval,
    circular_indices,
    diebold_mariano,
    kolmogorov_smirnov,
    mean_interval,
    stationary_indices,
)

# The worked examples of the Python package dieboldmariano, which it checks against R's forecast::dm.test.
ERRORS_A = np.array([
    0.3675225224615024, 0.5450608127223211, 0.22044990720021074, 0.8688743471040006, 0.6072512228948467, 0.8582283746501538, 0.41662295816718187,
    0.3812100211114714, 0.7185133356116706, 0.30827323290318875, 0.4297093624074402, 0.8615974488577858, 0.7240514514808826, 0.3450839595261038,
    0.19675301374013598])
ERRORS_B = np.array([
    0.12794132529988733, 0.3679643204341153, 0.768715420996091, 0.09972248964114683, 0.27197653636654284, 0.28797629010039505, 0.9160213458582482,
    0.6112628048698798, 0.5452873235576241, 0.06785907231746158, 0.6072666485541124, 0.6241575753989782, 0.39998026828867217, 0.19895665605941748,
    0.8094941215215619])


def test_published_example_one_step() -> None:
    a, b = np.array([0.0, 1, 2, 3, 4, 5]), np.array([0.0, 2, 3, 3, 5, 6])
    found = diebold_mariano(a**2, b**2)
    assert found.statistic == pytest.approx(-2.4905, abs=5e-5)
    assert found.p == pytest.approx(0.05513, abs=5e-6)
    assert found.p_less == pytest.approx(0.05513 / 2, abs=5e-6)


def test_published_example_three_steps() -> None:
    found = diebold_mariano(np.abs(ERRORS_A), np.abs(ERRORS_B), horizon=3)
    assert found.statistic == pytest.approx(1.2109, abs=5e-5)
    assert found.p_less == pytest.approx(0.877, abs=5e-4)
    assert found.kernel == "rectangular"


def test_the_fallback_variance_is_newey_west_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    d = np.diff(rng.normal(size=61))  # negatively correlated: the rectangular kernel may fail
    h = 2
    found = diebold_mariano(d, np.zeros(60), h)
    gamma = autocovariances(d, 1)
    assert gamma[0] + 2 * gamma[1] <= gamma[0] * 1e-9 or found.kernel == "rectangular"
    alternating = np.tile([1.0, -1.0], 30) + 0.3
    found = diebold_mariano(alternating, np.zeros(60), h)
    assert found.kernel == "bartlett"
    robust = OLS(alternating, np.ones(60)).fit(cov_type="HAC", cov_kwds={"maxlags": h - 1})
    correction = np.sqrt((60 + 1 - 2 * h + h * (h - 1) / 60) / 60)
    assert found.statistic == pytest.approx(float(robust.tvalues[0]) * correction, rel=1e-9)


def test_nothing_is_claimed_of_equal_forecasts() -> None:
    same = np.arange(10.0)
    found = diebold_mariano(same, same)
    assert np.isnan(found.statistic) and np.isnan(found.p) and found.mean == 0.0
    assert np.isnan(diebold_mariano(np.array([1.0, 2.0]), np.array([0.0, 5.0])).p)


def test_it_is_antisymmetric() -> None:
    one, two = diebold_mariano(ERRORS_A, ERRORS_B, 3), diebold_mariano(ERRORS_B, ERRORS_A, 3)
    assert one.statistic == pytest.approx(-two.statistic)
    assert one.p_less == pytest.approx(1.0 - two.p_less)


@pytest.mark.parametrize(("horizon", "n"), [(1, 100), (5, 200), (15, 600)])
def test_size_under_the_null(horizon: int, n: int) -> None:
    """Overlapping forecasts of equal skill: a 5 % test refuses in about 5 % of 1,000 worlds; the bound leaves room for the small-sample bias
    that remains (HLN 1997, table 2: up to 8 % at these lengths)."""
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(1000):
        e = rng.normal(size=(2, n + horizon - 1))
        overlapping = np.array([np.convolve(row, np.ones(horizon), "valid") for row in e])
        refused += diebold_mariano(overlapping[0] ** 2, overlapping[1] ** 2, horizon).p < 0.05
    assert 0.03 < refused / 1000 < 0.09
    if horizon == 15:
        naive = 0
        for _ in range(200):
            e = rng.normal(size=(2, n + horizon - 1))
            overlapping = np.array([np.convolve(row, np.ones(horizon), "valid") for row in e])
            naive += diebold_mariano(overlapping[0] ** 2, overlapping[1] ** 2, 1).p < 0.05
        assert naive / 200 > 0.3  # what ignoring the overlap would do


def test_power_against_a_better_forecast() -> None:
    rng = np.random.default_rng(8)
    found = [diebold_mariano(rng.normal(size=300) ** 2, (1.3 * rng.normal(size=300)) ** 2) for _ in range(200)]
    assert np.mean([f.p_less < 0.05 for f in found]) > 0.9


def test_stationary_blocks_are_geometric_and_wrap() -> None:
    rng = np.random.default_rng(1)
    n, block = 5000, 20.0
    at = stationary_indices(n, block, rng)
    assert at.min() >= 0 and at.max() < n and len(at) == n
    breaks = np.flatnonzero((at[1:] - at[:-1]) % n != 1) + 1
    lengths = np.diff([0, *breaks])
    assert lengths.mean() == pytest.approx(block, rel=0.15)
    # geometric: the share of blocks longer than k is (1 - 1/block)^k
    for k in (5, 20, 60):
        assert np.mean(lengths > k) == pytest.approx((1 - 1 / block) ** k, abs=0.07)
    counts = np.zeros(n)
    for _ in range(400):
        counts += np.bincount(stationary_indices(n, block, rng), minlength=n)
    assert counts[:10].mean() == pytest.approx(400, rel=0.2)  # no edge is seen less


def test_circular_blocks_have_their_length() -> None:
    at = circular_indices(100, 10, np.random.default_rng(2))
    assert len(at) == 100
    for block in at.reshape(10, 10):
        assert np.all((np.diff(block) % 100) == 1)


def test_intervals_cover_as_they_say_where_rows_are_correlated() -> None:
    """AR(1) with coefficient 0.5: the mean of 400 lies in its 90 % interval in 80 to 95 % of 200 worlds; drawn row by row, in far fewer."""
    rng = np.random.default_rng(5)

    def covered(block: int) -> float:
        hits = 0
        for world in range(200):
            noise = rng.normal(size=500)
            x = np.empty(500)
            x[0] = noise[0]
            for k in range(1, 500):
                x[k] = 0.5 * x[k - 1] + noise[k]
            found = bootstrap_interval((x[100:],), lambda v: float(v.mean()), block, world, 0.9, 200)
            hits += found.low <= 0.0 <= found.high
        return hits / 200

    assert 0.80 <= covered(15) <= 0.95
    assert covered(1) < 0.78


def test_the_same_seed_gives_the_same_interval() -> None:
    x = np.random.default_rng(0).normal(size=200)
    assert mean_interval(x, 5, 3) == mean_interval(x, 5, 3)
    assert mean_interval(x, 5, 3) != mean_interval(x, 5, 4)
    wide, narrow = mean_interval(x, 1, 3, 0.99), mean_interval(x, 1, 3, 0.5)
    assert wide.low < narrow.low < x.mean() < narrow.high < wide.high
    assert block_length(1000, 1) == 10 and block_length(1000, 15) == 30 and block_length(5, 15) == 5


def test_independent_rows_give_the_interval_of_the_normal() -> None:
    x = np.random.default_rng(6).normal(size=2000)
    found = bootstrap_interval((x,), lambda v: float(v.mean()), 1, 1, 0.95, 2000, "circular")
    half = stats.norm.ppf(0.975) * x.std() / np.sqrt(2000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_kolmogorov_smirnov_is_scipys_on_thinned_rows() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=300), rng.normal(0.4, 1.0, size=300)
    want = stats.ks_2samp(a[::3], b[::3])
    found = kolmogorov_smirnov(a, b, 3)
    assert (found.statistic, found.p, found.n) == (want.statistic, want.pvalue, 100)
    assert np.isnan(kolmogorov_smirnov(a[:2], b).p)
