"""The sequencer: rows as they arrived from many partitions of a log become one tape, with positions 0, 1, 2, …

What comes out is a function of what arrived alone. A writer's rows come in the order of its own numbers, however they are spread
over topics and partitions: a row is held until every row before it is here. So one writer's log gives one tape, whatever the
polls. Rows without numbers keep the order of their partition; between groups the running maximum of the event time decides,
then the group. What steers (control, reports) takes effect where it arrived, at the event time that the tape has reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.frame import Arrival, Frame
from schemas.rows import appended, copied, opaque, picked
from schemas.tables import Rows
from schemas.tables_live import INPUTS

COUNTER_BITS = 48
"""A writer's number: its id above these bits, its counter below."""
UNNUMBERED = -1
STEERING = ("control", "reports", "promotions")
_PARTITIONS_MAX = 1 << 16

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequenced:
    """A frame, and what was not in it. duplicates: rows whose number was already taken. held: rows that wait for a number. holes:
    numbers that were given up, as (writer, first, one past the last)."""

    frame: Frame
    duplicates: int = 0
    held: int = 0
    holes: tuple[tuple[int, int, int], ...] = ()


@dataclass
class _State:
    position: int = 0
    number: int = 0
    frontier_ns: int = 0
    next: dict[int, int] = field(default_factory=dict)
    highest: dict[int, int] = field(default_factory=dict)
    held: list[Arrival] = field(default_factory=list)
    symbols: tuple[str, ...] = ()


