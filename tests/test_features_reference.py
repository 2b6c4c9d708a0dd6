"""Features against plain re-implementations in pandas and Python, from the formulas, on interleaved symbols."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from operators.market.features import FEATURES, compute_features
from tests.features_market import MINUTE_NS, random_walk

Answer = npt.NDArray[np.float64] | pd.Series
REFERENCES: dict[str, Callable[[pd.DataFrame], Answer]] = {}


def reference(column: str) -> Callable[[Callable[[pd.DataFrame], Answer]], Callable[[pd.DataFrame], Answer]]:
    def register(function: Callable[[pd.DataFrame], Answer]) -> Callable[[pd.DataFrame], Answer]:
        REFERENCES[column] = function
        return function

    return register


def wilder(values: pd.Series, n: int) -> pd.Series:
    """Wilder's average from the mean of the first n values that are there."""
    return smoothed(values, n, 1.0 / n)


def smoothed(values: pd.Series, n: int, alpha: float) -> pd.Series:
    out, first, average = [math.nan] * len(values), [], math.nan
    for i, x in enumerate(values):
        if math.isnan(x):
            continue
        if len(first) < n:
            first.append(x)
            average = sum(first) / n
        else:
            average += alpha * (x - average)
        if len(first) == n:
            out[i] = average
    return pd.Series(out)


def ema(values: pd.Series, n: int) -> pd.Series:
    return smoothed(values, n, 2.0 / (n + 1))


def wma(values: pd.Series, n: int) -> pd.Series:
    weights = np.arange(1, n + 1) / (n * (n + 1) / 2)
    return values.rolling(n).apply(lambda w: float(w @ weights), raw=True)


def true_range(d: pd.DataFrame) -> pd.Series:
    last = d.close.shift()
    ranges = [d.high - d.low, (d.high - last).abs(), (d.low - last).abs()]
    return pd.concat(ranges, axis=1).max(axis=1).where(last.notna())


def middle(d: pd.DataFrame, n: int) -> pd.Series:
    return (d.high.rolling(n).max() + d.low.rolling(n).min()) / 2


def rsi(d: pd.DataFrame, n: int) -> pd.Series:
    change = d.close.diff()
    return 100 - 100 / (1 + wilder(change.clip(lower=0), n) / wilder(-change.clip(upper=0), n))


def directional(d: pd.DataFrame, n: int) -> tuple[pd.Series, pd.Series]:
    up, down = d.high.diff(), -d.low.diff()
    plus = up.where((up > down) & (up > 0), 0.0).where(up.notna())
    minus = down.where((down > up) & (down > 0), 0.0).where(up.notna())
    return 100 * wilder(plus, n) / wilder(true_range(d), n), 100 * wilder(minus, n) / wilder(true_range(d), n)


def flow_multiplier(d: pd.DataFrame) -> pd.Series:
    return ((d.close - d.low) - (d.high - d.close)) / (d.high - d.low)


reference("adx(14).plus_di")(lambda d: directional(d, 14)[0])
reference("adx(14).minus_di")(lambda d: directional(d, 14)[1])
reference("keltner(20,2,10).upper")(lambda d: ema(d.close, 20) + 2 * wilder(true_range(d), 10))
reference("keltner(20,2,10).lower")(lambda d: ema(d.close, 20) - 2 * wilder(true_range(d), 10))
reference("keltner(5,2,10).middle")(lambda d: ema(d.close, 5))
reference("hma(20)")(lambda d: wma(2 * wma(d.close, 10) - wma(d.close, 20), 4))
reference("rma(9)")(lambda d: wilder(d.close, 9))
reference("atr_ratio(20,100)")(lambda d: wilder(true_range(d), 20) / wilder(true_range(d), 100))
reference("ichimoku(9,26,52).tenkan")(lambda d: middle(d, 9))
reference("ichimoku(9,26,52).kijun")(lambda d: middle(d, 26))
reference("ichimoku(9,26,52).senkou_a")(lambda d: ((middle(d, 9) + middle(d, 26)) / 2).shift(26))
reference("ichimoku(9,26,52).senkou_b")(lambda d: middle(d, 52).shift(26))
reference("cmf(20)")(lambda d: (flow_multiplier(d) * d.volume).rolling(20).sum() / d.volume.rolling(20).sum())
reference("adl")(lambda d: (flow_multiplier(d) * d.volume).cumsum())
reference("volume_sma(20)")(lambda d: d.volume.rolling(20).mean())
reference("volume_ratio(20)")(lambda d: d.volume / d.volume.rolling(20).mean())
reference("volume_z(20)")(lambda d: (d.volume - d.volume.rolling(20).mean()) / d.volume.rolling(20).std(ddof=0))
reference("vwap_distance(20)")(lambda d: d.close / (d.notional.rolling(20).sum() / d.volume.rolling(20).sum()) - 1)
reference("ret(3)")(lambda d: d.close.pct_change(3))
reference("log_ret(3)")(lambda d: np.log(d.close).diff(3))
reference("gap_ret")(lambda d: d.open / d.close.shift() - 1)
reference("body_ret")(lambda d: d.close / d.open - 1)
reference("range_ratio")(lambda d: (d.high - d.low) / d.close)
reference("dist_high(20)")(lambda d: d.close / d.high.rolling(20).max() - 1)
reference("dist_low(20)")(lambda d: d.close / d.low.rolling(20).min() - 1)
reference("percent_rank(20)")(
    lambda d: d.close.rolling(21).apply(lambda w: 100 * float((w[:-1] <= w[-1]).mean()), raw=True))
