"""The feed of a run without a broker: rows straight from a source, kept in a local log as they are taken.

A source that can be read again (a file, a simulation) goes on after a crash with the row after the last one kept; a socket goes
on with what comes then. Commands that `penstock control` left in the log are taken like rows.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from operators.market.sequence import STEERING
from schemas.frame import Arrival, Frame
from schemas.tables_desk import COMMANDS, CONTROL
from schemas.tables_live import INPUTS
from schemas.tables_models import PROMOTIONS
from sources.journal import Entry, Range
from sources.kafka_input import Taken
from sources.local_log import LocalLog, promotion_of
from sources.pulled import Pulled

FRAMES_A_POLL = 16


class LocalFeed:
    """frames: given the number of rows that were kept already, gives frames whose rows have numbers 0, 1, 2, … over all tables;
    rows below that number may come again and are dropped. It is run in a thread, and ends when `stop` is set."""

    from_start = True

    def __init__(self, log: LocalLog, frames: Callable[[int, Callable[[], bool]], Iterator[Frame]], stop: threading.Event) -> None:
        self.log, self.stop = log, stop
        self._frames = frames
        self._pulled: Pulled[Frame] | None = None
        self._next: dict[str, int] = dict.fromkeys(INPUTS, 0)
        self._taken = 0
        self._number = 0
        self._names: tuple[str, ...] = tuple(log.names)
        self._last: tuple[Arrival, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the symbols by the source's codes."""
        return self._names

    def open(self, resume: Any | None, number: int) -> list[Entry]:
        """Go on from a snapshot, or begin; gives the frames that the log has from `number` on."""
        todo = self.log.entries(number)
        for entry in self.log.entries():
            for r in entry.ranges:
                self._next[r.table] = r.offset_to
                self._taken += 0 if r.table in STEERING else r.offset_to - r.offset_from
        self._pulled = Pulled(self._fresh(self._taken), self.stop)
        return todo

    def _fresh(self, skip: int) -> Iterator[Frame]:
        """The source's frames without the rows that are in the log."""
        for frame in self._frames(skip, self.stop.is_set):
            tables = {name: rows[int(np.searchsorted(rows["seq"], skip)):] for name, rows in frame.tables.items()}
            if any(len(rows) for rows in tables.values()):
                yield Frame(frame.origin, frame.number, frame.frontier_ns, frame.symbols, tables)

    def take(self, timeout_s: float) -> Taken:
        """All that is there, waiting for the first frame at most so long."""
        arrivals: list[Arrival] = self._steering()
        assert self._pulled is not None
        for frame in self._pulled.take(FRAMES_A_POLL, timeout_s):
            self._names = frame.symbols
            arrivals += [Arrival(name, 0, rows) for name, rows in frame.tables.items() if len(rows)]
        merged = [Arrival(name, 0, np.concatenate([a.rows for a in arrivals if a.table == name]))
                  for name in sorted({a.table for a in arrivals}, key=INPUTS.index)]
        ranges = []
        for a in merged:
            begin = self._next[a.table]
            self._next[a.table] = begin + len(a.rows)
            ranges.append(Range(a.table, 0, begin, begin + len(a.rows)))
        self._last = tuple(merged)
        return Taken(self._last, tuple(ranges))

    def _steering(self) -> list[Arrival]:
        commands = self.log.commands()
        if not commands:
            return []
        promoted = [row for command in commands if (row := promotion_of(command)) is not None]
        given = [COMMANDS.index(command) for command in commands if promotion_of(command) is None]
        control = CONTROL.empty(len(given))
        control["command"] = given
        out = []
        for spec, rows in ((CONTROL, control), (PROMOTIONS, np.concatenate([PROMOTIONS.empty(0), *promoted]))):
            rows["symbol"], rows["seq"], rows["ts_event_ns"] = -1, -1, np.iinfo(np.int64).max  # the tape's time, where it arrives
            if len(rows):
                out.append(Arrival(spec.name, 0, rows))
        return out

    def exactly(self, ranges: Sequence[Range]) -> Taken:
        """The rows of these ranges again."""
        return Taken(tuple(Arrival(r.table, 0, self.log.read(r)) for r in ranges), tuple(ranges))

    def caught_up(self) -> bool:
        """There is nothing before the beginning."""
        return True

    def ended(self) -> bool:
        """Whether the source has come to its end."""
        return self._pulled is not None and self._pulled.ended

    def keep(self, entry: Entry) -> None:
        """Keep what a frame was made of; it is safe when this returns."""
        self.log.append(entry, self._last, self._names)
        self._last = ()
        self._number = entry.number + 1

    def settle(self) -> None:
        """Nothing to wait for."""

    def pause(self, keys: Sequence[tuple[str, int]]) -> None:
        """A source has one order: nothing is held for long."""

    def resume(self, keys: Sequence[tuple[str, int]]) -> None:
        """Nothing was paused."""

    def snapshot(self) -> Any:
        """The log says where to go on. What the snapshot before this one covers may leave it for Parquet."""
        self.log.rotate(self._number)
        return None

    def close(self) -> None:
        """End the source; everything that was taken becomes Parquet."""
        self.stop.set()
        self.log.rotate(self._number, all_of_it=True)
        self.log.close()