class Sequencer:
    """Arrivals in, one frame each. `from_start`: whether the log is read from its beginning, so that a writer's first number is 0."""

    name = "sequence"

    def __init__(self, origin: str, from_start: bool = True) -> None:
        self.origin, self.from_start = origin, from_start
        self.state = _State()
        self._lookup: Ints = np.zeros(0, np.int64)

    @property
    def number(self) -> int:
        """The number of the next frame."""
        return self.state.number

    @property
    def position(self) -> int:
        """The tape position that the next row gets."""
        return self.state.position

    def ahead(self) -> tuple[tuple[str, int], ...]:
        """The table and partition of every row that is held: the missing ones are in others."""
        return tuple(sorted({(a.table, a.partition) for a in self.state.held}))

    def step(self, arrivals: Sequence[Arrival], names: tuple[str, ...], skip: bool = False) -> Sequenced:
        """One frame of what arrived and what was held. names: of the symbols, by the reader's codes, which only grow.
        skip: do not wait any longer for missing numbers."""
        state = self.state
        pending = [a for a in (*state.held, *arrivals) if len(a.rows)]
        duplicates = 0
        holes: tuple[tuple[int, int, int], ...] = ()
        tables = None if state.held or skip else self._next_of_one_writer(pending, names)
        if tables is None:
            state.held = []
            kept, duplicates, holes = self._released(pending, skip)
            tables = self._ordered(kept, names)
        frame = Frame(self.origin, state.number, state.frontier_ns, state.symbols, tables)
        state.number += 1
        return Sequenced(frame, duplicates, sum(len(a.rows) for a in state.held), holes)

    def _next_of_one_writer(self, pending: list[Arrival], names: tuple[str, ...]) -> dict[str, Rows] | None:
        """The common case, quickly: just the next numbers of one writer, of symbols that are known. None where it is another."""
        state, lookup = self.state, self._lookup
        if not pending or len(lookup) <= len(names) or any(a.table in STEERING for a in pending):
            return None
        writer = int(pending[0].rows["seq"][0]) >> COUNTER_BITS
        begin = state.next.get(writer)
        if begin is None:
            return None
        n = sum(len(a.rows) for a in pending)
        ranks = [a.rows["seq"] - ((writer << COUNTER_BITS) + begin) for a in pending]
        ordered = all(len(r) == 1 or (r[1:] > r[:-1]).all() for r in ranks)
        if not ordered or any(r[0] < 0 or r[-1] >= n for r in ranks):
            return None
        if len(ranks) > 1 and not (np.bincount(np.concatenate(ranks)) == 1).all():
            return None
        symbols = [lookup[a.rows["symbol"]] for a in pending]
        if any((s < 0).any() and ((s < 0) & (a.rows["symbol"] >= 0)).any() for s, a in zip(symbols, pending, strict=True)):
            return None
        highest = max(int(a.rows["ts_event_ns"].max()) for a in pending)
        state.next[writer] = begin + n
        state.highest[writer] = max(state.highest.get(writer, highest), highest)
        state.frontier_ns = max(state.frontier_ns, highest)
        out: dict[str, list[Rows]] = {}
        for a, rank, symbol in zip(pending, ranks, symbols, strict=True):
            rows = copied(a.rows)
            rows["seq"], rows["symbol"] = rank + state.position, symbol
            out.setdefault(a.table, []).append(rows)
        state.position += n
        return {name: parts[0] if len(parts) == 1 else _merged(parts) for name, parts in out.items()}

    def _released(self, pending: list[Arrival], skip: bool) -> tuple[list[Arrival], int, tuple[tuple[int, int, int], ...]]:
        """What may go on; the rest is held. A group of arrivals is split where a number is missing."""
        numbered: dict[int, list[Ints]] = {}
        for a in pending:
            seq = a.rows["seq"]
            if a.table not in STEERING and (seq >= 0).any():
                given = seq if seq.min() >= 0 else seq[seq >= 0]
                if (first := int(given.min()) >> COUNTER_BITS) == int(given.max()) >> COUNTER_BITS:
                    numbered.setdefault(first, []).append(given)
                    continue
                for w in _distinct(given >> COUNTER_BITS).tolist():
                    numbered.setdefault(w, []).append(given[given >> COUNTER_BITS == w])
        until: dict[int, int] = {}
        begin: dict[int, int] = {}
        duplicates, holes = 0, []
        for w, parts in numbered.items():
            counters = np.concatenate(parts) & ((1 << COUNTER_BITS) - 1)
            begin[w], until[w], twice, gone = self._contiguous(w, counters, skip)
            duplicates += twice
            holes += gone
        market = [part for a in pending if a.table not in STEERING for part in self._split(a, begin, until)]
        steering = [a for a in pending if a.table in STEERING]
        if self.state.frontier_ns > 0 or market:
            return market + steering, duplicates, tuple(holes)
        self.state.held += steering  # no market row has gone on yet, so there is no time that they could take effect at
        return [], duplicates, tuple(holes)

    def _contiguous(self, writer: int, counters: Ints, skip: bool) -> tuple[int, int, int, list[tuple[int, int, int]]]:
        """From which number on, and up to which, a writer's rows may go; how many were there before; the holes that were given up."""
        known = writer in self.state.next
        begin = self.state.next.get(writer, 0)
        ahead = _distinct(counters[counters >= begin])
        if len(ahead) == 0:
            return begin, begin, len(counters), []
        holes: list[tuple[int, int, int]] = []
        if not known and not self.from_start and ahead[0] > 0:
            if not skip:
                return begin, begin, 0, []
            begin = int(ahead[0])
        if skip:
            edges = np.flatnonzero(np.diff(ahead, prepend=begin - 1) > 1)
            holes = [(writer, int(ahead[k - 1]) + 1 if k else begin, int(ahead[k])) for k in edges.tolist()]
            end = int(ahead[-1]) + 1
        else:
            run = ahead == begin + np.arange(len(ahead))
            end = begin + (len(ahead) if run.all() else int(np.argmin(run)))
        if end > begin:
            self.state.next[writer] = end
        taken = int(np.searchsorted(ahead, end))
        return begin, end, int((counters < end).sum()) - taken, holes

    def _split(self, a: Arrival, begin: Mapping[int, int], until: Mapping[int, int]) -> list[Arrival]:
        seq = a.rows["seq"]
        if not (seq >= 0).any():
            return [a]
        writer = seq >> COUNTER_BITS
        counter = seq & ((1 << COUNTER_BITS) - 1)
        go = seq < 0
        drop = np.zeros(len(seq), bool)
        for w in begin:
            mine = (writer == w) & (seq >= 0)
            go |= mine & (counter >= begin[w]) & (counter < until[w])
            drop |= mine & (counter < begin[w])
        if not (go | drop).all():
            self.state.held.append(Arrival(a.table, a.partition, picked(a.rows, ~(go | drop))))
        return [a if go.all() else Arrival(a.table, a.partition, picked(a.rows, go))] if go.any() else []

    def _ordered(self, kept: list[Arrival], names: tuple[str, ...]) -> dict[str, Rows]:
        """The rows by table, with their positions on the tape."""
        if not kept:
            return {}
        state = self.state
        table = np.concatenate([np.full(len(a.rows), INPUTS.index(a.table)) for a in kept])
        given = np.concatenate([a.rows["seq"] for a in kept])
        ts = np.concatenate([a.rows["ts_event_ns"] for a in kept])
        arrived = np.concatenate([np.full(len(a.rows), _unnumbered_group(a)) for a in kept])
        steering = np.isin(table, [INPUTS.index(name) for name in STEERING])
        numbered = (given >= 0) & ~steering
        group = np.where(numbered, given >> COUNTER_BITS, arrived)
        inside = np.where(numbered, given, np.arange(len(given)))
        market = ts[~steering]
        reached = max(state.frontier_ns, 0) or int(market.min())
        ts = np.where(steering, np.minimum(ts, reached), ts)
        order = self._order(group, inside, ts)
        once = _first_of_number(given[order], numbered[order])
        order = order[once]
        symbol = self._named(np.concatenate([a.rows["symbol"] for a in kept]), order, names)
        rank = np.full(len(given), -1, np.int64)
        rank[order] = state.position + np.arange(len(order))
        state.position += len(order)
        if len(market):
            state.frontier_ns = max(state.frontier_ns, int(market.max()))
        return _gathered(kept, rank, ts, symbol)

    def _order(self, group: Ints, inside: Ints, ts: Ints) -> Ints:
        """Indices in tape order: the effective time, which never goes back within a group, then group and place in it."""
        state = self.state
        by_group = np.lexsort((inside, group))
        names, starts = np.unique(group[by_group], return_index=True)
        effective = ts[by_group]
        for name, start, stop in zip(names.tolist(), starts.tolist(), [*starts[1:].tolist(), len(group)], strict=True):
            part = effective[start:stop]
            part[0] = max(part[0], state.highest.get(name, part[0]))
            np.maximum.accumulate(part, out=part)
            state.highest[name] = int(part[-1])
        if len(names) == 1:
            return by_group
        order: Ints = by_group[np.argsort(effective, kind="stable")]  # stable: group and place in it decide at one time
        return order

    def _named(self, codes: Ints, order: Ints, names: tuple[str, ...]) -> Ints:
        """Codes of the tape: a symbol gets the next one when it first comes, so that they depend on the tape alone."""
        state = self.state
        lookup = self._lookup
        if len(lookup) <= len(names):
            known = {name: code for code, name in enumerate(state.symbols)}
            lookup = self._lookup = np.array([*(known.get(name, -1) for name in names), -1], np.int64)
        inside = codes[order]
        new = inside[(lookup[inside] < 0) & (inside >= 0)]
        if len(new):
            first = np.sort(np.unique(new, return_index=True)[1])
            fresh = new[first].tolist()
            lookup[fresh] = len(state.symbols) + np.arange(len(fresh))
            state.symbols = (*state.symbols, *(names[code] for code in fresh))
        return lookup[codes]

    def snapshot(self) -> Any:
        """Everything that later frames depend on."""
        s = self.state
        return {"position": s.position, "number": s.number, "frontier_ns": s.frontier_ns, "next": dict(s.next),
                "highest": dict(s.highest), "held": list(s.held), "symbols": s.symbols, "from_start": self.from_start}

    def restore(self, given: Any) -> None:
        """Put back what `snapshot` gave; the reader's names have to be those of that moment, or grown from them."""
        kept = dict(given)
        self.from_start = kept.pop("from_start")
        self.state = _State(**{**kept, "next": dict(kept["next"]), "highest": dict(kept["highest"]), "held": list(kept["held"])})
        self._lookup = np.zeros(0, np.int64)


