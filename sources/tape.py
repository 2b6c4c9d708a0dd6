"""The tape: recorded files as one sequence of frames, ordered by event time, each row with its position.

What comes out is a function of the files' content alone: neither the order in which they are named, nor the batch size,
nor where the reading was resumed changes a row, its position or its order. Rows are passed on as recorded, wrong ones
too. At the same time: by symbol, then quotes, trades, bars; heartbeats last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables import Rows
from sources.containers import reading
from sources.merge import Piece, Stream, joined, merged, opaque
from sources.paths import files_of
from sources.recordings import Recording, recordings_of

_KIND_ORDER = {"quotes": 0, "trades": 1, "recorded": 2, "beats": 3}
_LAST = "\uffff"
_HASH_BYTES = 1 << 22


class Source(Protocol):
    """What every tape offers, recorded or simulated. rows_total: an estimate or None. ts_range: in ns, inclusive."""

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def kinds(self) -> tuple[str, ...]: ...
    @property
    def data_hash(self) -> str: ...
    @property
    def rows_total(self) -> int | None: ...
    @property
    def ts_range(self) -> tuple[int, int]: ...
    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]: ...


class Tape:
    """Recorded files as one tape; made by `open_tape`."""

    def __init__(
        self, recordings: Sequence[Recording], skipped: Mapping[str, int], ts_from: int | None, ts_to: int | None
    ) -> None:
        self.recordings = tuple(sorted(recordings, key=_key))
        self.symbols = tuple(sorted({s for r in recordings for s in r.symbols}))
        self.kinds = tuple(sorted({r.kind for r in recordings}, key=_KIND_ORDER.__getitem__))
        self.skipped = dict(skipped)
        self.recorded_ns = tuple(sorted({r.interval_ns for r in recordings if r.kind == "recorded"}))
        self.ts_from, self.ts_to = ts_from, ts_to
        self._chains = _chained(self.recordings)

    @cached_property
    def data_hash(self) -> str:
        """Hex digest of the files' bytes, of what they were taken for, and of the cut in time."""
        total = blake3()
        for r in self.recordings:
            content = blake3()
            with reading(r.path), Path(r.path).open("rb") as file:
                while part := file.read(_HASH_BYTES):
                    content.update(part)
            total.update(repr((r.kind, r.symbols, content.hexdigest())).encode())
        total.update(repr((self.ts_from, self.ts_to)).encode())
        return total.hexdigest()

    @cached_property
    def ts_range(self) -> tuple[int, int]:
        """The lowest and highest event time, within the cut; takes a pass over files whose times are not indexed."""
        ends = [r.measured_ns() for r in self.recordings]
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
        return (
            low if self.ts_from is None else max(low, self.ts_from),
            high if self.ts_to is None else min(high, self.ts_to - 1),
        )

    @cached_property
    def rows_total(self) -> int | None:
        """The number of rows where the files say it without a pass; with a cut in time, its share of the time."""
        total = 0.0
        for r in self.recordings:
            if r.rows is None:
                return None
            share = 1.0
            if self.ts_from is not None or self.ts_to is not None:
                if r.extent_ns is None:
                    return None
                low, high = r.extent_ns
                start = low if self.ts_from is None else max(low, self.ts_from)
                end = high if self.ts_to is None else min(high, self.ts_to)
                share = max(0.0, (end - start) / max(1, high - low))
            total += r.rows * min(1.0, share)
        return round(total)

    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]:
        """The tape from position `skip_rows` on, `batch_rows` rows of all tables in each frame but the last."""
        codes = {name: k for k, name in enumerate(self.symbols)}
        streams = [Stream(chain[0].kind, _reader(chain, codes, self.ts_from, self.ts_to)) for chain in self._chains]
        return cut(merged(streams), self.symbols, batch_rows, skip_rows)


def open_tape(paths: Sequence[str], *, ts_from: int | None = None, ts_to: int | None = None) -> Tape:
    """Opens files, folders and globs as one tape of the rows with ts_from <= ts_event_ns < ts_to.

    UserError: a path without files, a file that is damaged or not recognised, files that contradict each other, a cut
    that leaves nothing.
    """
    if ts_from is not None and ts_to is not None and ts_from >= ts_to:
        raise UserError(f"--from {_utc(ts_from)} is not before --to {_utc(ts_to)}")
    recordings: list[Recording] = []
    skipped: dict[str, int] = {}
    for path in files_of(paths):
        found = recordings_of(path)
        recordings += found.recordings
        for name, n in found.skipped.items():
            skipped[name] = skipped.get(name, 0) + n
    recordings = _disjoint(recordings)
    tape = Tape(recordings, skipped, ts_from, ts_to)
    if (ts_from is not None or ts_to is not None) and tape.ts_range[0] > tape.ts_range[1]:
        whole = Tape(recordings, skipped, None, None).ts_range
        raise UserError(f"nothing between --from and --to: the tape runs from {_utc(whole[0])} to {_utc(whole[1])}")
    return tape


