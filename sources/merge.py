"""Many streams of rows to one tape: a k-way merge by (event time, stream), compiled, a block of each stream in memory.

Rows of one stream keep their order even where their times go back: a stream's next row competes with its own time. So
the merged order depends on the streams alone, not on how they come in blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.tables import Rows
from sources.rows import SPECS, number_rows

Ints = npt.NDArray[np.int64]
_BLOCK_BYTES = 1 << 21
"""A block that is filled column by column stays in the cache."""
_HELD_BYTES_MAX = 1 << 27
_ROWS_MIN, _ROWS_MAX = 1 << 11, 1 << 16


@dataclass(frozen=True)
class Stream:
    """Rows of one table in blocks: `blocks(rows)` gives at most `rows` at a time."""

    kind: str
    blocks: Callable[[int], Iterator[Rows]]


Piece = tuple[int, int, dict[str, Rows]]
"""Tape positions from and to (exclusive), and the rows of each table, numbered, in order."""


def merged(streams: Sequence[Stream]) -> Iterator[Piece]:
    """The tape in pieces of some size; earlier streams go first at the same time."""
    widest = max(SPECS[s.kind].dtype.itemsize for s in streams)
    rows = min(_ROWS_MAX, max(_ROWS_MIN, min(_BLOCK_BYTES, _HELD_BYTES_MAX // len(streams)) // widest))
    if len(streams) == 1:
        at = 0
        for block in streams[0].blocks(rows):
            number_rows(block, np.arange(at, at + len(block)))
            yield at, at + len(block), {streams[0].kind: block}
            at += len(block)
        return
    yield from _Merge(streams, rows).pieces()


def opaque(rows: Rows) -> npt.NDArray[Any]:
    """The same rows as records without fields: NumPy copies those sixteen times faster."""
    view: npt.NDArray[Any] = rows.view(np.dtype((np.void, rows.dtype.itemsize)))
    return view


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other; the array itself where it is one."""
    return parts[0] if len(parts) == 1 else np.concatenate([opaque(p) for p in parts]).view(parts[0].dtype)


def warm() -> None:
    """Compiles the merge, or loads it, ahead of a tape of several files."""
    rows = SPECS["trades"].empty(1)
    for _ in merged([Stream("trades", lambda _: iter([rows]))] * 2):
        pass


class _Merge:
    """The state of a merge: per stream the block that is being read, its times, and how far it was taken."""

    def __init__(self, streams: Sequence[Stream], rows: int) -> None:
        k = len(streams)
        self._kinds = [s.kind for s in streams]
        self._sources = [s.blocks(rows) for s in streams]
        self._held: list[Any] = [None] * k
        self._times: Ints = np.zeros((k, rows), np.int64)
        self._at: Ints = np.zeros(k, np.int64)
        self._end: Ints = np.zeros(k, np.int64)
        self._done = [False] * k
        self._heap: Ints = np.zeros(k, np.int64)
        self._order: Ints = np.zeros(_ROWS_MAX, np.int64)

    def pieces(self) -> Iterator[Piece]:
        seq = 0
        while self._refill():
            before = self._at.copy()
            n = int(_merge(self._times, self._at, self._end, self._heap, self._order))
            yield seq, seq + n, self._gathered(before, n, seq)
            seq += n

    def _refill(self) -> bool:
        """Gives every stream that is not at its end a row to show; False where all are at their end."""
        for s in range(len(self._sources)):
            while self._at[s] == self._end[s] and not self._done[s]:
                block = next(self._sources[s], None)
                if block is None:
                    self._done[s] = True
                    self._held[s] = None
                    self._at[s] = self._end[s] = 0
                    break
                self._held[s] = block
                self._times[s, : len(block)] = block["ts_event_ns"]
                self._at[s], self._end[s] = 0, len(block)
        return not all(self._done)

    def _gathered(self, before: Ints, n: int, seq: int) -> dict[str, Rows]:
        """The chosen rows per table. `_order` has the stream of each; a stable sort of it gives each stream's share."""
        order = self._order[:n]
        by_stream = np.argsort(order, kind="stable")
        counts = self._at - before
        starts = np.concatenate(([0], np.cumsum(counts)))
        out: dict[str, Rows] = {}
        for kind in dict.fromkeys(self._kinds):
            members = [s for s, k in enumerate(self._kinds) if k == kind and counts[s]]
            if not members:
                continue
            shares = [by_stream[starts[s] : starts[s + 1]] for s in members]
            positions = np.sort(np.concatenate(shares)) if len(members) > 1 else shares[0]
            rows = np.empty(len(positions), SPECS[kind].dtype)
            records = opaque(rows)
            whole = len(positions) == n
            for s, share in zip(members, shares, strict=True):
                into = share if whole else np.searchsorted(positions, share)
                records[into] = opaque(self._held[s][before[s] : self._at[s]])
            number_rows(rows, positions + seq)
            out[kind] = rows
        return out


@njit(cache=True, nogil=True)
def _merge(times, at, end, heap, order):  # type: ignore[no-untyped-def]
    """Takes rows in order until `order` is full or a stream has shown its last; `at` moves. A binary heap."""
    size = 0
    for s in range(len(at)):
        if at[s] < end[s]:
            i = size
            size += 1
            while i > 0:
                up = (i - 1) // 2
                if times[heap[up], at[heap[up]]] <= times[s, at[s]]:
                    break
                heap[i] = heap[up]
                i = up
            heap[i] = s
    n = 0
    while n < len(order) and size > 0:
        s = heap[0]
        order[n] = s
        n += 1
        at[s] += 1
        if at[s] == end[s]:
            break
        t = times[s, at[s]]
        i = 0
        while True:
            child = 2 * i + 1
            if child >= size:
                break
            c = heap[child]
            tc = times[c, at[c]]
            if child + 1 < size:
                r = heap[child + 1]
                tr = times[r, at[r]]
                if tr < tc or (tr == tc and r < c):
                    child += 1
                    c = r
                    tc = tr
            if t < tc or (t == tc and s < c):
                break
            heap[i] = c
            i = child
        heap[i] = s
    return n