def _distinct(numbers: Ints) -> Ints:
    """Each once, ascending. What arrives is made of runs in order, which a stable sort finds; `np.unique` would hash them."""
    ordered = np.sort(numbers, kind="stable")
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _unnumbered_group(a: Arrival) -> int:
    """Negative, so that it is no writer: the order of rows without numbers is that of their partition."""
    return -1 - (INPUTS.index(a.table) * _PARTITIONS_MAX + a.partition)


def _first_of_number(given: Ints, numbered: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Rows in order: which are the first with their number. The same number twice in one step lies side by side within a writer."""
    keep = np.ones(len(given), bool)
    if numbered.any():
        at = np.flatnonzero(numbered)
        _, first = np.unique(given[at], return_index=True)
        keep[at] = False
        keep[at[first]] = True
    return keep


def _merged(parts: list[Rows]) -> Rows:
    """Rows of several partitions in the order of their positions."""
    return picked(appended(parts), np.argsort(np.concatenate([p["seq"] for p in parts])))


def _gathered(kept: list[Arrival], rank: Ints, ts: Ints, symbol: Ints) -> dict[str, Rows]:
    """Rows of each table in the order of their rank; those without one are left out."""
    out: dict[str, Rows] = {}
    ends = np.cumsum([len(a.rows) for a in kept])
    for name in dict.fromkeys(a.table for a in kept):
        parts = [(a.rows, int(end) - len(a.rows), int(end)) for a, end in zip(kept, ends.tolist(), strict=True) if a.table == name]
        rows = np.concatenate([opaque(part) for part, _, _ in parts]).view(parts[0][0].dtype)
        places = np.concatenate([rank[start:end] for _, start, end in parts])
        rows["ts_event_ns"] = np.concatenate([ts[start:end] for _, start, end in parts])
        rows["symbol"] = np.concatenate([symbol[start:end] for _, start, end in parts])
        rows["seq"] = places
        order = np.argsort(places, kind="stable")
        order = order[places[order] >= 0]
        out[name] = rows if len(order) == len(rows) and (order[1:] > order[:-1]).all() else picked(rows, order)
    return out
