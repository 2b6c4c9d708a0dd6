"""The strategies operator, told as short tapes: what a bar makes a strategy want, and what happens where two disagree."""

import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from operators.market.features import compute_features
from operators.strategies.builtin import BUILTINS, builtin
from operators.strategies.documents import parse_strategies, parse_strategy
from operators.strategies.orchestrator import Strategies, allocations
from operators.strategies.rules import StrategySpec, required_features
from operators.strategies.validation import known_names
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows, Frame
from schemas.tables import ACTIONS, BARS, ENTER_LONG, ENTER_SHORT, SIGNALS, Rows

MINUTE = 60 * 10**9
DATA = Path(os.environ.get("PENSTOCK_DATA", Path(__file__).parents[2] / "shared" / "data"))
KNOWN = known_names(["up", "down", "x"])
CAUSES = SIGNALS.field("cause").labels


def strategy(body: str, name: str = "test", timeframe: str = "1m") -> StrategySpec:
    return parse_strategy(f"name: {name}\ntimeframe: {timeframe}\n{body}", "test", KNOWN)


def bars(rows: Sequence[dict[str, float]], interval_ns: int = MINUTE) -> FeatureRows:
    """Rows with any of seq, symbol, close, high, low, up, down, x; by default seq counts and high and low are the close."""
    made, names = BARS.empty(len(rows)), ("up", "down", "x")
    values = np.zeros((len(rows), len(names)))
    for i, row in enumerate(rows):
        close = row.get("close", 100.0)
        made[i]["seq"], made[i]["symbol"], made[i]["interval_ns"] = row.get("seq", i), row.get("symbol", 0), interval_ns
        made[i]["ts_event_ns"], made[i]["ts_open_ns"] = 10 * row.get("seq", i) + 1, 10 * row.get("seq", i)
        made[i]["close"], made[i]["high"], made[i]["low"] = close, row.get("high", close), row.get("low", close)
        values[i] = [row.get(name, 0.0) for name in names]
    return FeatureRows(interval_ns, names, made, values)


def signals(operator: Strategies, *features: FeatureRows, symbols: tuple[str, ...] = ("A", "B")) -> Rows:
    return operator.step(Frame("test", 0, 0, symbols, features=features)).rows(SIGNALS)


def told(rows: Rows) -> list[str]:
    """`3 exit stop` …: seq, action, cause."""
    return [f"{row['seq']} {ACTIONS[row['action']]} {CAUSES[row['cause']]}" for row in rows]


def play(body: str, rows: Sequence[dict[str, float]]) -> list[str]:
    return told(signals(Strategies([strategy(body)]), bars(rows)))


UP = {"up": 1.0}
DOWN = {"down": 1.0}
CALM: dict[str, float] = {}
LONG = "entry: up > 0\n"
BOTH = "entry: {long: up > 0, short: down > 0}\n"


def test_an_entry_and_its_exit() -> None:
    assert play(LONG + "exit: down > 0", [CALM, UP, UP, DOWN, CALM]) == ["1 enter_long entry", "3 exit exit"]


def test_an_exit_wins_over_an_entry_on_the_same_bar() -> None:
    either = {"up": 1.0, "down": 1.0}
    assert play(LONG + "exit: down > 0", [either, UP, either, UP]) == ["1 enter_long entry", "2 exit exit", "3 enter_long entry"]


def test_an_opposite_entry_reverses_in_two_slots() -> None:
    rows = signals(Strategies([strategy(BOTH)]), bars([UP, DOWN, UP]))
    assert told(rows) == ["0 enter_long entry", "1 exit entry", "1 enter_short entry", "2 exit entry", "2 enter_long entry"]
    assert list(rows["slot"]) == [0, 0, 1, 0, 1]


def test_both_entries_at_once_are_neither() -> None:
    assert play(BOTH, [{"up": 1.0, "down": 1.0}]) == []


def test_a_cooldown_skips_bars_and_the_reversal() -> None:
    assert play(BOTH + "cooldown_bars: 2", [UP, DOWN, DOWN, DOWN, DOWN]) == [
        "0 enter_long entry", "1 exit entry", "4 enter_short entry"]


