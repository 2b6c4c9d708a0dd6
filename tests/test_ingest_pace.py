"""A tape as a live feed: beats where they belong, the same rows at any pace and cut, and each when it is due."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables import ALL_SYMBOLS, BEATS, TRADES
from sources import ingest_pace
from sources.ingest_pace import beat_of, paced, parse_pace, with_beats
from sources.simulator import simulate

S = 10**9


class Tape:
    """Trades and beats at given times, in that order; `what` tells which row is of which table."""

    symbols, kinds, data_hash, rows_total, ts_range, recorded_ns = ("A", "B"), ("trades", "beats"), "x", None, (0, 0), ()

    def __init__(self, times, what=None):
        self.times, self.what = list(times), what or ["t"] * len(times)

    def frames(self, batch_rows, skip_rows=0):
        for number, at in enumerate(range(0, len(self.times), batch_rows)):
            tables = {}
            for name, spec, mark in (("trades", TRADES, "t"), ("beats", BEATS, "b")):
                rows = spec.empty(batch_rows)
                places = [k for k in range(at, min(at + batch_rows, len(self.times))) if self.what[k] == mark]
                rows = rows[: len(places)]
                rows["ts_event_ns"] = [self.times[k] for k in places]
                rows["seq"] = places
                rows["symbol"] = ALL_SYMBOLS if mark == "b" else 0
                if len(rows):
                    tables[name] = rows
            yield Frame("t", number, 0, self.symbols, tables)


def flat(frames):
    """(time, table, seq) of all rows in the order of seq, and the frontiers."""
    rows, frontiers, numbers = [], [], []
    for f in frames:
        part = sorted((int(r["seq"]), int(r["ts_event_ns"]), name) for name, t in f.tables.items() for r in t)
        rows += part
        frontiers.append(f.frontier_ns)
        numbers.append(f.number)
        assert part and f.frontier_ns == max(t for _, t, _ in rows)
    assert [r[0] for r in rows] == list(range(len(rows))) and numbers == list(range(len(numbers)))
    return [(t, name) for _, t, name in rows]


def expected(times, what, beat):
    """The rule, row by row."""
    out, reached = [], None
    for t, w in zip(times, what, strict=True):
        if reached is not None:
            out += [(k * beat, "beats") for k in range(reached // beat + 1, max(t, reached) // beat + 1)]
        reached = t if reached is None else max(t, reached)
        out.append((t, "trades" if w == "t" else "beats"))
    return out


@given(st.lists(st.tuples(st.integers(-3, 40), st.sampled_from("tb")), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 7),
       st.integers(1, 20))
def test_beats_stand_before_the_first_row_at_or_after_them(steps, beat, batch_rows, beats_max):
    times = (1000 + np.cumsum([s for s, _ in steps])).tolist()
    what = [w for _, w in steps]
    saved, ingest_pace._BEATS_MAX = ingest_pace._BEATS_MAX, beats_max
    try:
        found = flat(with_beats(Tape(times, what), beat, batch_rows))
    finally:
        ingest_pace._BEATS_MAX = saved
    assert found == expected(times, what, beat)


def test_a_tape_that_is_silent_for_years_gives_frames_of_bounded_size():
    frames = list(with_beats(Tape([5 * S, 5 * S + 200_000 * S]), S))
    assert max(len(f.tables["beats"]) for f in frames if "beats" in f.tables) <= 65_536
    assert sum(len(f.tables.get("beats", ())) for f in frames) == 200_000


class Clock:
    """A clock that only sleeping moves, and looking at it a little."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 1e-6
        return self.now

    def sleep(self, s):
        assert 0 < s <= 0.1
        self.now += s


def test_rows_come_when_they_are_due_and_never_before():
    tape, clock = simulate(2, 0.05, 3), Clock()
    due = []
    for frame in paced(tape, 10.0, S, clock=clock, sleep=clock.sleep):
        due.append((max(int(r["ts_event_ns"].max()) for r in frame.tables.values()), clock.now - 100.0))
    first = due[0][0]
    assert all(at >= (ts - first) / 10e9 - 1e-6 for ts, at in due)
    assert all(at <= (ts - first) / 10e9 + 0.2 for ts, at in due) and due[-1][1] > 15


def test_the_pace_changes_nothing_but_the_cut():
    tape, clock = simulate(3, 0.05, 7, quotes=True), Clock()
    at_once = flat(paced(tape, 0.0, S))
    assert flat(paced(tape, 100.0, S, clock=clock, sleep=clock.sleep)) == at_once
    assert flat(paced(tape, 100.0, S, start_row=500, clock=clock, sleep=clock.sleep)) == at_once


def test_a_resumed_tape_waits_only_for_what_is_new():
    tape, clock = simulate(2, 0.05, 3), Clock()
    rows = 0
    for frame in paced(tape, 1.0, S, start_row=100, clock=clock, sleep=clock.sleep):
        rows += sum(map(len, frame.tables.values()))
        if rows >= 100:
            assert clock.now < 100.1
            break


def test_it_stops_when_it_is_told():
    seen = []
    for frame in paced(simulate(2, 1, 3), 1.0, S, stopping=lambda: len(seen) >= 1, sleep=lambda s: None):
        seen.append(frame)
    assert len(seen) == 1


@pytest.mark.parametrize(("text", "pace"), [("1x", 1.0), ("60x", 60.0), ("0.5x", 0.5), ("max", 0.0), ("7", 7.0)])
def test_paces(text, pace):
    assert parse_pace(text) == pace


@pytest.mark.parametrize("text", ["fast", "0x", "-1x", "", "x", "1e3x"])
def test_what_is_no_pace(text):
    with pytest.raises(UserError, match="1x, 60x or max"):
        parse_pace(text)


def test_a_tape_of_bars_beats_once_a_bar():
    bars = Tape([1])
    bars.kinds, bars.recorded_ns = ("recorded",), (60 * S, 300 * S)
    assert beat_of(bars, None) == 60 * S and beat_of(bars, "5s") == 5 * S and beat_of(Tape([1]), None) == S
