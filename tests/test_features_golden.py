"""Features against independent answers, those of Skender.Stock.Indicators, to 1e-6 from the first value on."""

import numpy as np
import pytest

from operators.market.features import compute_features
from tests.features_market import DATA, DAY_NS, answers, recorded

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no recorded indicators in {DATA}; set PENSTOCK_DATA")

SAME = [
    ("true_range", "atr", "tr"), ("atr(14)", "atr", "atr"), ("natr(14)", "atr", "atrp"),
    ("bollinger(20,2).middle", "bb", "sma"), ("bollinger(20,2).upper", "bb", "upperBand"),
    ("bollinger(20,2).lower", "bb", "lowerBand"), ("bollinger(20,2).percent_b", "bb", "percentB"),
    ("bollinger(20,2).width", "bb", "width"), ("zscore(20)", "bb", "zScore"), ("cci(20)", "cci", "cci"),
    ("dema(14)", "dema", "dema"), ("donchian(20).upper", "donchian", "upperBand"),
    ("donchian(20).middle", "donchian", "centerline"), ("donchian(20).lower", "donchian", "lowerBand"),
    ("donchian(20).width", "donchian", "width"), ("ema(20)", "ema", "ema"), ("ema(12)", "macd", "fastEma"),
    ("ema(26)", "macd", "slowEma"), ("macd(12,26,9).macd", "macd", "macd"),
    ("macd(12,26,9).signal", "macd", "signal"), ("macd(12,26,9).histogram", "macd", "histogram"),
    ("obv", "obv", "obv"), ("roc(14)", "roc", "roc"), ("mom(14)", "roc", "momentum"), ("rsi(14)", "rsi", "rsi"),
    ("sma(20)", "sma", "sma"), ("slope(14).slope", "slope", "slope"), ("slope(14).r2", "slope", "rSquared"),
    ("stdev(14)", "stdev", "stdDev"), ("sma(14)", "stdev", "mean"), ("zscore(14)", "stdev", "zScore"),
    ("stoch(14,3,3).k", "stoch", "k"), ("stoch(14,3,3).d", "stoch", "d"), ("tema(20)", "tema", "tema"),
    ("vwap", "vwap", "vwap"), ("vwma(14)", "vwma", "vwma"), ("willr(14)", "willr", "williamsR"),
    ("wma(14)", "wma", "wma"),
]


@pytest.mark.parametrize(("feature", "indicator", "output"), SAME)
def test_independent_answers(feature: str, indicator: str, output: str) -> None:
    ours = compute_features(recorded(), ("SPY",), DAY_NS, (feature,)).values[:, 0]
    np.testing.assert_allclose(ours, answers(indicator)[output], rtol=1e-9, atol=1e-6)


def test_line_of_the_slope() -> None:
    """Theirs counts x from 1 at the first bar of the file, ours from 0 at the oldest bar of the window."""
    rows = recorded()
    names = ("slope(14).slope", "slope(14).intercept", "slope(14).line")
    slope, intercept, line = compute_features(rows, ("SPY",), DAY_NS, names).values.T
    x = np.arange(1, len(rows) + 1)
    theirs = answers("slope")
    np.testing.assert_allclose(intercept, theirs["intercept"] + theirs["slope"] * (x - 13), rtol=1e-9)
    np.testing.assert_allclose(line, intercept + 13 * slope, rtol=1e-12)
    assert line[-1] == pytest.approx(theirs["line"][-1], abs=1e-6)