reference("efficiency_ratio(10)")(lambda d: d.close.diff(10).abs() / d.close.diff().abs().rolling(10).sum())
reference("cmo(14)")(lambda d: 100 * d.close.diff().rolling(14).sum() / d.close.diff().abs().rolling(14).sum())
reference("trix(15)")(lambda d: 100 * trix_chain(d.close, 15).pct_change())
reference("choppiness(14)")(lambda d: 100 * np.log10(
    true_range(d).rolling(14).sum() / (d.high.rolling(14).max() - d.low.rolling(14).min())) / math.log10(14))
reference("parkinson(20)")(lambda d: np.sqrt((np.log(d.high / d.low) ** 2).rolling(20).mean() / (4 * math.log(2))))
reference("garman_klass(20)")(lambda d: np.sqrt((
    0.5 * np.log(d.high / d.low) ** 2 - (2 * math.log(2) - 1) * np.log(d.close / d.open) ** 2).rolling(20).mean()))
reference("rogers_satchell(20)")(lambda d: np.sqrt(rogers_satchell(d).rolling(20).mean()))
reference("realized_vol(20)")(lambda d: np.log(d.close).diff().rolling(20).std())
reference("skew(50)")(lambda d: np.log(d.close).diff().rolling(50).skew())
reference("kurtosis(50)")(lambda d: np.log(d.close).diff().rolling(50).kurt())
reference("autocorr(50,2)")(lambda d: np.log(d.close).diff().rolling(50).corr(np.log(d.close).diff().shift(2)))
reference("buy_ratio(20)")(lambda d: d.buy_volume.rolling(20).sum() / d.volume.rolling(20).sum())
reference("signed_volume(20)")(lambda d: (2 * d.buy_volume - d.volume).rolling(20).sum())
reference("trade_intensity(20)")(lambda d: d.trades.rolling(20).sum() / (20 * 60.0))
reference("trade_size(20)")(lambda d: d.volume.rolling(20).sum() / d.trades.rolling(20).sum())
reference("amihud(20)")(lambda d: 1e6 * (np.log(d.close).diff().abs() / d.notional).rolling(20).mean())
reference("book_imbalance")(lambda d: (d.bid_size - d.ask_size) / (d.bid_size + d.ask_size))
reference("spread")(lambda d: 2e4 * (d.ask - d.bid) / (d.ask + d.bid))
reference("microprice")(lambda d: 2e4 * (
    d.bid * d.ask_size + d.ask * d.bid_size) / (d.bid_size + d.ask_size) / (d.ask + d.bid) - 1e4)


def trix_chain(close: pd.Series, n: int) -> pd.Series:
    """Three averages, each from the mean of the first n closes."""
    out, one = [math.nan] * len(close), [float(close[:n].mean())] * 3
    out[n - 1] = one[2]
    for i in range(n, len(close)):
        x = close[i]
        for k in range(3):
            one[k] += 2 / (n + 1) * (x - one[k])
            x = one[k]
        out[i] = x
    return pd.Series(out)


def rogers_satchell(d: pd.DataFrame) -> pd.Series:
    return np.log(d.high / d.close) * np.log(d.high / d.open) + np.log(d.low / d.close) * np.log(d.low / d.open)


@reference("adx(14).adx")
def adx(d: pd.DataFrame) -> Answer:
    plus, minus = directional(d, 14)
    return wilder(100 * (plus - minus).abs() / (plus + minus), 14)


