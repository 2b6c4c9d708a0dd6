"""Daily volatility: against the standard library and the feature of the same definition, the laws, and a recorded crash."""

import math
import pickle
import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.learners.volatility import Volatility
from operators.market.features import compute_features
from tests.features_market import random_walk
from tests.market_tapes import MINUTE, recorded_file

BARS = 12
SYMBOLS = 3
DAY = 1440 * MINUTE


def tape(seed: int, n: int = 240) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, n)))
    closes[rng.uniform(size=n) < 0.02] *= 1e6  # an absurd bar
    return closes, rng.integers(0, SYMBOLS, n)


def run(made: Volatility, closes: Any, symbols: Any, cuts: list[int] | None = None) -> Any:
    parts = [made.step(closes[a:z], symbols[a:z], 1 + int(symbols[:z].max(initial=-1)))
             for a, z in pairwise([0, *(cuts or []), len(closes)])]
    return np.concatenate(parts)


@given(st.integers(0, 2**32 - 1))
def test_it_is_the_standard_deviation_of_the_window(seed: int) -> None:
    closes, symbols = tape(seed)
    out = run(Volatility(MINUTE, BARS), closes, symbols)
    for symbol in range(SYMBOLS):
        mine = closes[symbols == symbol].tolist()
        returns = [math.log(z / a) for a, z in pairwise(mine)]
        expected = [math.nan if k < BARS else statistics.stdev(returns[k - BARS : k]) * math.sqrt(1440) for k in range(len(mine))]
        np.testing.assert_allclose(out[symbols == symbol], expected, rtol=1e-9, atol=1e-12)


def test_it_is_the_feature_times_the_root_of_the_bars_in_a_day() -> None:
    rows = random_walk(200, 3)
    feature = compute_features(rows, ("A", "B", "C"), MINUTE, ("realized_vol(60)",)).values[:, 0]
    out = Volatility(MINUTE).step(rows["close"].copy(), rows["symbol"].copy(), 3)
    np.testing.assert_allclose(out, feature * math.sqrt(1440), rtol=1e-9)
    assert np.isfinite(out).sum() == 3 * 140


@pytest.mark.parametrize(("interval_ns", "bars_a_day"), [(MINUTE, 1440), (60 * MINUTE, 24), (DAY, 1)])
def test_a_day_is_a_day_whatever_the_bars(interval_ns: int, bars_a_day: int) -> None:
    """Returns of +1 % and -1 % in turn: n of them have the sample deviation 1 % * sqrt(n / (n - 1))."""
    closes = 100 * np.exp(0.01 * (np.arange(61) % 2))
    out = Volatility(interval_ns).step(closes, np.zeros(61, np.int64), 1)
    assert out[-1] == pytest.approx(0.01 * math.sqrt(60 / 59 * bars_a_day)) and np.isnan(out[:-1]).all()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 240), max_size=6), st.integers(0, 240))
def test_batch_resume_and_prefix(seed: int, cuts: list[int], stop: int) -> None:
    closes, symbols = tape(seed)
    whole = run(Volatility(MINUTE, BARS), closes, symbols)
    np.testing.assert_array_equal(run(Volatility(MINUTE, BARS), closes, symbols, sorted(cuts)), whole)
    first = Volatility(MINUTE, BARS)
    before = run(first, closes[:stop], symbols[:stop])
    np.testing.assert_array_equal(before, whole[:stop])
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    run(first, closes, symbols)
    assert pickle.dumps(kept) == saved
    second = Volatility(MINUTE, BARS)
    second.restore(pickle.loads(saved))
    np.testing.assert_array_equal(second.step(closes[stop:], symbols[stop:], SYMBOLS), whole[stop:])


def test_what_it_cannot_be_made_of() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Volatility(MINUTE, 1)
    with pytest.raises(ValueError, match="snapshot"):
        Volatility(MINUTE, 5).restore(Volatility(MINUTE, 6).snapshot())


def test_the_crash_of_april_2021_is_volatile_and_most_minutes_are_not() -> None:
    table = recorded_file("bars/spot_1m_2021-04_05/BTCUSDT.parquet")
    closes = table["close"].to_numpy(np.float64)
    out = Volatility(MINUTE).step(closes, np.zeros(len(closes), np.int64), 1)
    hours = table["timestamp"].dt.strftime("%Y-%m-%d %H")
    crash = hours.isin(["2021-04-18 03", "2021-04-18 04"]).to_numpy()
    assert crash.sum() == 120
    assert (out[crash] > 0.05).mean() > 0.95 and 0.05 < (out[~crash] > 0.05).mean() < 0.3