def test_the_hold_limit_counts_bars_after_the_entry() -> None:
    rows = signals(Strategies([strategy(LONG + "hold_bars: 2")]), bars([UP, CALM, CALM]))
    assert told(rows) == ["0 enter_long entry", "2 exit hold"]
    assert set(rows["hold_ns"]) == {2 * MINUTE}


@pytest.mark.parametrize(("side", "away"), [(UP, 1), (DOWN, -1)])
def test_stop_and_target_are_touched_by_the_bars_range(side: dict[str, float], away: int) -> None:
    body = BOTH + "stop: {distance: 5}\ntarget: {percent: 10}"

    def bar(first: float, second: float) -> dict[str, float]:
        ends = sorted([100 + away * first, 100 + away * second])
        return {"low": ends[0], "high": ends[1]}

    assert play(body, [side, bar(-4.9, 9.9), bar(-5, 9.9)])[1:] == ["2 exit stop"]
    assert play(body, [side, bar(-4.9, 9.9), bar(-4.9, 10)])[1:] == ["2 exit target"]
    assert play(body, [side, bar(-5, 10)])[1:] == ["1 exit stop"]
    row = signals(Strategies([strategy(body)]), bars([side]))[0]
    assert (row["stop"], row["target"], row["price"]) == (100 - 5 * away, 100 + 10 * away, 100)
    assert math.isnan(row["trail"])


def test_the_entry_bars_own_range_does_not_stop_it() -> None:
    assert play(LONG + "stop: {distance: 5}", [{"up": 1.0, "low": 50.0}, CALM]) == ["0 enter_long entry"]


def test_a_trail_follows_the_best_price_and_moves_after_the_check() -> None:
    body = LONG + "trail: {distance: 5}"
    assert play(body, [UP, {"low": 96, "high": 110}, {"low": 105.5}, {"low": 105}]) == ["0 enter_long entry", "3 exit stop"]
    assert play(body, [UP, {"low": 95, "high": 110}]) == ["0 enter_long entry", "1 exit stop"]


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, 100.0, 1e9])
def test_no_entry_without_the_declared_protection(value: float) -> None:
    assert play(LONG + "stop: {distance: x}", [{"up": 1.0, "x": value}]) == []
    assert play(LONG + "stop: {distance: x}", [{"up": 1.0, "x": 1.0}]) == ["0 enter_long entry"]


def test_a_price_level_on_the_wrong_side_forbids_the_entry() -> None:
    body = LONG + "target: {price: x}\nstop: {percent: 50}"
    assert play(body, [{"up": 1.0, "x": 99.0}, {"up": 1.0, "x": 100.0}, {"up": 1.0, "x": 101.0}]) == ["2 enter_long entry"]


def test_unknown_values_make_no_condition_true() -> None:
    unknown = {"x": math.nan}
    for rule in ("x < 1", "x != 1", "not x < 1", "not (x < 1 or x > 1)", "crosses_above(x, 1)",
                 "not crosses_above(x, 1)", "max(x, 5) > 1", "close / down > 1"):
        assert play(f"entry: {rule}\nhold_bars: 9", [unknown, unknown]) == [], rule


def test_a_crossing_needs_two_known_values_and_may_start_from_equal() -> None:
    def crossing(*values: float) -> list[str]:
        return play("entry: crosses_above(x, 1)\nhold_bars: 1", [{"x": v} for v in values])

    assert crossing(2) == []
    assert crossing(math.nan, 2) == []
    assert crossing(0, math.nan, 2) == []
    assert crossing(1, 2) == ["1 enter_long entry"]
    assert crossing(0, 1, 2) == ["2 enter_long entry"]


def test_lag_counts_bars_of_the_symbol() -> None:
    rows = [{"x": 1.0}, {"x": 7.0, "symbol": 1}, {"x": 2.0}, {"x": 3.0}]
    assert play("entry: lag(x, 2) == 1\nhold_bars: 1", rows) == ["3 enter_long entry"]


