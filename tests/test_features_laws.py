"""What every feature keeps by being registered: batch, resume and prefix laws, warm-up, forgetting of outliers."""

import pickle
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.market.features import (
    DEFAULT_FEATURES,
    FAMILIES,
    FEATURES,
    Features,
    FeatureSet,
    compute_features,
    kernels,
)
from schemas.frame import Frame
from schemas.tables import BARS, Rows
from tests.features_market import MINUTE_NS, random_walk

SYMBOLS = ("A", "B", "C")
SHORT = (
    "sma(1)", "wma(1)", "ema(1)", "rsi(1)", "stoch(1,1,1)", "bollinger(2,2)", "atr(1)", "hma(2)", "kama(1,2,30)",
    "donchian(1)", "aroon(1)", "adx(1)", "skew(3)", "kurtosis(4)", "autocorr(2,3)", "variance_ratio(4,3)",
    "yang_zhang(2)", "roll_spread(2)", "vwap(30)", "macd(1,2,1)", "ichimoku(1,2,3)", "cci(1)", "cci(7)", "ret(3)",
    "keltner(3,1.5,9)", "keltner(9,1.5,3)", "supertrend(1,0.5)", "percent_rank(1)",
)
EVERYTHING = (*DEFAULT_FEATURES, *SHORT)


def run(rows: Rows, cuts: list[int], operator: Features | None = None) -> npt.NDArray[np.float64]:
    operator = operator or Features({MINUTE_NS: EVERYTHING})
    parts = []
    for number, (a, z) in enumerate(pairwise(cuts)):
        known = 1 + max((int(s) for s in rows["symbol"][:z]), default=-1)
        frame = operator.step(Frame("test", number, 0, SYMBOLS[:known], {BARS.name: rows[a:z]}))
        assert len(frame.features) == 1 and len(frame.features[0].bars) == z - a
        parts.append(frame.features[0].values)
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def market() -> Rows:
    rows = random_walk(260, 3, tick=0.01)
    late = (rows["symbol"] == 2) & (rows["ts_open_ns"] < rows["ts_open_ns"][0] + 40 * MINUTE_NS)
    return rows[~late]  # the third symbol appears later


@pytest.fixture(scope="module")
def whole(market: Rows) -> npt.NDArray[np.float64]:
    return run(market, [0, len(market)])


def same_bits(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(a, b, strict=True)
    np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 740), max_size=12))
def test_batch_law(market: Rows, whole: npt.NDArray[np.float64], cuts: list[int]) -> None:
    same_bits(run(market, [0, *sorted(cuts), len(market)]), whole)


def test_batches_of_one_and_beyond_a_chunk(market: Rows, whole: npt.NDArray[np.float64]) -> None:
    assert len(market) > 512
    same_bits(run(market, list(range(len(market) + 1))), whole)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 740))
def test_resume_law(market: Rows, whole: npt.NDArray[np.float64], cut: int) -> None:
    first = Features({MINUTE_NS: EVERYTHING})
    before = run(market, [0, cut], first)
    saved = pickle.dumps(first.snapshot())
    kept = first.snapshot()
    run(market, [0, len(market)], first)  # a snapshot does not change with later steps
    assert pickle.dumps(kept) == saved
    second = Features({MINUTE_NS: EVERYTHING})
    second.restore(pickle.loads(saved))
    same_bits(np.concatenate([before, run(market, [cut, len(market)], second)]), whole)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 740), st.sampled_from([1e-9, 1e9]))
def test_prefix_law(market: Rows, whole: npt.NDArray[np.float64], cut: int, poison: float) -> None:
    rows = market.copy()
    for name in ("open", "high", "low", "close", "volume", "notional", "buy_volume", "bid", "ask"):
        rows[name][cut:] *= poison
    same_bits(run(rows, [0, len(rows)])[:cut], whole[:cut])
    same_bits(run(rows[:cut], [0, cut]), whole[:cut])


def test_symbols_do_not_touch(market: Rows, whole: npt.NDArray[np.float64]) -> None:
    for code in range(3):
        mine = market["symbol"] == code
        alone = market[mine].copy()
        alone["symbol"] = 0
        same_bits(run(alone, [0, len(alone)]), whole[mine])


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("tick", [0.0, 0.5])
def test_warm_up(name: str, tick: float) -> None:
    """NaN exactly before the declared warm-up, finite after; with coarse ticks many windows are flat."""
    found = FEATURES[name]
    rows = random_walk(300, 1, tick=tick)
    values = compute_features(rows, SYMBOLS[:1], MINUTE_NS, found.columns()).values
    for column, warm_up in zip(values.T, found.warm_up(found.defaults), strict=True):
        assert np.isnan(column[:warm_up]).all()
        assert np.isfinite(column[warm_up:]).all()


ABSURD = {
    "open": 1e6, "high": 1e12, "low": 1e-7, "close": 1e10, "volume": 1e15, "notional": 1e18, "buy_volume": 1e14,
    "trades": 1000, "bid": 1e5, "ask": 1e9, "bid_size": 1e12,
}