def cut(
    pieces: Iterator[Piece], symbols: tuple[str, ...], batch_rows: int, skip_rows: int, origin: str = "tape"
) -> Iterator[Frame]:
    """Pieces of any size to frames whose limits are the multiples of `batch_rows` counted from `skip_rows`."""
    if batch_rows < 1:
        raise UserError(f"a batch of {batch_rows} rows; give at least 1")
    held: dict[str, list[Rows]] = {}
    start, number, frontier_ns = skip_rows, skip_rows // batch_rows, 0
    any_rows = False
    for first, last, tables in pieces:
        if last <= start:
            frontier_ns = _frontier(frontier_ns, any_rows, tables)
            any_rows = True
            continue
        taken = {
            k: (rows, int(np.searchsorted(rows["seq"], start)) if first < start else 0) for k, rows in tables.items()
        }
        if first < start:
            before = {k: rows[:n] for k, (rows, n) in taken.items() if n}
            frontier_ns, any_rows = _frontier(frontier_ns, any_rows, before), any_rows or bool(before)
        while last >= start + batch_rows:
            for kind, (rows, at) in taken.items():
                end = (
                    int(np.searchsorted(rows["seq"], start + batch_rows))
                    if len(taken) > 1
                    else start + batch_rows - first
                )
                if end > at:
                    held.setdefault(kind, []).append(rows[at:end])
                    taken[kind] = rows, end
            ready = {k: joined(v) for k, v in held.items()}
            frontier_ns, any_rows = _frontier(frontier_ns, any_rows, ready), True
            yield Frame(origin, number, frontier_ns, symbols, ready)
            start, number, held = start + batch_rows, number + 1, {}
        for kind, (rows, at) in taken.items():
            if at < len(rows):
                held.setdefault(kind, []).append(rows[at:])
    if held:
        ready = {k: joined(v) for k, v in held.items()}
        yield Frame(origin, number, _frontier(frontier_ns, any_rows, ready), symbols, ready)


def _frontier(so_far_ns: int, any_rows: bool, tables: Mapping[str, Rows]) -> int:
    highest = [int(rows["ts_event_ns"].max()) for rows in tables.values() if len(rows)]
    return max([so_far_ns, *highest]) if any_rows else max(highest, default=so_far_ns)


def _key(r: Recording) -> tuple[Any, ...]:
    first = r.symbols[0] if r.symbols else _LAST
    return (
        first if r.kind != "beats" else _LAST,
        _KIND_ORDER[r.kind],
        r.symbols,
        r.extent_ns or (0, 0),
        Path(r.path).name,
        r.path,
    )


def _chained(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Files that continue each other (a file a month) are one stream, so that one of them is open at a time."""
    chains: list[list[Recording]] = []
    for r in recordings:
        last = chains[-1][-1] if chains else None
        if (
            last is not None
            and r.extent_ns
            and last.extent_ns
            and (r.kind, r.symbols) == (last.kind, last.symbols)
            and last.extent_ns[1] <= r.extent_ns[0]
        ):
            chains[-1].append(r)
        else:
            chains.append([r])
    return chains


def _reader(chain: list[Recording], codes: Mapping[str, int], ts_from: int | None, ts_to: int | None) -> Any:
    def blocks(rows: int) -> Iterator[Rows]:
        for recording in chain:
            if recording.extent_ns is not None and (
                (ts_from is not None and recording.extent_ns[1] < ts_from)
                or (ts_to is not None and recording.extent_ns[0] >= ts_to)
            ):
                continue
            for block in recording.blocks(codes, rows):
                inside = _inside(block, ts_from, ts_to)
                if len(inside):
                    yield inside

    return blocks


def _inside(rows: Rows, ts_from: int | None, ts_to: int | None) -> Rows:
    if ts_from is None and ts_to is None:
        return rows
    ts = rows["ts_event_ns"]
    keep = np.ones(len(rows), np.bool_)
    if ts_from is not None:
        keep &= ts >= ts_from
    if ts_to is not None:
        keep &= ts < ts_to
    return rows if keep.all() else opaque(rows)[keep].view(rows.dtype)


def _disjoint(recordings: Sequence[Recording]) -> list[Recording]:
    """Measures files that could contradict each other; UserError where two say the same thing of a symbol at one time.

    Trades and bars of one symbol contradict too: bars are made of trades, and would be counted twice.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for k, r in enumerate(recordings):
        for symbol in r.symbols if r.kind != "beats" else ("",):
            groups.setdefault(("prices" if r.kind in ("trades", "recorded") else r.kind, symbol), []).append(k)
    out = list(recordings)
    for (_, symbol), members in groups.items():
        if len(members) < 2:
            continue
        for k in members:
            if out[k].extent_ns is None:
                out[k] = replace(out[k], extent_ns=out[k].measured_ns())
        ordered = sorted((out[k] for k in members), key=lambda r: r.extent_ns or (0, 0))
        for a, b in pairwise(ordered):
            (low_a, high_a), (low_b, high_b) = a.extent_ns or (0, 0), b.extent_ns or (0, 0)
            if low_b < high_a or (low_a, high_a) == (low_b, high_b):
                what = "bars" if a.kind == "recorded" else a.kind
                other = "bars" if b.kind == "recorded" else b.kind
                raise UserError(
                    f"{a.path} ({what}) and {b.path} ({other}) both cover {symbol or 'the heartbeats'} at "
                    f"{_utc(low_b)}; give one of them"
                )
    return out


def _utc(ts_ns: int) -> str:
    return str(np.datetime64(ts_ns, "ns")).split(".")[0] + "Z"