def test_another_timeframe_is_known_when_its_bar_closed() -> None:
    """The 5m bar closed by row 4 is known to the 1m bar of row 4, not to that of row 3, and only for its own symbol."""
    spec = strategy("entry: 5m:x > 0 and close > 0\nexit: 5m:close < 100\nhold_bars: 99")
    fast = bars([{"seq": 3}, {"seq": 4, "symbol": 1}, {"seq": 4}, {"seq": 9}])
    slow = bars([{"seq": 2, "x": -1.0}, {"seq": 4, "x": 1.0}, {"seq": 8, "x": 1.0, "close": 99.0}], 5 * MINUTE)
    assert required_features([spec]) == {MINUTE: (), 5 * MINUTE: ("x",)}
    assert told(signals(Strategies([spec]), fast, slow)) == ["4 enter_long entry", "9 exit exit"]


def test_a_frame_with_bars_of_the_other_timeframe_alone_is_remembered() -> None:
    operator = Strategies([strategy("entry: 5m:x > 0\nhold_bars: 1")])
    empty = bars([])
    assert len(signals(operator, empty, bars([{"seq": 1, "x": 1.0}], 5 * MINUTE))) == 0
    assert told(signals(operator, bars([{"seq": 2}]))) == ["2 enter_long entry"]


def two(conflict: str) -> Strategies:
    text = """
- {name: bull, timeframe: 1m, entry: {long: up > 0}, hold_bars: 3, limits: {allocation: 0.6}}
- {name: bear, timeframe: 1m, entry: {short: down > 0}, hold_bars: 3, limits: {allocation: 0.4}}
"""
    return Strategies(parse_strategies(text, "two", KNOWN), conflict=conflict)


@pytest.mark.parametrize(("conflict", "bear_first", "bull_first"), [
    ("independent", [(0, 1, 1.0), (1, 0, 1.0)], [(0, 0, 1.0), (1, 1, 1.0)]),
    ("first", [(0, 1, 1.0), (1, 0, 0.0)], [(0, 0, 1.0), (1, 1, 0.0)]),
    ("priority", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.0)], [(0, 0, 1.0), (1, 1, 0.0)]),
    ("net", [(0, 1, 1.0), (1, 0, 1.0)], [(0, 0, 1.0), (1, 1, 0.0)]),
])
def test_where_two_strategies_disagree(conflict: str, bear_first: list[Any], bull_first: list[Any]) -> None:
    """(seq, strategy, strength): an overruled entry is there, with strength 0."""
    for rows, expected in (([DOWN, UP], bear_first), ([UP, DOWN], bull_first)):
        got = signals(two(conflict), bars(rows))
        assert [(row["seq"], row["strategy"], row["strength"]) for row in got] == expected
    other_symbol = signals(two(conflict), bars([UP, {"down": 1.0, "symbol": 1}]))
    assert list(other_symbol["strength"]) == [1.0, 1.0]