@reference("aroon(25).up")
def aroon_up(d: pd.DataFrame) -> Answer:
    return d.high.rolling(26).apply(lambda w: 100 * (25 - int(np.argmax(w[::-1]))) / 25, raw=True)


@reference("aroon(25).down")
def aroon_down(d: pd.DataFrame) -> Answer:
    return d.low.rolling(26).apply(lambda w: 100 * (25 - int(np.argmin(w[::-1]))) / 25, raw=True)


@reference("stochrsi(14,10,3,2).k")
def stochrsi(d: pd.DataFrame) -> Answer:
    r = rsi(d, 14)
    low, high = r.rolling(10).min(), r.rolling(10).max()
    return (100 * (r - low) / (high - low)).rolling(3).mean()


@reference("stochrsi(14,10,3,2).d")
def stochrsi_d(d: pd.DataFrame) -> Answer:
    return pd.Series(stochrsi(d)).rolling(2).mean()


@reference("mfi(14)")
def mfi(d: pd.DataFrame) -> Answer:
    typical = (d.high + d.low + d.close) / 3
    money, change = typical * d.volume, typical.diff()
    up = money.where(change > 0, 0.0).where(change.notna()).rolling(14).sum()
    down = money.where(change < 0, 0.0).where(change.notna()).rolling(14).sum()
    return 100 - 100 / (1 + up / down)


@reference("kama(10,2,30)")
def kama(d: pd.DataFrame) -> Answer:
    close, out = d.close.to_numpy(), np.full(len(d), np.nan)
    out[9] = close[9]
    for i in range(10, len(close)):
        ratio = abs(close[i] - close[i - 10]) / np.abs(np.diff(close[i - 10 : i + 1])).sum()
        out[i] = out[i - 1] + (ratio * (2 / 3 - 2 / 31) + 2 / 31) ** 2 * (close[i] - out[i - 1])
    return out


@reference("yang_zhang(20)")
def yang_zhang(d: pd.DataFrame) -> Answer:
    k = 0.34 / (1.34 + 21 / 19)
    gaps = np.log(d.open / d.close.shift()).rolling(20).var()
    bodies = np.log(d.close / d.open).rolling(20).var()
    return np.sqrt(gaps + k * bodies + (1 - k) * rogers_satchell(d).rolling(20).mean())


@reference("ewma_vol(0.94)")
def ewma_vol(d: pd.DataFrame) -> Answer:
    squares = np.log(d.close).diff()[1:] ** 2
    return np.sqrt(squares.ewm(alpha=0.06, adjust=True).mean()).reindex(d.index).where(d.index >= 17)


@reference("roll_spread(20)")
def roll_spread(d: pd.DataFrame) -> Answer:
    change = d.close.diff()
    return 2 * np.sqrt(-change.rolling(20).cov(change.shift(), ddof=0).clip(upper=0))


@reference("kyle_lambda(20)")
def kyle_lambda(d: pd.DataFrame) -> Answer:
    signed = (2 * d.buy_volume - d.volume).where(d.close.diff().notna())
    return d.close.diff().rolling(20).cov(signed) / signed.rolling(20).var()


@reference("variance_ratio(40,5)")
def variance_ratio(d: pd.DataFrame) -> Answer:
    n, q = 40, 5

    def of(w: npt.NDArray[np.float64]) -> float:
        mu = (w[-1] - w[0]) / n
        one = ((np.diff(w) - mu) ** 2).sum() / (n - 1)
        many = ((w[q:] - w[:-q] - q * mu) ** 2).sum() / (q * (n - q + 1) * (1 - q / n))
        return float(many / one)

    return np.log(d.close).rolling(n + 1).apply(of, raw=True)


@reference("hurst(50)")
def hurst(d: pd.DataFrame) -> Answer:
    lags, x = (1, 2, 4, 8, 16), np.log(d.close)
    squares = np.log(pd.concat([(x.diff(lag) ** 2).rolling(50).mean() for lag in lags], axis=1)).dropna()
    slopes = np.polyfit(np.log(lags), squares.to_numpy().T, 1)[0]
    return pd.Series(slopes / 2, squares.index).reindex(d.index)


@reference("supertrend(10,3)")
def supertrend(d: pd.DataFrame) -> Answer:
    atr, mid = wilder(true_range(d), 10), (d.high + d.low) / 2
    out, up, upper, lower = np.full(len(d), np.nan), True, math.inf, -math.inf
    for i in range(10, len(d)):
        top, bottom, last = mid[i] + 3 * atr[i], mid[i] - 3 * atr[i], d.close[i - 1]
        if i == 10:
            up, upper, lower = d.close[i] >= mid[i], top, bottom
        upper = top if top < upper or last > upper else upper
        lower = bottom if bottom > lower or last < lower else lower
        up = d.close[i] > (lower if up else upper)
        out[i] = lower if up else upper
    return out


