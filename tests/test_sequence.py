"""The sequencer: one writer's log is one tape whatever the polls; what is missing is waited for; what steers acts where it arrives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.market.sequence import COUNTER_BITS, Sequencer
from schemas.frame import Arrival, Frame
from schemas.ids import name_id
from schemas.tables import BEATS, QUOTES, TRADES, Rows, TableSpec
from schemas.tables_desk import CONTROL

NAMES = ("BTC", "ETH", "SOL", "XRP")
SPECS = {"trades": TRADES, "quotes": QUOTES, "beats": BEATS}
PARTITIONS = 3


def rows(spec: TableSpec, seq: Sequence[int], ts: Sequence[int], symbol: Sequence[int]) -> Rows:
    out = spec.empty(len(seq))
    out["seq"], out["ts_event_ns"], out["symbol"] = seq, ts, symbol
    return out


Log = dict[tuple[str, int], list[tuple[int, int, int]]]


@st.composite
def logs(draw: st.DrawFn, writers: int = 1) -> Log:
    """Partitions of three topics, as writers with gapless numbers fill them."""
    out: Log = {}
    for w in range(1, writers + 1):
        ts = 1_000
        steps = st.tuples(st.sampled_from(sorted(SPECS)), st.integers(0, len(NAMES) - 1), st.integers(-3, 9))
        for n, (table, symbol, step) in enumerate(draw(st.lists(steps, min_size=1, max_size=40))):
            ts += step
            out.setdefault((table, name_id(NAMES[symbol]) % PARTITIONS), []).append((w << COUNTER_BITS | n, ts, symbol))
    return out


def polls(draw: Any, log: Log) -> list[list[Arrival]]:
    """The log as it might be polled: any number of messages of any partition at a time."""
    random = np.random.default_rng(draw(st.integers(0, 1_000)))
    at = dict.fromkeys(log, 0)
    out = []
    while any(at[key] < len(log[key]) for key in log):
        poll = []
        for key in sorted(log):
            n = int(random.integers(0, 6))
            part = log[key][at[key]: at[key] + n]
            at[key] += len(part)
            if part:
                poll.append(Arrival(*key, rows(SPECS[key[0]], *zip(*part, strict=True))))
        out.append(poll)
    return out


def tape(frames: Sequence[Frame]) -> list[tuple[int, str, int, str]]:
    """What the operators see: position, table, time, symbol by name."""
    return sorted((int(r["seq"]), name, int(r["ts_event_ns"]), f.symbols[int(r["symbol"])])
                  for f in frames for name, found in f.tables.items() for r in found)


@given(logs(), st.data())
def test_one_writer_gives_one_tape_whatever_the_polls(log: Log, data: st.DataObject) -> None:
    def run(arrivals: list[list[Arrival]]) -> list[Frame]:
        sequencer = Sequencer("x")
        return [sequencer.step(poll, NAMES).frame for poll in arrivals]

    whole = run([[Arrival(*key, rows(SPECS[key[0]], *zip(*log[key], strict=True))) for key in sorted(log)]])
    cut = run(polls(data.draw, log))
    assert tape(whole) == tape(cut)
    assert whole[-1].symbols == cut[-1].symbols
    n = sum(map(len, log.values()))
    assert [row[0] for row in tape(whole)] == list(range(n))
    numbers = sorted(x for part in log.values() for x in part)
    assert [row[2] for row in tape(whole)] == [ts for _, ts, _ in numbers]  # by the writer's numbers
    for f in cut:
        for found in f.tables.values():
            assert (np.diff(found["seq"]) > 0).all()


@given(logs(), st.data())
def test_the_quick_way_is_the_long_way(log: Log, data: st.DataObject) -> None:
    arrivals = polls(data.draw, log)
    quick, long = Sequencer("x"), Sequencer("x")
    long._next_of_one_writer = lambda pending, names: None  # type: ignore[method-assign]
    for poll in arrivals:
        a, b = quick.step(poll, NAMES), long.step(poll, NAMES)
        assert a.frame.symbols == b.frame.symbols and (a.held, a.duplicates) == (b.held, b.duplicates)
        assert {k: v.tobytes() for k, v in a.frame.tables.items()} == {k: v.tobytes() for k, v in b.frame.tables.items()}
        assert str(quick.snapshot()) == str(long.snapshot())


@given(logs(writers=3), st.data())
def test_resumed_at_any_frame_it_goes_on_as_if_never_stopped(log: Log, data: st.DataObject) -> None:
    arrivals = polls(data.draw, log)
    at = data.draw(st.integers(0, len(arrivals)))
    through = Sequencer("x")
    expected = [through.step(poll, NAMES) for poll in arrivals]
    first = Sequencer("x")
    made = [first.step(poll, NAMES) for poll in arrivals[:at]]
    second = Sequencer("x", from_start=False)
    second.restore(first.snapshot())
    made += [second.step(poll, NAMES) for poll in arrivals[at:]]
    assert [m.frame.number for m in made] == [m.frame.number for m in expected]
    for a, b in zip(made, expected, strict=True):
        assert a.frame.symbols == b.frame.symbols and a.held == b.held and a.frame.frontier_ns == b.frame.frontier_ns
        assert {k: v.tobytes() for k, v in a.frame.tables.items()} == {k: v.tobytes() for k, v in b.frame.tables.items()}


@given(logs(writers=2), st.data())
def test_nothing_is_lost_and_a_writer_keeps_its_order(log: Log, data: st.DataObject) -> None:
    sequencer = Sequencer("x")
    made = [sequencer.step(poll, NAMES) for poll in polls(data.draw, log)]
    assert made[-1].held == 0 and sum(m.duplicates for m in made) == 0
    seen = [row for m in made for row in tape([m.frame])]
    assert len(seen) == sum(map(len, log.values())) and [row[0] for row in seen] == list(range(len(seen)))


@given(logs(), st.data())
def test_a_row_that_came_twice_is_taken_once_and_counted(log: Log, data: st.DataObject) -> None:
    arrivals = [[x for a in poll for x in ((a, a) if data.draw(st.booleans()) else (a,))] for poll in polls(data.draw, log)]
    given_rows = sum(len(a.rows) for poll in arrivals for a in poll)
    sequencer = Sequencer("x")
    made = [sequencer.step(poll, NAMES) for poll in arrivals]
    n = sum(map(len, log.values()))
    assert len(tape([m.frame for m in made])) == n
    assert sum(m.duplicates for m in made) == given_rows - n


def trade(number: int, ts: int, symbol: int = 0, writer: int = 1) -> Arrival:
    return Arrival("trades", 0, rows(TRADES, [writer << COUNTER_BITS | number], [ts], [symbol]))


def test_a_missing_number_is_waited_for_until_it_is_given_up() -> None:
    sequencer = Sequencer("x")
    assert len(tape([sequencer.step([trade(0, 10)], NAMES).frame])) == 1
    waiting = sequencer.step([trade(2, 30)], NAMES)
    assert waiting.held == 1 and tape([waiting.frame]) == []
    given_up = sequencer.step([trade(4, 50)], NAMES, skip=True)
    assert given_up.holes == ((1, 1, 2), (1, 3, 4)) and given_up.held == 0
    assert [row[2] for row in tape([given_up.frame])] == [30, 50]
    late = sequencer.step([trade(1, 20), trade(5, 60)], NAMES)
    assert late.duplicates == 1 and [row[2] for row in tape([late.frame])] == [60]


def test_read_from_the_middle_it_waits_until_it_is_told_that_nothing_is_missing() -> None:
    sequencer = Sequencer("x", from_start=False)
    assert sequencer.step([trade(7, 70)], NAMES).held == 1
    made = sequencer.step([trade(8, 80)], NAMES, skip=True)
    assert [row[2] for row in tape([made.frame])] == [70, 80] and made.holes == ()
    assert len(tape([sequencer.step([trade(0, 90, writer=2)], NAMES).frame])) == 1  # a writer that begins


def control(ts: int, command: int = 0) -> Arrival:
    out = CONTROL.empty(1)
    out["ts_event_ns"], out["seq"], out["symbol"], out["command"] = ts, -1, -1, command
    return Arrival("control", 0, out)


def test_what_steers_takes_effect_at_the_time_the_tape_has_reached() -> None:
    sequencer = Sequencer("x")
    early = sequencer.step([control(2**62)], NAMES)
    assert early.held == 1 and early.frame.frontier_ns == 0
    first = sequencer.step([trade(0, 100)], NAMES).frame
    assert first.tables["control"]["ts_event_ns"].tolist() == [100]
    assert int(first.tables["control"]["seq"][0]) < int(first.tables["trades"]["seq"][0])
    later = sequencer.step([control(2**62), trade(1, 300)], NAMES).frame
    assert later.tables["control"]["ts_event_ns"].tolist() == [100]
    assert later.frontier_ns == 300


def test_what_steers_waits_for_a_market_row_that_goes_on_not_for_one_that_is_held() -> None:
    sequencer = Sequencer("t", from_start=True)
    both = sequencer.step([control(2**62), trade(1, 300)], NAMES)  # the writer's row 0 is missing
    assert both.frame.tables == {} and both.held == 2
    first = sequencer.step([trade(0, 100)], NAMES).frame
    assert len(first.tables["trades"]) == 2 and first.tables["control"]["ts_event_ns"].tolist() == [100]


def test_rows_without_numbers_keep_the_order_of_their_partition() -> None:
    sequencer = Sequencer("x")
    a = Arrival("trades", 0, rows(TRADES, [-1, -1, -1], [10, 5, 40], [0, 0, 0]))
    b = Arrival("quotes", 1, rows(QUOTES, [-1, -1], [7, 20], [1, 1]))
    made = sequencer.step([a, b], NAMES).frame
    assert [(row[1], row[2]) for row in tape([made])] == [("quotes", 7), ("trades", 10), ("trades", 5), ("quotes", 20), ("trades", 40)]
    assert made.symbols == ("ETH", "BTC")  # as they first come on the tape
