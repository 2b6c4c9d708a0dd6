"""The whole pipeline on a simulated market: the loop and Bytewax, any workers and any batch, give the same bits; the future changes nothing."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest

from operators.assembly import Plan
from operators.market.shards import Align, join, shard_of, split
from research.digests import STAGES, Digests
from research.rehearsal import rehearse
from research.replaying import enabled, make_plan, replay, run_plan
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables import BARS, QUOTES, RECORDED, SIGNALS, TRADES, Rows
from schemas.tables_desk import DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS
from sources.simulator import simulate
from tests.market_tapes import MINUTE

CONFIG: dict[str, Any] = {
    "bars": {"time": ["1m", "5m"], "tick": [50]}, "strategies": ["bollinger_bounce", "breakout_momentum", "momentum"],
    "policy": {"latency": "250 ms", "participation": "20 %", "positions_max": "5", "cooldown_after_loss": "3 min", "risk_per_trade": "3 %"},
}
TABLES = (BARS, SIGNALS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY)


@cache
def plan() -> Plan:
    return make_plan(CONFIG, None)


def run(frames: Iterable[Frame], engine: str = "loop", workers: int = 1) -> tuple[dict[str, str], list[Frame]]:
    digests, made = Digests(plan().strategy_names), list[Frame]()

    def collect(frame: Frame) -> None:
        digests.add(frame)
        made.append(frame)

    run_plan(plan(), enabled(frames), collect, engine, workers)
    return digests.values(), made


@cache
def whole() -> tuple[dict[str, str], list[Frame]]:
    return run(simulate(6, 3, 7, quotes=True).frames(65_536))


def rows_of(frames: list[Frame], spec: Any) -> Rows:
    return np.concatenate([spec.empty(0), *(frame.rows(spec) for frame in frames)])


def test_the_tape_reaches_every_stage() -> None:
    hashes, made = whole()
    assert tuple(hashes) == (*list(STAGES)[:1], "features", *list(STAGES)[1:])
    assert len(set(hashes.values())) == len(hashes)
    for spec in (*STAGES.values(), EQUITY, POSITIONS):
        assert sum(len(frame.rows(spec)) for frame in made) > 0, spec.name


@pytest.mark.parametrize(("engine", "workers", "batch_rows"), [
    ("loop", 1, 1000), ("bytewax", 1, 65_536), ("bytewax", 1, 1000), ("bytewax", 2, 1000), ("bytewax", 4, 1000),
])
def test_engine_workers_and_batch_give_the_same_hashes(engine: str, workers: int, batch_rows: int) -> None:
    hashes, _ = run(simulate(6, 3, 7, quotes=True).frames(batch_rows), engine, workers)
    assert hashes == whole()[0]


@pytest.mark.parametrize(("engine", "workers", "batch_rows"), [("loop", 1, 1), ("loop", 1, 7), ("bytewax", 2, 7)])
def test_a_small_tape_row_by_row(engine: str, workers: int, batch_rows: int) -> None:
    expected, _ = run(simulate(3, 0.6, 3).frames(65_536))
    assert run(simulate(3, 0.6, 3).frames(batch_rows), engine, workers)[0] == expected


def poisoned(frame: Frame, place: int) -> Frame:
    """The frame with every market row from `place` on changed."""
    tables = {}
    for name, rows in frame.tables.items():
        rows = rows.copy()
        later = rows["seq"] >= place
        for column in ("price", "bid", "ask", "size"):
            if column in (rows.dtype.names or ()):
                rows[column][later] *= 1.5
        tables[name] = rows
    return Frame(frame.origin, frame.number, frame.frontier_ns, frame.symbols, tables)


@pytest.mark.parametrize("place", [1, 9_000, 30_000])
def test_a_poisoned_future_changes_nothing_before_it(place: int) -> None:
    _, made = run(poisoned(frame, place) for frame in simulate(6, 3, 7, quotes=True).frames(10_000))
    for spec in TABLES:
        before, after = (rows_of(frames, spec) for frames in (whole()[1], made))
        assert before[before["seq"] < place].tobytes() == after[after["seq"] < place].tobytes(), spec.name


def test_a_prefix_of_the_tape_gives_a_prefix_of_the_rows() -> None:
    frames = list(simulate(6, 3, 7, quotes=True).frames(5_000))
    half = frames[: len(frames) // 2]
    end = max(int(rows["seq"][-1]) for rows in half[-1].tables.values())
    _, made = run(half)
    for spec in TABLES:
        before, after = (rows_of(f, spec) for f in (whole()[1], made))
        assert before[before["seq"] <= end].tobytes() == after.tobytes(), spec.name


def test_from_the_api_the_summary_adds_up_and_the_tables_are_arrow() -> None:
    one = replay(simulate(3, 1, 5), config=CONFIG)
    other = replay(simulate(3, 1, 5), config=CONFIG, engine="bytewax", workers=2, batch_rows=777, run_id="other")
    assert one.summary["hashes"] == other.summary["hashes"]
    assert one.summary["run_id"] == "memory" and other.summary["run_id"] == "other"
    assert one.summary["counts"]["fills"] == one.fills.num_rows == other.fills.num_rows
    assert Decimal(one.summary["pnl"]) == Decimal(one.summary["equity_final"]) - 100_000
    refused = one.decisions.num_rows - sum(one.decisions["approved"].to_pylist())
    assert sum(one.summary["refusals"].values()) == refused


def test_recorded_bars_alone_trade_on_both_engines() -> None:
    frames = [bar_frame(k) for k in range(4)]
    expected, made = run(frames)
    assert len(rows_of(made, FILLS)) > 0
    assert run(frames, "bytewax", 2)[0] == expected


def bar_frame(number: int, n: int = 300) -> Frame:
    """`n` recorded minutes of two symbols that swing."""
    rows = RECORDED.empty(2 * n)
    k = np.arange(2 * n)
    minute = number * n + k // 2
    rows["seq"], rows["symbol"] = number * 2 * n + k + 1, k % 2
    rows["interval_ns"] = MINUTE
    rows["ts_open_ns"] = 1_600_000_020 * 10**9 + minute * MINUTE
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + MINUTE
    price = 100 + 4 * np.sin(minute / 37) + 2 * np.sin(minute / 5.3 + rows["symbol"]) + (minute % 7) / 10
    rows["open"], rows["close"] = price, price + 0.05
    rows["high"], rows["low"] = price + 0.4, price - 0.4
    rows["volume"] = 1000 + 900 * (minute % 11 == 0)
    rows["notional"] = rows["volume"] * rows["close"]
    for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    return Frame("bars", number, int(rows["ts_event_ns"][-1]), ("ONE", "TWO"), {"recorded": rows})


@pytest.mark.parametrize(("engine", "workers", "message"), [
    ("bytewaks", 1, 'unknown engine "bytewaks"; did you mean "bytewax"?'), ("loop", 2, "the loop has one worker"), ("bytewax", 0, "one or more"),
])
def test_a_wrong_engine_or_number_of_workers_says_so(engine: str, workers: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        run_plan(plan(), [], lambda frame: None, engine, workers)
    assert message in str(error.value)


# fan-out and alignment

def same_tables(left: Mapping[str, Rows], right: Mapping[str, Rows]) -> bool:
    return left.keys() == right.keys() and all(left[k].tobytes() == right[k].tobytes() for k in left)


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_parts_come_together_as_the_frame_that_was_split(shards: int) -> None:
    for frame in enabled(simulate(9, 0.5, 2, quotes=True).frames(800)):
        parts = split(frame, shards)
        assert [p.part for p in parts] == list(range(shards))
        for part in parts:
            for spec in (TRADES, QUOTES):
                assert all(shard_of(frame.symbols[k], shards) == part.part for k in part.rows(spec)["symbol"])
        assert same_tables(join(parts).tables, frame.tables)


def test_alignment_takes_frames_in_turn_whatever_order_their_parts_come_in() -> None:
    frames = list(simulate(5, 0.5, 2).frames(200))[:8]
    parts = [part for frame in frames for part in split(frame, 3)]
    order = np.random.default_rng(1).permutation(len(parts))
    align, out = Align(), list[Frame]()
    for k in order:
        again = Align()
        again.restore(align.snapshot())  # it may stop and start anywhere
        align = again
        out += align.add(parts[k])
    assert [f.number for f in out] == [f.number for f in frames]
    assert all(same_tables(a.tables, b.tables) for a, b in zip(out, frames, strict=True))


def test_alignment_holds_a_bounded_number_of_frames() -> None:
    align = Align(pending_max=2)
    for frame in list(simulate(5, 0.5, 2).frames(100))[:2]:
        align.add(split(frame, 2)[0])
    with pytest.raises(RuntimeError, match="a shard has stopped"):
        align.add(split(list(simulate(5, 0.5, 2).frames(100))[2], 2)[0])


def test_the_loop_hands_on_every_frame_in_order() -> None:
    frames, seen = list(simulate(3, 0.5, 1).frames(500)), list[Frame]()
    rehearse(plan(), frames, seen.append)
    assert [f.number for f in seen] == [f.number for f in frames]
