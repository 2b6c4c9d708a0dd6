"""Bars: against a slow reference, against recorded bars, and the laws: batch, resume, prefix, conservation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators.market.bars import Bars, BarsConfig, check_recorded
from schemas.errors import UserError
from schemas.tables import BARS, BEATS, LATE, QUOTES, RECORDED, TRADES
from tests.bars_reference import SlowBars, table
from tests.market_tapes import MINUTE, SECOND, bar_rows, frames, random_tape, recorded_file, rows_of, run, same, time_ns

CONFIG = BarsConfig((MINUTE, SECOND, 5 * MINUTE, 90 * SECOND), (3, 10), volume_bars=(500.0,), dollar_bars=(1e5,))
TABLES = st.sampled_from([
    ("trades",), ("quotes",), ("trades", "quotes"), ("trades", "beats"), ("quotes", "beats"),
    ("trades", "quotes", "beats"),
])
ALL = ("trades", "quotes", "recorded", "beats")
LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEED = st.integers(0, 2**32 - 1)


@LAW
@given(seed=SEED, tables=TABLES, symbols=st.integers(1, 3), late=st.sampled_from([0.0, 0.1]))
def test_bars_and_late_rows_are_those_of_the_slow_reference(seed: int, tables: Any, symbols: int, late: float) -> None:
    tape = random_tape(seed, 300, symbols, tables, late)
    bars, late_rows = run(Bars(CONFIG), frames(tape, symbols), BARS, LATE)
    slow = SlowBars(CONFIG).feed(tape)
    assert same(bars, table(slow.bars))
    assert same(late_rows, table(slow.late, LATE.dtype))


@LAW
@given(seed=SEED, cuts=st.lists(st.integers(0, 900), max_size=20))
def test_batch_law(seed: int, cuts: list[int]) -> None:
    tape = random_tape(seed, 300, 3, ALL)
    whole = run(Bars(CONFIG), frames(tape, 3), BARS, LATE)
    parts = run(Bars(CONFIG), frames(tape, 3, cuts), BARS, LATE)
    assert all(map(same, whole, parts))


def test_one_row_a_frame() -> None:
    tape = random_tape(1, 400, 3, ALL)
    whole = run(Bars(CONFIG), frames(tape, 3), BARS, LATE)
    assert len(whole[0]) > 100 and len(whole[1]) > 5
    assert all(map(same, whole, run(Bars(CONFIG), frames(tape, 3, range(1250)), BARS, LATE)))


@LAW
@given(seed=SEED, cut=st.integers(0, 900))
def test_resume_law(seed: int, cut: int) -> None:
    tape = random_tape(seed, 300, 3, ALL)
    first, rest = frames(tape, 3, [cut])
    stopped, fresh = Bars(CONFIG), Bars(CONFIG)
    head = run(stopped, [first], BARS, LATE)
    saved = stopped.snapshot()
    run(stopped, [rest], BARS)  # later steps do not change what was saved
    fresh.restore(saved)
    tail = run(fresh, [rest], BARS, LATE)
    whole = run(Bars(CONFIG), frames(tape, 3), BARS, LATE)
    assert all(same(np.concatenate([a, b]), c) for a, b, c in zip(head, tail, whole, strict=True))


@LAW
@given(seed=SEED, cut=st.integers(0, 900))
def test_prefix_law(seed: int, cut: int) -> None:
    tape = random_tape(seed, 300, 3, ALL)
    bars, late = run(Bars(CONFIG), frames(tape, 3), BARS, LATE)
    prefix = {name: rows[rows["seq"] < cut] for name, rows in tape.items()}
    early, early_late = run(Bars(CONFIG), frames(prefix, 3), BARS, LATE)
    assert same(early, bars[bars["seq"] < cut])
    assert same(early_late, late[late["seq"] < cut])


@LAW
@given(seed=SEED, symbols=st.integers(1, 3))
def test_bars_and_late_and_open_hold_every_trade(seed: int, symbols: int) -> None:
    tape = random_tape(seed, 400, symbols, ("trades", "beats"), 0.1)
    tape["trades"]["size"] = np.round(tape["trades"]["size"])  # whole sizes add up exactly
    operator = Bars(CONFIG)
    bars, late = run(operator, frames(tape, symbols), BARS, LATE)
    left = operator.open_bars()
    for at, (kind, length) in enumerate(((0, SECOND), (0, MINUTE), (0, 90 * SECOND), (0, 5 * MINUTE), (1, 3), (1, 10))):
        closed = bars[(bars["bar_kind"] == kind) & (bars["interval_ns"] == length)]
        unfinished = left[left["open_now"][:, at] == 1][:, at]
        assert closed["volume"].sum() + unfinished["volume"].sum() + late["size"].sum() == tape["trades"]["size"].sum()
        assert closed["trades"].sum() + unfinished["trades"].sum() + len(late) == len(tape["trades"])


@LAW
@given(seed=SEED)
def test_a_bar_never_reopens_and_bars_come_in_order(seed: int) -> None:
    bars, _ = run(Bars(CONFIG), frames(random_tape(seed, 500, 3, ("trades", "quotes", "beats"), 0.2), 3), BARS, LATE)
    order = bars[["seq", "symbol", "bar_kind", "interval_ns"]]
    assert (np.argsort(order, order=order.dtype.names, kind="stable") == np.arange(len(bars))).all()
    timed = bars[bars["bar_kind"] == 0]
    assert (timed["ts_event_ns"] >= timed["ts_close_ns"]).all()
    for symbol in range(3):
        for length in CONFIG.intervals_ns:
            own = timed[(timed["symbol"] == symbol) & (timed["interval_ns"] == length)]
            assert (own["ts_open_ns"][1:] - own["ts_close_ns"][:-1] == own["gap"][1:] * length).all()


def test_what_a_bar_says() -> None:
    tape = {
        "trades": rows_of(TRADES, [
            {"seq": 1, "ts_event_ns": 5 * SECOND, "price": 10.0, "size": 2.0, "side": 1},
            {"seq": 3, "ts_event_ns": 30 * SECOND, "price": 12.0, "size": 1.0, "side": 2},
            {"seq": 4, "ts_event_ns": MINUTE, "price": 9.0, "size": 5.0, "side": 1},  # on the boundary: the next bar's
            {"seq": 6, "ts_event_ns": 59 * SECOND, "price": 7.0, "size": 4.0},  # too late
        ]),
        "quotes": rows_of(QUOTES, [
            {"seq": 2, "ts_event_ns": 6 * SECOND, "bid": 9.5, "ask": 10.5, "bid_size": 3.0, "ask_size": 4.0},
            {"seq": 5, "ts_event_ns": 61 * SECOND, "bid": 8.5, "ask": 0.0, "bid_size": 1.0},
        ]),
        "beats": rows_of(BEATS, [
            {"seq": 7, "ts_event_ns": 119 * SECOND, "symbol": -1},
            {"seq": 8, "ts_event_ns": 120 * SECOND, "symbol": -1},
        ]),
    }
    bars, late = run(Bars(), frames(tape, 1), BARS, LATE)
    first, second = bars
    assert (first["open"], first["high"], first["low"], first["close"]) == (10, 12, 10, 12)
    assert (first["volume"], first["notional"], first["vwap"]) == (3, 32, 32 / 3)
    assert (first["trades"], first["buy_volume"]) == (2, 2)
    assert (first["ts_event_ns"], first["seq"], first["ts_open_ns"], first["ts_close_ns"]) == (MINUTE, 4, 0, MINUTE)
    assert (first["bid"], first["ask"], first["bid_size"], first["ask_size"], first["gap"]) == (9.5, 10.5, 3, 4, 0)
    assert (first["first_seq"], first["last_seq"], first["ts_first_ns"], first["ts_last_ns"]) == (1, 3, 5e9, 30e9)
    assert (second["seq"], second["ts_event_ns"], second["bid"], second["ask"]) == (8, 2 * MINUTE, 8.5, 10.5)
    assert late[["seq", "price", "size", "frontier_ns"]].tolist() == [(6, 7.0, 4.0, 61 * SECOND)]


def test_a_first_trade_ends_the_bars_of_quotes() -> None:
    quote = {"bid": 9.0, "ask": 11.0, "bid_size": 1.0, "ask_size": 1.0}
    tape = {
        "quotes": rows_of(QUOTES, [{"seq": k, "ts_event_ns": k * 20 * SECOND, **quote} for k in range(5)]),
        "trades": rows_of(TRADES, [{"seq": 9 + k, "ts_event_ns": (100 + 30 * k) * SECOND, "price": 5.0, "size": 1.0}
                                   for k in range(2)]),
    }
    (bars,) = run(Bars(), frames(tape, 1), BARS)
    assert bars[["ts_open_ns", "open", "low", "volume", "trades"]].tolist() == [(0, 10, 10, 0, 0), (MINUTE, 5, 5, 1, 1)]
    assert np.isnan(bars["buy_volume"][1]) and bars["bid"][1] == 9


def minutes(listed: list[int], **more: Any) -> Any:
    """Recorded 1-minute bars, by the minute in which they open; the price is that minute."""
    return rows_of(RECORDED, [
        {"seq": at, "ts_event_ns": (m + 1) * MINUTE, "interval_ns": MINUTE, "ts_open_ns": m * MINUTE,
         "ts_close_ns": (m + 1) * MINUTE,
         "open": m, "high": m + 2, "low": m - 2, "close": m + 1, "volume": 1, "notional": m, "trades": 2, "bid": np.nan,
         "ask": np.nan, **more} for at, m in enumerate(listed)])


def test_recorded_bars_pass_through_and_aggregate_upward() -> None:
    listed = [*range(2, 15), 20, 21, 41]
    tape = {"recorded": minutes(listed), "beats": rows_of(BEATS, [
        {"seq": 99, "ts_event_ns": 45 * MINUTE, "symbol": -1},  # the bar that completes the last one may still come
        {"seq": 100, "ts_event_ns": 46 * MINUTE, "symbol": -1},
    ])}
    bars, late = run(Bars(BarsConfig((5 * MINUTE, SECOND, 90 * SECOND))), frames(tape, 1), BARS, LATE)
    passed, longer = bars[bars["interval_ns"] == MINUTE], bars[bars["interval_ns"] == 5 * MINUTE]
    assert len(late) == 0 and len(passed) + len(longer) == len(bars)
    recorded = tape["recorded"]
    assert passed["close"].tolist() == recorded["close"].tolist() and passed["gap"].tolist() == [0] * 13 + [5, 0, 19]
    assert longer["ts_open_ns"].tolist() == [k * 5 * MINUTE for k in (0, 1, 2, 4, 8)]
    assert longer["seq"].tolist() == [2, 7, 12, 15, 100] and longer["gap"].tolist() == [0, 0, 0, 1, 3]
    columns = ["open", "high", "low", "close", "volume", "notional", "trades"]
    assert longer[columns][1].tolist() == (5, 11, 3, 10, 5, 35, 10)


def test_a_recorded_bar_that_comes_again_is_late() -> None:
    tape = {"recorded": minutes([0, 1, 1, 0, 2, 3, 4])}
    bars, late = run(Bars(BarsConfig((5 * MINUTE,))), frames(tape, 1), BARS, LATE)
    assert late["seq"].tolist() == [2, 3]
    assert bars[bars["interval_ns"] == 5 * MINUTE]["volume"].tolist() == [5]


def test_live_trades_continue_recorded_history() -> None:
    trades = rows_of(TRADES, [{"seq": 50 + m, "ts_event_ns": m * MINUTE + SECOND, "price": 7.0, "size": 1.0}
                              for m in range(2, 12)])
    tape = {"recorded": minutes([0, 1, 2]), "trades": trades}
    bars, late = run(Bars(BarsConfig((MINUTE, 5 * MINUTE))), frames(tape, 1), BARS, LATE)
    assert late["seq"].tolist() == [52]  # the recorded bar holds that minute
    assert bars[bars["interval_ns"] == MINUTE]["ts_open_ns"].tolist() == [m * MINUTE for m in range(11)]
    assert bars[bars["interval_ns"] == 5 * MINUTE][["volume", "trades"]].tolist() == [(5, 8), (5, 5)]


def test_trades_aggregate_to_the_recorded_bars_exactly() -> None:
    source = recorded_file("trades/XRPETH_20191011_13.parquet")
    trades = TRADES.empty(len(source))
    trades["ts_event_ns"] = time_ns(source["timestamp"])
    trades["seq"] = np.arange(len(source))
    for name in ("price", "size"):
        trades[name] = source[name]
    operator = Bars(BarsConfig((MINUTE, 5 * MINUTE)))
    (bars,) = run(operator, frames({"trades": trades}, 1, range(0, 12_477, 997)), BARS)
    names = ["open", "high", "low", "close", "volume"]
    for at, (length, path) in enumerate(((MINUTE, "1m"), (5 * MINUTE, "5m"))):
        expected = recorded_file(f"trades/XRPETH_bars_{path}.parquet")
        own = np.concatenate([bars[bars["interval_ns"] == length][["ts_open_ns", *names]],
                              operator.open_bars()[:, at][["ts_open_ns", *names]]])
        assert (own["ts_open_ns"] == time_ns(expected["timestamp"])).all()
        for name in names:
            assert (own[name] == expected[name].to_numpy()).all()


def test_recorded_minutes_aggregate_to_hours_and_show_the_halts() -> None:
    for symbol in ("BTCUSDT", "SOLUSDT"):
        source = recorded_file(f"bars/spot_1m_2021-04_05/{symbol}.parquet")
        rows = bar_rows(source, MINUTE)
        bars, late = run(Bars(BarsConfig((MINUTE, 60 * MINUTE))), frames({"recorded": rows}, 1), BARS, LATE)
        assert len(late) == 0
        passed, hours = bars[bars["interval_ns"] == MINUTE], bars[bars["interval_ns"] == 60 * MINUTE]
        assert len(passed) == len(rows) and (passed["close"] == rows["close"]).all()
        halts = np.sort(passed["gap"])[-2:] / 60
        assert halts == pytest.approx([2.5, 4.7], abs=0.1) and (hours["gap"] > 0).sum() == 2
        expected = source.groupby(rows["ts_open_ns"] // (60 * MINUTE)).agg(
            {"open": "first", "high": "max", "low": "min", "close": "last"}).iloc[: len(hours)]
        for name in ("open", "high", "low", "close"):
            assert (hours[name] == expected[name].to_numpy()).all()
        assert hours["volume"].sum() == pytest.approx(rows["volume"][: hours["last_seq"][-1] + 1].sum(), rel=1e-12)


def test_bars_off_the_hour_are_taken_as_they_are() -> None:
    source = recorded_file("bars/spot_1h_2017_2021/LTCUSDT.parquet").iloc[1300:1500]
    tape = {"recorded": bar_rows(source, 60 * MINUTE)}
    bars, late = run(Bars(BarsConfig((240 * MINUTE,))), frames(tape, 1), BARS, LATE)
    hours, longer = bars[bars["interval_ns"] == 60 * MINUTE], bars[bars["interval_ns"] == 240 * MINUTE]
    assert len(late) == 0 and len(hours) == 200
    assert (longer["ts_open_ns"] % (240 * MINUTE) == 0).all() and (np.diff(longer["ts_open_ns"]) > 0).all()


def test_configuration_says_what_is_wrong() -> None:
    wrong: list[dict[str, Any]] = [
        {"intervals_ns": ()}, {"intervals_ns": (MINUTE, MINUTE)}, {"intervals_ns": (1000,)}, {"intervals_ns": (6e10,)},
        {"tick_bars": (0,)}, {"volume_bars": (-1.0,)}, {"dollar_bars": (float("nan"),)}, {"volume_bars": (1e11,)},
        {"tick_bars": tuple(range(1, 80))},
    ]
    for config in wrong:
        with pytest.raises(UserError, match="bars"):
            BarsConfig(**config)
    with pytest.raises(UserError, match=r"1 s cannot be made from recorded bars of 60 s"):
        check_recorded(BarsConfig((SECOND,)), MINUTE)
    check_recorded(BarsConfig((MINUTE, 5 * MINUTE)), MINUTE)
    with pytest.raises(UserError, match="restore"):
        Bars().restore(Bars(CONFIG).snapshot())


def test_a_symbol_outside_the_frame_is_an_error_not_a_crash() -> None:
    for name, spec in (("trades", TRADES), ("quotes", QUOTES), ("recorded", RECORDED), ("beats", BEATS)):
        with pytest.raises(IndexError, match="symbol"):
            run(Bars(), frames({name: rows_of(spec, [{"seq": 1, "symbol": 7}])}, 2), BARS)


def test_rows_that_are_read_only_or_a_view_give_the_same_bars() -> None:
    tape = random_tape(3, 300, 1, ("trades",))
    (whole,) = run(Bars(), frames(tape, 1), BARS)
    wide = np.repeat(tape["trades"], 2)
    frozen = tape["trades"].copy()
    frozen.flags.writeable = False
    for rows in (wide[::2], frozen):
        frame = frames({}, 1)[0].with_tables(trades=rows)
        assert same(run(Bars(), [frame], BARS)[0], whole)