@pytest.mark.parametrize("name", [name for name, found in FEATURES.items() if found.windowed is not None])
def test_an_outlier_is_forgotten(name: str) -> None:
    """Once the window has passed an absurd bar, every value equals that of a market without it, bit for bit."""
    found = FEATURES[name]
    assert found.windowed is not None
    length = found.windowed(found.defaults)
    rows = random_walk(length + 320, 1)
    plain = compute_features(rows, SYMBOLS[:1], MINUTE_NS, found.columns()).values
    for at in (3, length // 2 + 5, length + 7, *range(100, 100 + min(length, 25))):
        bad = rows.copy()
        for column, factor in ABSURD.items():
            bad[column][at] *= factor
        values = compute_features(bad, SYMBOLS[:1], MINUTE_NS, found.columns()).values
        same_bits(values[at + length + 1 :], plain[at + length + 1 :])
        same_bits(values[:at], plain[:at])
        if at == length + 7 and found.family != "calendar":
            assert not np.array_equal(values[at : at + length + 1], plain[at : at + length + 1], equal_nan=True)


def test_a_market_that_stands_still_has_neutral_values() -> None:
    rows = random_walk(200, 1)
    for name in ("open", "high", "low", "close"):
        rows[name] = 0.1
    rows["volume"] = rows["notional"] = rows["buy_volume"] = 0.0
    found = compute_features(rows, SYMBOLS[:1], MINUTE_NS, DEFAULT_FEATURES)
    last = dict(zip(found.names, found.values[-1], strict=True))
    assert {name for name, value in last.items() if not np.isfinite(value)} == {"amihud(20)"}
    assert last["rsi(14)"] == last["mfi(14)"] == 50.0
    for zero in ("zscore(20)", "volume_z(20)", "stdev(20)", "skew(50)", "kurtosis(50)", "autocorr(50,1)",
                 "roll_spread(20)", "cci(20)", "yang_zhang(20)", "realized_vol(20)", "bollinger(20,2).width",
                 "slope(20).r2"):
        assert last[zero] == 0.0, zero
    assert last["buy_ratio(20)"] == last["hurst(100)"] == last["bollinger(20,2).percent_b"] == 0.5
    assert last["variance_ratio(100,5)"] == last["atr_ratio(20,100)"] == last["volume_ratio(20)"] == 1.0


def test_without_sides_and_quotes_only_what_needs_them_is_missing() -> None:
    rows = random_walk(200, 1)
    for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    found = compute_features(rows, SYMBOLS[:1], MINUTE_NS, DEFAULT_FEATURES)
    missing = {name for name, value in zip(found.names, found.values[-1], strict=True) if not np.isfinite(value)}
    assert missing == {
        "buy_ratio(20)", "signed_volume(20)", "kyle_lambda(20)", "book_imbalance", "spread", "microprice"}


def test_a_bar_without_sides_is_forgotten() -> None:
    rows = random_walk(120, 1)
    names = ("buy_ratio(20)", "signed_volume(20)", "kyle_lambda(20)")
    plain = compute_features(rows, SYMBOLS[:1], MINUTE_NS, names).values
    rows["buy_volume"][40] = np.nan
    values = compute_features(rows, SYMBOLS[:1], MINUTE_NS, names).values
    assert np.isnan(values[40:60]).all()
    same_bits(values[60:], plain[60:])


def test_only_time_bars_of_the_interval_count() -> None:
    rows = random_walk(60, 2)
    other = rows.copy()
    other["interval_ns"] = 5 * MINUTE_NS
    ticks = rows.copy()
    ticks["bar_kind"] = 1
    mixed = np.stack([rows, other, ticks], axis=1).ravel()
    frame = Features({MINUTE_NS: ("sma(5)",), 5 * MINUTE_NS: ("rsi(3)", "sma(5)")}).step(
        Frame("test", 0, 0, SYMBOLS[:2], {BARS.name: mixed}))
    one, five = frame.features
    np.testing.assert_array_equal(one.bars, rows)
    np.testing.assert_array_equal(five.bars, other)
    same_bits(one.values[:, 0], five.values[:, 1])
    assert frame.tables[BARS.name] is mixed


def test_a_frame_without_bars_gets_empty_rows() -> None:
    frame = Features({MINUTE_NS: ("rsi",)}).step(Frame("test", 0, 0, ()))
    assert frame.features[0].values.shape == (0, 1) and len(frame.features[0].bars) == 0


def test_snapshot_of_other_features_is_refused() -> None:
    saved = Features({MINUTE_NS: ("rsi(14)",)}).snapshot()
    with pytest.raises(ValueError, match="rsi"):
        Features({MINUTE_NS: ("rsi(15)",)}).restore(saved)
    with pytest.raises(ValueError, match="timeframes"):
        Features({2 * MINUTE_NS: ("rsi(14)",)}).restore(saved)


def test_the_register() -> None:
    assert len(FEATURES) >= 65
    assert {found.family for found in FEATURES.values()} == set(FAMILIES)
    for found in FEATURES.values():
        assert found.doc.endswith(".") and found.formula and found.source
    todo = kernels()
    assert len({label for label, _ in todo}) == len(todo)
    pickle.loads(pickle.dumps(todo[0][1]))()


def test_the_same_feature_twice_is_computed_once() -> None:
    once = FeatureSet(MINUTE_NS, ("rsi", "rsi(14)", "macd.signal", "macd(12,26,9).macd"))
    assert once.names == ("rsi", "rsi(14)", "macd.signal", "macd(12,26,9).macd")
    assert len(once.snapshot()["states"]) == 2