def test_strategies_of_several_timeframes_come_out_in_tape_order() -> None:
    slow = strategy("entry: up > 0\nhold_bars: 1", "slow", "5m")
    fast = strategy("entry: up > 0\nhold_bars: 1", "fast")
    got = signals(Strategies([slow, fast]), bars([{**UP, "seq": 1}, {**UP, "seq": 2}]), bars([{**UP, "seq": 2}], 5 * MINUTE))
    assert [(row["seq"], row["strategy"], row["interval_ns"] // MINUTE) for row in got] == [(1, 1, 1), (2, 0, 5), (2, 1, 1)]


def test_a_frame_without_bars_comes_back_as_it_is() -> None:
    frame = Frame("test", 0, 0, ())
    assert Strategies([strategy(LONG + "hold_bars: 1")]).step(frame) is frame


def test_signals_do_not_change_when_the_operator_goes_on() -> None:
    operator = Strategies([strategy(BOTH)])
    first = signals(operator, bars([UP, DOWN]))
    before = first.tobytes()
    signals(operator, bars([{**UP, "seq": 2}, {**DOWN, "seq": 3}]))
    assert first.tobytes() == before


def test_a_snapshot_is_picklable_and_stays() -> None:
    operator = Strategies([strategy("entry: crosses_above(x, 1) and lag(x, 2) < 5m:x\nhold_bars: 1")])
    signals(operator, bars([{"x": 0.0}]))
    saved = operator.snapshot()
    before = pickle.dumps(saved)
    signals(operator, bars([{"x": 2.0, "seq": 1, "symbol": 1}]))
    assert pickle.dumps(saved) == before


def test_mistakes_of_the_set_up() -> None:
    one = strategy(LONG + "hold_bars: 1")
    with pytest.raises(UserError, match='strategy "test" is given twice'):
        Strategies([one, one])
    with pytest.raises(UserError, match="0 strategies; give 1 to 64"):
        Strategies([])
    with pytest.raises(UserError, match='unknown conflict rule "frist"; did you mean "first"'):
        Strategies([one], conflict="frist")
    lacking = FeatureRows(MINUTE, ("down",), BARS.empty(1), np.zeros((1, 1)))
    with pytest.raises(PenstockError, match='no feature "up" on 1m'):
        signals(Strategies([one]), lacking)


def test_allocations() -> None:
    def named(*shares: float | None) -> list[StrategySpec]:
        return [strategy(LONG + "hold_bars: 1" + (f"\nlimits: {{allocation: {share}}}" if share else ""), f"s{k}")
                for k, share in enumerate(shares)]

    assert allocations(named(None)) == (1.0,)
    assert allocations(named(None, None, None)) == (0.4, 0.3, 0.3)
    assert allocations(named(*[None] * 4)) == (0.25,) * 4
    assert allocations(named(0.5, None, None)) == (0.5, 0.25, 0.25)
    for shares in ((0.7, 0.5), (1.0, None)):
        with pytest.raises(UserError, match="make them at most 1 in all"):
            allocations(named(*shares))


def recorded(symbol: str) -> Rows:
    path = DATA / "bars" / "spot_1m_2021-04_05" / f"{symbol}.parquet"
    if not path.exists():
        pytest.skip(f"no recorded bars at {path}; set PENSTOCK_DATA")
    table = pd.read_parquet(path)
    rows = BARS.empty(len(table))
    for name in ("open", "high", "low", "close", "volume"):
        rows[name] = table[name]
    rows["interval_ns"] = MINUTE
    rows["ts_open_ns"] = table["timestamp"].dt.as_unit("ns").astype("int64")
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + MINUTE
    rows["seq"] = rows["first_seq"] = rows["last_seq"] = np.arange(len(table))
    rows["trades"] = 1
    rows["vwap"] = rows["close"]
    return rows


def test_ema_cross_on_recorded_bars_is_what_pandas_says() -> None:
    rows = recorded("BTCUSDT")
    spec = builtin("ema_cross")
    features = compute_features(rows, ("BTCUSDT",), MINUTE, required_features([spec])[MINUTE])
    got = signals(Strategies([spec]), features, symbols=("BTCUSDT",))
    close = pd.Series(rows["close"].copy())

    def ema(length: int) -> pd.Series:
        """The EMA that starts from the mean of the first `length` closes."""
        seeded = close.copy()
        seeded.iloc[: length - 1] = np.nan
        seeded.iloc[length - 1] = close.iloc[:length].mean()
        return seeded.ewm(span=length, adjust=False).mean()

    fast, slow = ema(10), ema(30)
    above = (fast > slow) & (fast.shift() <= slow.shift())
    below = (fast < slow) & (fast.shift() >= slow.shift())
    assert len(got) > 1000
    assert list(got["seq"][got["action"] == ENTER_LONG]) == list(np.flatnonzero(above))
    assert list(got["seq"][got["action"] == ENTER_SHORT]) == list(np.flatnonzero(below))
    entries = got[got["cause"] == 0]
    assert np.array_equal(entries["price"], rows["close"][entries["seq"]])


def test_the_built_ins_all_trade_on_recorded_bars() -> None:
    """And each signal is what the strategy's own levels say."""
    rows = recorded("ETHUSDT")[:20_000]
    specs = [builtin(name) for name in BUILTINS]
    features = compute_features(rows, ("ETHUSDT",), MINUTE, required_features(specs)[MINUTE])
    got = signals(Strategies(specs), features, symbols=("ETHUSDT",))
    assert {BUILTINS[k] for k in got["strategy"]} == set(BUILTINS)
    longs = got[got["action"] == ENTER_LONG]
    assert not (longs["stop"] >= longs["price"]).any()
    assert not (longs["target"] <= longs["price"]).any()
    for k in range(len(specs)):
        mine = got[got["strategy"] == k]
        opens = np.cumsum(np.where(mine["action"] <= ENTER_SHORT, 1, -1))
        assert set(opens) == {0, 1}
