"""Quality: every reason by example, recorded data that must pass, and the laws: batch, resume, prefix, conservation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators.market.quality import Quality, QualityConfig
from schemas.errors import UserError
from schemas.tables import NO_TRADE_ID, QUOTES, RECORDED, REJECT_REASONS, REJECTED, TRADES
from tests.market_tapes import DATA, MINUTE, bar_rows, frames, random_tape, recorded_file, rows_of, run, same, time_ns

ALL = ("trades", "quotes", "recorded")
CLEAN = (TRADES, QUOTES, RECORDED)
SMALL = QualityConfig(duplicate_ids=16, out_of_order_ns=10**10, score_rows=20)
LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEED = st.integers(0, 2**32 - 1)


def reasons(spec: Any, listed: list[dict[str, Any]], config: QualityConfig | None = None) -> list[str]:
    """Why each row was dropped, "" where it was not; the rows get their place as `seq`, and defaults that are good."""
    good: dict[str, dict[str, Any]] = {
        "trades": {"price": 10.0, "size": 1.0},
        "quotes": {"bid": 9.0, "ask": 11.0, "bid_size": 1.0, "ask_size": 1.0},
        "recorded": {"open": 10.0, "high": 12.0, "low": 8.0, "close": 11.0, "volume": 1.0, "interval_ns": MINUTE},
    }
    rows = rows_of(spec, [{**good[spec.name], "seq": at, **row} for at, row in enumerate(listed)])
    if spec is RECORDED:
        unset = rows["ts_close_ns"] == 0
        rows["ts_open_ns"][unset] = rows["seq"][unset] * MINUTE
        rows["ts_close_ns"][unset] = rows["ts_event_ns"][unset] = rows["ts_open_ns"][unset] + rows["interval_ns"][unset]
    (rejected,) = run(Quality(config), frames({spec.name: rows}, 1), REJECTED)
    why = dict(zip(rejected["seq"].tolist(), rejected["reason"].tolist(), strict=True))
    return [REJECT_REASONS[why[at]] if at in why else "" for at in range(len(rows))]


def test_trades_that_cannot_be_true() -> None:
    nan, inf = float("nan"), float("inf")
    assert reasons(TRADES, [
        {}, {"price": 0.0}, {"price": -1.0}, {"size": 0.0}, {"price": nan}, {"size": inf}, {"price": inf},
        {"size": -1.0}, {"flags": 1}, {"flags": 2},
    ]) == ["", "not_positive", "not_positive", "not_positive", "not_finite", "not_finite", "not_finite", "not_positive",
           "suspicious", ""]


def test_equal_prints_are_genuine_and_equal_ids_are_not() -> None:
    ids = [-1, -1, 5, 6, 5, 9, 7, 7, 8, 6, 9]
    why = reasons(TRADES, [{"trade_id": x} for x in ids])
    assert [at for at, reason in enumerate(why) if reason == "duplicate"] == [4, 7, 9, 10]
    assert set(why) == {"", "duplicate"}


@LAW
@given(ids=st.lists(st.integers(-40, 40), max_size=200), scale=st.sampled_from([1, 1000, 2**20, 2**40 + 1]))
def test_an_id_within_the_window_is_found(ids: list[int], scale: int) -> None:
    """An id among the last 16 accepted is a duplicate; one that was never seen is not."""
    ids = [i * scale for i in ids if i * scale != NO_TRADE_ID]
    why = reasons(TRADES, [{"trade_id": i} for i in ids], QualityConfig(duplicate_ids=16))
    accepted: list[int] = []
    for i, reason in zip(ids, why, strict=True):
        if i in accepted[-16:]:
            assert reason == "duplicate"
        if i not in accepted:
            assert reason == ""
        if reason == "":
            accepted.append(i)


def test_rows_out_of_order() -> None:
    times = [{"ts_event_ns": ts} for ts in (100, 100, 99, 150, 140, 139)]
    for spec in (TRADES, QUOTES):
        assert reasons(spec, times) == ["", "", "out_of_order", "", "out_of_order", "out_of_order"]
        assert reasons(spec, times, QualityConfig(out_of_order_ns=10)) == ["", "", "", "", "", "out_of_order"]


def test_quotes_that_cannot_be_true() -> None:
    nan = float("nan")
    assert reasons(QUOTES, [
        {}, {"bid": 0.0}, {"ask": 0.0}, {"bid": 0.0, "ask": 0.0}, {"bid": 11.01}, {"bid": 11.0}, {"bid": nan},
        {"ask": -1.0}, {"bid_size": -1.0}, {"bid_size": nan}, {"flags": 1}, {"bid": 0.01}, {"bid": 0.0, "ask": 2000.0},
    ], QualityConfig(outlier_move_min=0.2)) == [
        "", "", "", "empty", "crossed", "", "not_finite", "not_positive", "not_positive", "", "suspicious", "outlier",
        "outlier",
    ]


def test_recorded_bars_that_cannot_be_true() -> None:
    assert reasons(RECORDED, [
        {}, {"high": 10.9}, {"low": 10.1}, {"volume": 0.0}, {"volume": -1.0}, {"low": 0.0}, {"close": float("nan")},
        {"low": 0.0001}, {"high": 1e5}, {}, {"open": 1e-4, "low": 1e-4}, {"open": 1e-4, "low": 1e-4, "close": 1e-4},
        {"ts_open_ns": 5, "ts_close_ns": 6, "ts_event_ns": 6}, {"interval_ns": 0, "ts_close_ns": 5, "ts_open_ns": 5},
    ]) == ["", "inconsistent", "inconsistent", "", "not_positive", "not_positive", "not_finite", "outlier", "outlier",
           "", "outlier", "outlier", "inconsistent", "inconsistent"]


def test_a_recorded_bar_that_comes_again_or_too_late() -> None:
    def minute(at: int) -> dict[str, int]:
        return {"ts_open_ns": at * MINUTE, "ts_close_ns": (at + 1) * MINUTE, "ts_event_ns": (at + 1) * MINUTE}

    listed = [minute(at) for at in (0, 1, 1, 2, 1, 3)]
    assert reasons(RECORDED, listed) == ["", "", "duplicate", "", "out_of_order", ""]


def test_a_jump_is_believed_once_it_is_confirmed() -> None:
    def prices(*listed: float) -> list[str]:
        return [why[:3] for why in reasons(TRADES, [{"price": p} for p in listed], QualityConfig(outlier_confirm=3))]

    assert prices(10, 10, 20, 10, 10) == ["", "", "out", "", ""]
    assert prices(10, 10, 20, 20.1, 20.2, 20, 10) == ["", "", "out", "out", "", "", "out"]
    assert prices(10, 10, 20, 20, 10, 20, 20) == ["", "", "out", "out", "", "out", "out"]  # not consecutive
    assert prices(10, 10, 20, 40, 80, 160) == ["", "", "out", "out", "out", "out"]  # not near each other
    assert prices(1e9, 10, 10, 10, 10) == ["", "out", "out", "", ""]  # a bad first print
    assert prices(10, 10, 5, 5, 5, 5) == ["", "", "out", "out", "", ""]
    assert prices(10, 1e-4, 10, 1e-4, 1e-4) == ["", "out", "", "out", "out"]


def test_a_fall_in_steps_is_not_an_outlier() -> None:
    fall = 100 * 0.995 ** np.arange(400)
    assert set(reasons(TRADES, [{"price": p} for p in fall])) == {""}


@LAW
@given(seed=SEED, symbols=st.integers(1, 3), config=st.sampled_from([QualityConfig(), SMALL]))
def test_rows_in_are_rows_out_plus_rejected(seed: int, symbols: int, config: QualityConfig) -> None:
    tape = random_tape(seed, 300, symbols, ALL, bad=True)
    clean = run(Quality(config), tape_frames := frames(tape, symbols), *CLEAN)
    (rejected,) = run(Quality(config), tape_frames, REJECTED)
    assert (np.diff(rejected["seq"]) > 0).all()
    for table, (spec, rows) in enumerate(zip(CLEAN, clean, strict=True)):
        dropped = rejected["seq"][rejected["source_table"] == table]
        assert sorted([*rows["seq"], *dropped]) == tape[spec.name]["seq"].tolist()
        assert same(rows, tape[spec.name][np.isin(tape[spec.name]["seq"], rows["seq"])])


@LAW
@given(seed=SEED, cuts=st.lists(st.integers(0, 900), max_size=20))
def test_batch_law(seed: int, cuts: list[int]) -> None:
    tape = random_tape(seed, 300, 3, ALL, bad=True)
    one, other = Quality(SMALL), Quality(SMALL)
    whole = run(one, frames(tape, 3), *CLEAN, REJECTED)
    parts = run(other, frames(tape, 3, cuts), *CLEAN, REJECTED)
    assert all(map(same, whole, parts))
    assert [one.score(k) for k in range(3)] == [other.score(k) for k in range(3)]


def test_one_row_a_frame() -> None:
    tape = random_tape(1, 400, 3, ALL, bad=True)
    whole = run(Quality(SMALL), frames(tape, 3), *CLEAN, REJECTED)
    assert len(set(whole[-1]["reason"])) >= 7
    assert all(map(same, whole, run(Quality(SMALL), frames(tape, 3, range(1250)), *CLEAN, REJECTED)))


@LAW
@given(seed=SEED, cut=st.integers(0, 900))
def test_resume_and_prefix_law(seed: int, cut: int) -> None:
    tape = random_tape(seed, 300, 3, ALL, bad=True)
    first, rest = frames(tape, 3, [cut])
    stopped, fresh = Quality(SMALL), Quality(SMALL)
    head = run(stopped, [first], *CLEAN, REJECTED)
    saved = stopped.snapshot()
    run(stopped, [rest], REJECTED)  # later steps do not change what was saved
    fresh.restore(saved)
    tail = run(fresh, [rest], *CLEAN, REJECTED)
    whole = run(Quality(SMALL), frames(tape, 3), *CLEAN, REJECTED)
    for early, later, all_rows in zip(head, tail, whole, strict=True):
        assert same(np.concatenate([early, later]), all_rows)
        assert same(early, all_rows[all_rows["seq"] < cut])


def test_a_clean_table_is_passed_on_itself() -> None:
    frame = frames({"trades": rows_of(TRADES, [{"price": 10.0, "size": 1.0}] * 3)}, 1)[0]
    assert Quality().step(frame) is frame
    spoiled = frame.with_tables(quotes=rows_of(QUOTES, [{"bid": 2.0, "ask": 1.0}]))
    out = Quality().step(spoiled)
    assert out.rows(TRADES) is frame.rows(TRADES) and len(out.rows(QUOTES)) == 0
    assert out.rows(REJECTED)[["source_table", "price", "size", "trade_id"]].tolist() == [(1, 2.0, 1.0, -1)]
    again = Quality().step(out.with_tables(quotes=spoiled.rows(QUOTES)))
    assert len(again.rows(REJECTED)) == 2  # what an earlier step rejected stays


def test_the_score_is_the_share_of_good_rows_of_the_last() -> None:
    quality = Quality(QualityConfig(score_rows=10))
    assert np.isnan(quality.score(0))
    for bad, score in ((0, 1.0), (1, 0.9), (3, 0.6), (0, 0.7), (0, 1.0)):
        listed = [{"price": 10.0, "size": 1.0}] * (5 - bad) + [{"price": 10.0, "size": 0.0}] * bad
        quality.step(frames({"trades": rows_of(TRADES, listed)}, 1)[0])
        assert quality.score(0) == pytest.approx(score)
    assert np.isnan(quality.score(7))


def test_recorded_bars_pass_but_for_the_absurd_print() -> None:
    dropped: dict[str, list[Any]] = {}
    read = 0
    for folder, interval_ns in (("spot_1h_2017_2021", 60 * MINUTE), ("spot_1m_2021-04_05", MINUTE)):
        for path in sorted((DATA / "bars" / folder).glob("[BDLM]*.parquet")):
            rows = bar_rows(recorded_file(str(path.relative_to(DATA))), interval_ns)
            (rejected,) = run(Quality(), frames({"recorded": rows}, 1), REJECTED)
            read += len(rows)
            if len(rejected):
                opened = (rejected["ts_event_ns"] - interval_ns).astype("M8[ns]").astype("M8[m]")
                dropped[f"{folder}/{path.stem}"] = opened.tolist()
    if not read:
        pytest.skip("no recorded bars in the data folder; set PENSTOCK_DATA")
    assert {name: [str(at) for at in times] for name, times in dropped.items()} == {
        "spot_1h_2017_2021/BNBUSDT": ["2017-11-06 03:00:00"],  # a high three times the close
        "spot_1h_2017_2021/LINKUSDT": ["2020-03-12 10:00:00"],  # the low of 0.0001
    }


def test_recorded_ticks_pass_but_for_the_marked_ones() -> None:
    for path, spec, names, expected in (
        ("trades/IBM_20131007_11", TRADES, ("price", "size"), 0),
        ("trades/XRPETH_20191011_13", TRADES, ("price", "size", "trade_id"), 0),
        ("quotes/IBM_20131007_11", QUOTES, ("bid", "ask", "bid_size", "ask_size"), 6),
        ("quotes/EURUSD_201405", QUOTES, ("bid", "ask"), 0),
    ):
        source = recorded_file(f"{path}.parquet")
        rows = spec.empty(len(source))
        rows["seq"] = np.arange(len(source))
        rows["ts_event_ns"] = time_ns(source["timestamp"])
        for name in names:
            rows[name] = source[name]
        if "suspicious" in source:
            rows["flags"] = source["suspicious"]
        if "trade_id" not in names and spec is TRADES:
            rows["trade_id"] = NO_TRADE_ID
        (rejected,) = run(Quality(), frames({spec.name: rows}, 1), REJECTED)
        assert [REJECT_REASONS[reason] for reason in rejected["reason"]] == ["suspicious"] * expected


def test_configuration_says_what_is_wrong() -> None:
    wrong: list[dict[str, Any]] = [
        {"duplicate_ids": 0}, {"out_of_order_ns": -1}, {"outlier_confirm": 0}, {"outlier_move_min": 0.0},
        {"score_rows": 0}, {"bar_move_min": float("nan")}, {"outlier_deviations": 0.5}, {"duplicate_ids": 1.5},
        {"score_rows": True},
    ]
    for config in wrong:
        with pytest.raises(UserError, match=rf"quality\.{next(iter(config))}: "):
            QualityConfig(**config)
    with pytest.raises(UserError, match="restore"):
        Quality().restore(Quality(SMALL).snapshot())


def test_a_symbol_outside_the_frame_is_an_error_not_a_crash() -> None:
    for spec in CLEAN:
        with pytest.raises(IndexError, match="symbol"):
            Quality().step(frames({spec.name: rows_of(spec, [{"seq": 1, "symbol": 7}])}, 2)[0])