@reference("psar(0.02,0.2)")
def psar(d: pd.DataFrame) -> Answer:
    high, low, out = d.high.tolist(), d.low.tolist(), np.full(len(d), np.nan)
    long = not (low[0] - low[1] > 0 and low[0] - low[1] > high[1] - high[0])
    sar, extreme, factor = (low[0], high[1], 0.02) if long else (high[0], low[1], 0.02)
    for i in range(1, len(d)):
        if long and low[i] <= sar:
            long, sar, extreme, factor = False, max(extreme, high[i], high[i - 1]), low[i], 0.02
        elif not long and high[i] >= sar:
            long, sar, extreme, factor = True, min(extreme, low[i], low[i - 1]), high[i], 0.02
        elif long and high[i] > extreme:
            extreme, factor = high[i], min(0.2, factor + 0.02)
        elif not long and low[i] < extreme:
            extreme, factor = low[i], min(0.2, factor + 0.02)
        out[i] = sar
        sar += factor * (extreme - sar)
        sar = min(sar, low[i], low[i - 1]) if long else max(sar, high[i], high[i - 1])
    return out


COLUMNS = ("open", "high", "low", "close", "volume", "notional", "trades", "buy_volume", "bid", "ask", "bid_size",
           "ask_size")


@pytest.mark.parametrize("column", REFERENCES)
def test_plain_reimplementation(column: str) -> None:
    rows = random_walk(300, 2, seed=11)
    values = compute_features(rows, ("A", "B"), MINUTE_NS, (column,)).values[:, 0]
    for code in range(2):
        mine = rows["symbol"] == code
        frame = pd.DataFrame({name: rows[name][mine] for name in COLUMNS})
        expected = np.asarray(REFERENCES[column](frame), np.float64)
        assert np.isfinite(expected).sum() > 150
        np.testing.assert_allclose(values[mine], expected, rtol=1e-7, atol=1e-9)


def test_calendar() -> None:
    rows = random_walk(4000, 1)
    rows["ts_open_ns"] += np.arange(4000) * 7_000 * 1_000_000_000  # 324 days, with a 29th of February
    names = tuple(name for name, found in FEATURES.items() if found.family == "calendar")
    values = dict(zip(names, compute_features(rows, ("A",), MINUTE_NS, names).values.T, strict=True))
    when = pd.to_datetime(rows["ts_open_ns"], utc=True)
    np.testing.assert_array_equal(values["hour"], when.hour)
    np.testing.assert_array_equal(values["minute_of_day"], when.hour * 60 + when.minute)
    np.testing.assert_array_equal(values["day_of_week"], when.day_of_week)
    np.testing.assert_array_equal(values["day_of_month"], when.day)
    np.testing.assert_array_equal(values["month"], when.month)
    day = (when.hour * 3600 + when.minute * 60 + when.second).to_numpy() / 86400
    week = (when.day_of_week.to_numpy() + day) / 7
    for name, turn in (("day", day), ("week", week)):
        np.testing.assert_allclose(values[f"{name}_sin"], np.sin(2 * np.pi * turn), atol=1e-12)
        np.testing.assert_allclose(values[f"{name}_cos"], np.cos(2 * np.pi * turn), atol=1e-12)


def test_vwap_starts_again_at_its_anchor() -> None:
    rows = random_walk(200, 1)
    typical = (rows["high"] + rows["low"] + rows["close"]) / 3
    frame = pd.DataFrame({"money": typical * rows["volume"], "volume": rows["volume"]})
    sums = frame.groupby(rows["ts_open_ns"] // (30 * MINUTE_NS)).cumsum()
    found = compute_features(rows, ("A",), MINUTE_NS, ("vwap(30)",)).values[:, 0]
    np.testing.assert_allclose(found, sums.money / sums.volume, rtol=1e-12)


def test_recorded_bars_without_notional_count_with_their_typical_price() -> None:
    rows = random_walk(60, 1)
    rows["notional"] = (rows["high"] + rows["low"] + rows["close"]) / 3 * rows["volume"]
    names = ("vwap_distance(20)", "amihud(20)")
    given = compute_features(rows, ("A",), MINUTE_NS, names).values
    rows["notional"] = 0.0
    np.testing.assert_array_equal(compute_features(rows, ("A",), MINUTE_NS, names).values, given)
