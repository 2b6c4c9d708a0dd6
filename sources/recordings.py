"""What a path holds: recordings, each a stream of rows of one table, with its symbols and, where cheap, rows and times.

A file gives one recording (raw frames: one of trades and one of quotes). Opening a recording reads what is needed to
know its symbols, never the whole file into memory; its rows are read block by block, again for each pass.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from schemas.errors import UserError
from schemas.tables import Rows
from sources.containers import Arrow, Container, Csv, Parquet, container_of, opened
from sources.frames import FramesFile, looks_like_frames
from sources.layouts import Layout, layout_of
from sources.names import interval_of, symbol_of
from sources.rows import Converter
from sources.values import Ints, texts, times_ns

_SURVEY_ROWS = 65_536
"""Rows that show the interval of bars, and the block in which columns are scanned."""


@dataclass(frozen=True)
class Recording:
    """A stream of rows of one table out of one file. `blocks(codes, rows)` reads it: rows of at most `rows` at a time,
    in the order of the file, `seq` unset. extent_ns: lowest and highest event time, None where that takes a pass.
    interval_ns: the length of its first bar, 0 where it holds none."""

    path: str
    kind: str
    symbols: tuple[str, ...]
    rows: int | None
    extent_ns: tuple[int, int] | None
    blocks: Callable[[Mapping[str, int], int], Iterator[Rows]] = field(repr=False)
    interval_ns: int = 0

    def measured_ns(self) -> tuple[int, int]:
        """The lowest and highest event time, by a pass where it is not known."""
        if self.extent_ns is not None:
            return self.extent_ns
        codes = {name: k for k, name in enumerate(self.symbols)}
        low, high = 2**63 - 1, -(2**63)
        for block in self.blocks(codes, _SURVEY_ROWS):
            low, high = min(low, int(block["ts_event_ns"].min())), max(high, int(block["ts_event_ns"].max()))
        return low, high


@dataclass(frozen=True)
class Found:
    """The recordings of a file, and the number of frames in it that are neither trades nor quotes, by event type."""

    recordings: tuple[Recording, ...]
    skipped: Mapping[str, int]


def recordings_of(path: str) -> Found:
    """Recognises a file by its content; UserError where it holds nothing that we know."""
    container = container_of(path)
    if container == "parquet":
        return Found((_table(Parquet(path)),), {})
    if container in ("arrow", "stream"):
        return Found((_table(Arrow(path, container == "stream")),), {})
    with opened(path, container) as file:
        head = file.read(64)
    if head.startswith((b"PAR1", b"ARROW1")):
        raise UserError(f"{path}: holds a binary file inside {container}; unpack it first")
    if b"\0" in head:
        raise UserError(f"{path}: is neither Parquet, Arrow IPC nor text")
    if looks_like_frames(head):
        return _frames(path, container)
    return Found((_table(Csv.open(path, container)),), {})


def _frames(path: str, container: str) -> Found:
    file = FramesFile(path, container)
    found, skipped = file.survey()
    if not found:
        raise UserError(f"{path}: holds frames but no trade and no bookTicker among them")
    return Found(
        tuple(
            Recording(path, kind, tuple(sorted(symbols)), rows, None, partial(file.blocks, kind))
            for kind, (rows, symbols) in sorted(found.items())
        ),
        skipped,
    )


def _table(file: Container) -> Recording:
    layout = layout_of(file.names(), file.path)
    rows = file.rows()
    if rows == 0:
        raise UserError(f"{file.path}: holds no rows")
    column = layout.columns.get("symbol")
    named = None
    if column is not None:
        symbols = _symbols(file, column, layout.kind == "beats")
    elif layout.kind == "beats":
        symbols = ()
    else:
        named = symbol_of(file.path)
        symbols = (named,)
    interval_ns = _interval_ns(file, layout) if layout.opening and "close_time" not in layout.columns else 0

    def blocks(codes: Mapping[str, int], rows: int) -> Iterator[Rows]:
        converter = Converter(layout, file.place, codes, named, interval_ns)
        columns = list(dict.fromkeys(layout.columns.values()))
        any_rows = False
        for batch in file.batches(columns, rows):
            if len(batch):
                any_rows = True
                yield converter.rows(batch)
        if not any_rows:
            raise UserError(f"{file.path}: holds no rows")

    extent_ns = _extent_ns(file, layout, interval_ns)
    length_ns = 0
    if layout.kind == "recorded":
        first = next(blocks({name: k for k, name in enumerate(symbols)}, 1024))
        length_ns = int(first["interval_ns"][0])
    return Recording(file.path, layout.kind, symbols, rows, extent_ns, blocks, length_ns)


def _symbols(file: Container, column: str, beats: bool) -> tuple[str, ...]:
    found: set[str] = set()
    row = 0
    for batch in file.batches([column], 1 << 20):
        names, indices = texts(batch.column(0))
        used = np.bincount(indices + 1, minlength=len(names) + 1)
        if used[0] and not beats:
            raise UserError(f"{file.place(row + int((indices < 0).argmax()))}: {column} is missing")
        found.update(n for n, k in zip(names, used[1:], strict=True) if k)
        row += len(batch)
    if "" in found:
        if not beats:
            raise UserError(f"{file.path}: has rows whose {column} is empty")
        found.discard("")
    return tuple(sorted(found))


def _extent_ns(file: Container, layout: Layout, interval_ns: int) -> tuple[int, int] | None:
    name = (
        layout.columns.get("close_time", layout.time) if layout.kind == "recorded" and not layout.own else layout.time
    )
    if name not in file.names():
        return None
    ends = file.extent(name)
    if ends is None:
        return None
    try:
        low, high = (int(times_ns(e, file.place, name, is_ns=name.endswith("_ns"))[0]) for e in ends)
    except UserError:
        return None  # the reader will meet the value and name its row
    return low + interval_ns, high + interval_ns


def _interval_ns(file: Container, layout: Layout) -> int:
    """The most common positive step between times of one symbol in the file's first rows; the smallest of equals."""
    columns = [layout.time] + ([layout.columns["symbol"]] if "symbol" in layout.columns else [])
    is_ns = layout.time.endswith("_ns")
    held: list[Ints] = []
    codes: list[Ints] = []
    names: dict[str, int] = {}
    rows = 0
    for batch in file.batches(columns, _SURVEY_ROWS):
        held.append(times_ns(batch.column(0), partial(_after, file, rows), layout.time, is_ns=is_ns))
        if len(columns) == 2:
            found, indices = texts(batch.column(1))
            codes.append(np.array([names.setdefault(n, len(names)) for n in [*found, ""]], np.int64)[indices])
        rows += len(batch)
        if rows >= _SURVEY_ROWS:
            break
    if rows == 0:
        raise UserError(f"{file.path}: holds no rows")
    times = np.concatenate(held)[:_SURVEY_ROWS]
    if codes:
        of = np.concatenate(codes)[:_SURVEY_ROWS]
        order = np.argsort(of, kind="stable")
        steps = np.diff(times[order])[np.diff(of[order]) == 0]
    else:
        steps = np.diff(times)
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    if len(lengths):
        return int(lengths[counts.argmax()])
    stated = interval_of(file.path)
    if stated is None:
        raise UserError(
            f"{file.path}: its bars give no end and no two of them show the interval; "
            f"name it in the file's name, as in BTCUSDT-1m-2024-01.csv"
        )
    return stated


def _after(file: Container, rows: int, k: int) -> str:
    return file.place(rows + k)
