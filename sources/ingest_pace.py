"""A tape as a live feed: heartbeats in between, and each row when it is due.

`with_beats` depends on the tape and the beat alone, so a tape gives the same rows with the same numbers at any pace.
`paced` only decides when they come and how they are cut into frames.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import UserError
from schemas.frame import Frame
from schemas.intervals import parse_interval
from schemas.tables import ALL_SYMBOLS, BEATS, Rows
from sources.merge import opaque
from sources.rows import number_rows
from sources.tape import Source

BEAT_NS = 10**9
BATCH_ROWS = 8_192
_BEATS_MAX = 65_536
"""Beats that one frame may have: a tape may be silent for years."""
_SLICE_S = 0.1
"""How long a wait may be before it looks whether to stop."""
Ints = npt.NDArray[np.int64]


def parse_pace(text: str) -> float:
    """`1x`, `60x`, `0.5x` to event seconds per second of the clock; `max` to 0."""
    if text == "max":
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)x?", text)
    if not match or float(match[1]) <= 0:
        raise UserError(f'--pace "{text}" is not a pace; write it like 1x, 60x or max')
    return float(match[1])


def beat_of(source: Source, given: str | None) -> int:
    """The beat in ns: as given, else a second, or the shortest interval of a tape that holds nothing but bars."""
    if given is not None:
        return parse_interval(given, "--beat")
    recorded: tuple[int, ...] = getattr(source, "recorded_ns", ())
    return min(recorded) if recorded and set(source.kinds) <= {"recorded", "beats"} else BEAT_NS


def with_beats(source: Source, beat_ns: int, batch_rows: int = BATCH_ROWS) -> Iterator[Frame]:
    """The tape with a beat for all symbols at each multiple of `beat_ns`, before the first row at or after it, numbered anew.

    None comes before the tape's first row or after its last.
    """
    if beat_ns < 1:
        raise UserError(f"a beat of {beat_ns} ns; give at least 1")
    position, number, last = 0, 0, None
    for frame in source.frames(batch_rows):
        ts = _times(frame)
        reached = np.maximum.accumulate(ts if last is None else np.maximum(ts, last))
        before = np.concatenate(([reached[0] if last is None else last], reached[:-1]))
        beats = reached // beat_ns - before // beat_ns
        for piece in _pieces(frame, beats, before, beat_ns, position):
            yield Frame(frame.origin, number, int(piece.frontier_ns), frame.symbols, piece.tables)
            number += 1
            position += piece.rows
        last = int(reached[-1])


@dataclass(frozen=True)
class _Piece:
    rows: int
    frontier_ns: int
    tables: dict[str, Rows]


def _pieces(frame: Frame, beats: Ints, before: Ints, beat_ns: int, position: int) -> Iterator[_Piece]:
    """A frame with its beats, cut so that no piece has more than `_BEATS_MAX` of them. `before`: time reached before each row."""
    first = min(int(rows["seq"][0]) for rows in frame.tables.values() if len(rows))
    reached = int(before[0])
    at = 0
    while at < len(beats):
        total = np.cumsum(beats[at:])
        n = int(np.searchsorted(total, _BEATS_MAX, side="right"))
        if n:
            piece = _joined(frame, first, at, at + n, beats, before, beat_ns, position, reached)
            yield piece
            position, reached, at = position + piece.rows, piece.frontier_ns, at + n
            continue
        # one row after a long silence: beats alone, the last of them with the row
        extra = int(beats[at]) - _BEATS_MAX // 2
        start = int(before[at]) // beat_ns + 1
        for low in range(0, extra, _BEATS_MAX):
            rows = _beats(np.arange(start + low, start + min(extra, low + _BEATS_MAX)) * beat_ns)
            number_rows(rows, np.arange(position, position + len(rows)))
            reached = max(reached, int(rows["ts_event_ns"][-1]))
            yield _Piece(len(rows), reached, {"beats": rows})
            position += len(rows)
        before = before.copy()
        before[at] = (start + extra - 1) * beat_ns
        beats = beats.copy()
        beats[at] -= extra


def _joined(frame: Frame, first: int, at: int, end: int, beats: Ints, before: Ints, beat_ns: int, position: int, reached: int) -> _Piece:
    """Rows `at` to `end` of the frame, each after its beats."""
    counts = beats[at:end]
    places = position + np.arange(end - at) + np.cumsum(counts)  # of the rows
    tables: dict[str, Rows] = {}
    for name, rows in frame.tables.items():
        low, high = np.searchsorted(rows["seq"], (first + at, first + end))
        if high > low:
            part = opaque(rows[low:high]).copy().view(rows.dtype)
            number_rows(part, places[part["seq"] - first - at])
            tables[name] = part
            reached = max(reached, int(part["ts_event_ns"].max()))
    total = int(counts.sum())
    if total:
        which = np.repeat(np.arange(end - at), counts)
        step = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        made = _beats((before[at:end][which] // beat_ns + 1 + step) * beat_ns)
        made["seq"] = places[which] - counts[which] + step
        if "beats" in tables:
            both = np.concatenate([opaque(tables["beats"]), opaque(made)]).view(made.dtype)
            made = both[np.argsort(both["seq"], kind="stable")]
        tables["beats"] = made
    return _Piece(end - at + total, reached, tables)


def _beats(ts: Ints) -> Rows:
    rows = BEATS.empty(len(ts))
    rows["ts_event_ns"] = ts
    rows["symbol"] = ALL_SYMBOLS
    return rows


def _times(frame: Frame) -> Ints:
    """Event times of all rows of a frame, in the order of the tape."""
    present = [rows for rows in frame.tables.values() if len(rows)]
    first = min(int(rows["seq"][0]) for rows in present)
    ts = np.empty(sum(map(len, present)), np.int64)
    for rows in present:
        ts[rows["seq"] - first] = rows["ts_event_ns"]
    return ts


def paced(source: Source, pace: float, beat_ns: int = BEAT_NS, *, batch_rows: int = BATCH_ROWS, start_row: int = 0,
          stopping: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic,
          sleep: Callable[[float], None] = time.sleep) -> Iterator[Frame]:
    """The frames of `with_beats`, each row when it is due: `pace` event seconds pass in a second of the clock, 0 for no waiting.

    start_row: rows before it come at once, and the waiting begins there. Ends early when `stopping()` is true.
    """
    began: float | None = None
    zero_ns, reached = 0, np.iinfo(np.int64).min
    number = 0
    for frame in with_beats(source, beat_ns, batch_rows):
        if stopping():
            return
        ts = np.maximum(np.maximum.accumulate(_times(frame)), reached)
        first = min(int(rows["seq"][0]) for rows in frame.tables.values() if len(rows))
        if pace == 0 or first + len(ts) <= start_row:
            yield _numbered(frame, number)
            number, reached = number + 1, int(ts[-1])
            continue
        at = max(0, start_row - first)
        if at:
            yield _part(frame, first, 0, at, number, ts)
            number += 1
        if began is None:
            began, zero_ns = clock(), int(ts[at])
        while at < len(ts):
            wait_s = began + (int(ts[at]) - zero_ns) / (pace * 1e9) - clock()
            if wait_s > 0:
                if stopping():
                    return
                sleep(min(wait_s, _SLICE_S))
                continue
            due_ns = zero_ns + (clock() - began) * pace * 1e9
            end = max(at + 1, int(np.searchsorted(ts, due_ns, side="right")))
            yield _part(frame, first, at, end, number, ts)
            number, at = number + 1, end
            if stopping():
                return
        reached = int(ts[-1])


def _numbered(frame: Frame, number: int) -> Frame:
    return Frame(frame.origin, number, frame.frontier_ns, frame.symbols, frame.tables)


def _part(frame: Frame, first: int, at: int, end: int, number: int, reached: Ints) -> Frame:
    tables: dict[str, Any] = {}
    for name, rows in frame.tables.items():
        low, high = np.searchsorted(rows["seq"], (first + at, first + end))
        if high > low:
            tables[name] = rows[low:high]
    return Frame(frame.origin, number, int(reached[end - 1]), frame.symbols, tables)
