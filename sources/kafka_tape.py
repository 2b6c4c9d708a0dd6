"""A stretch of historical topics as a tape, by offsets or by event times, up to where the topics end when it is opened.

`corrected` puts every row at its event time, so what came late stands where it belongs; `seen` keeps the order in which the log
was written, as a live run takes it. Either order is a function of the log alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from blake3 import blake3

from brokers.partitions import partitions_of
from schemas.config_live import KafkaConfig
from schemas.errors import UserError, unknown
from schemas.frame import Arrival, Frame
from schemas.rows import picked
from schemas.tables import ALL_SYMBOLS, Rows
from sources.kafka_batch import BEGINNING, BatchReader, Position
from sources.kafka_rows import Decoder, Interner
from sources.merge import joined
from sources.tape import cut

TAPED = ("quotes", "trades", "recorded", "funding", "beats")
"""Tables that a tape may have, in the order that decides at the same time."""
ORDERS = ("corrected", "seen")
ROWS_MAX = 300_000_000
POLL_MESSAGES = 50_000
_KEYS = ("from", "to", "as", "prefix")


@dataclass(frozen=True)
class Stretch:
    """What to read: tables, and from where to where, by event time in ns or by offset; offsets count for every partition alike."""

    servers: str
    tables: tuple[str, ...]
    order: str = "corrected"
    prefix: str | None = None
    ts_from: int | None = None
    ts_to: int | None = None
    offset_from: int | None = None
    offset_to: int | None = None


def parse_url(url: str) -> Stretch:
    """`kafka://HOST:PORT/trades,quotes?from=…&to=…&as=corrected|seen&prefix=…`; UserError where it is not one."""
    parts = urlsplit(url)
    tables = tuple(name for name in parts.path.strip("/").split(",") if name)
    if not parts.netloc or not tables:
        raise UserError(f'"{url}" is not of the form kafka://HOST:PORT/trades?from=…&to=…, with one or more of {", ".join(TAPED)}')
    for name in tables:
        if name not in TAPED:
            raise unknown("topic of a tape", name, TAPED)
    given = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    for key in given:
        if key not in _KEYS:
            raise unknown(f"key of {url}", key, _KEYS)
    order = given.get("as", "corrected")
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    made: dict[str, Any] = {}
    for key in ("from", "to"):
        if key in given:
            name, value = _bound(key, given[key])
            made[f"{name}_{key}"] = value
    return Stretch(parts.netloc, tables, order, given.get("prefix"), **made)


def _bound(key: str, text: str) -> tuple[str, int]:
    if text.isdigit():
        return ("offset", int(text)) if len(text) <= 12 else ("ts", int(text))
    try:
        return "ts", int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
    except ValueError:
        raise UserError(f'{key}="{text}" is neither an offset nor a time; write it like 1200 or 2021-04-02T10:30') from None


class KafkaTape:
    """The stretch, read into memory when it is opened."""

    def __init__(self, kafka: KafkaConfig, stretch: Stretch) -> None:
        self.stretch = stretch
        interner = Interner()
        parts, self.dead = _read(kafka, stretch, interner)
        self.symbols = tuple(sorted(interner.names))
        codes = {name: code for code, name in enumerate(self.symbols)}
        recode = np.array([*(codes[name] for name in interner.names), ALL_SYMBOLS], np.int64)
        kept: list[Arrival] = []
        for a in parts:
            rows = a.rows[_inside(a.rows, stretch)].copy()
            rows["symbol"] = recode[rows["symbol"]]
            if len(rows):
                kept.append(Arrival(a.table, a.partition, rows))
        self._tables = _ordered(kept, stretch.order, self.symbols)
        self.kinds = tuple(name for name in TAPED if name in self._tables)
        self.recorded_ns = tuple(sorted(set(self._tables["recorded"]["interval_ns"].tolist()))) if "recorded" in self._tables else ()
        if not self.kinds:
            raise UserError(f"nothing to replay: {', '.join(stretch.tables)} at {stretch.servers} hold no rows between from and to")

    @cached_property
    def data_hash(self) -> str:
        """Hex digest of the rows, in order, and of their names."""
        total = blake3(repr((self.symbols, self.kinds)).encode())
        for name in self.kinds:
            total.update(np.ascontiguousarray(self._tables[name]).tobytes())
        return total.hexdigest()

    @property
    def rows_total(self) -> int:
        """Rows of all tables."""
        return sum(map(len, self._tables.values()))

    @property
    def ts_range(self) -> tuple[int, int]:
        """The lowest and highest event time."""
        times = [rows["ts_event_ns"] for rows in self._tables.values()]
        return int(min(t.min() for t in times)), int(max(t.max() for t in times))

    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]:
        """The tape from a position on."""
        return cut(iter([(0, self.rows_total, dict(self._tables))]), self.symbols, batch_rows, skip_rows, "kafka")


def open_kafka(url: str, kafka: KafkaConfig | None, ts_from: int | None = None, ts_to: int | None = None) -> KafkaTape:
    """The tape of a URL; `kafka` gives the prefix and the settings of the connection."""
    from dataclasses import replace
    stretch = parse_url(url)
    stretch = replace(stretch, ts_from=stretch.ts_from if ts_from is None else ts_from, ts_to=stretch.ts_to if ts_to is None else ts_to)
    made = replace(kafka or KafkaConfig(), servers=stretch.servers)
    return KafkaTape(made if stretch.prefix is None else replace(made, prefix=stretch.prefix), stretch)


def _read(kafka: KafkaConfig, stretch: Stretch, interner: Interner) -> tuple[list[Arrival], int]:
    """All rows of the stretch's offsets, by table and partition; and how many messages could not be read."""
    keys = [(t, p) for t in stretch.tables for p in range(partitions_of(kafka, t))]
    reader = BatchReader(kafka, [Position(t, p, BEGINNING) for t, p in keys])
    held: dict[tuple[str, int], list[Rows]] = {key: [] for key in keys}
    dead = rows_read = 0
    try:
        marks = {key: reader.watermarks(*key) for key in keys}
        end = {key: min(high, high if stretch.offset_to is None else stretch.offset_to) for key, (_, high) in marks.items()}
        if stretch.offset_from is not None:
            reader.seek([Position(t, p, min(max(stretch.offset_from, marks[t, p][0]), marks[t, p][1])) for t, p in keys])
        decoder = Decoder(interner)
        while True:
            at = {(p.table, p.partition): p.offset for p in reader.positions()}
            done = [key for key in keys if at[key] >= end[key]]
            if len(done) == len(keys):
                break
            polled = reader.poll(POLL_MESSAGES, 0.5)
            decoded = decoder.decode(polled)
            dead += len(decoded.dead)
            for block in decoded.blocks:
                key = block.table, block.partition
                rows = block.rows[: int(np.searchsorted(block.offsets, end[key]))]
                held[key].append(rows)
                rows_read += len(rows)
            if rows_read > ROWS_MAX:
                raise UserError(f"more than {ROWS_MAX:,} rows; take less at a time with from= and to=")
    finally:
        reader.close()
    return [Arrival(*key, joined(parts)) for key, parts in held.items() if parts], dead


def _inside(rows: Rows, stretch: Stretch) -> Any:
    ts = rows["ts_event_ns"]
    keep = np.ones(len(rows), bool)
    if stretch.ts_from is not None:
        keep &= ts >= stretch.ts_from
    if stretch.ts_to is not None:
        keep &= ts < stretch.ts_to
    return keep


def _ordered(parts: Sequence[Arrival], order: str, symbols: tuple[str, ...]) -> Mapping[str, Rows]:
    """Rows by table, numbered in tape order."""
    if not parts:
        return {}
    ts = np.concatenate([a.rows["ts_event_ns"] for a in parts])
    kind = np.concatenate([np.full(len(a.rows), TAPED.index(a.table)) for a in parts])
    symbol = np.concatenate([a.rows["symbol"] for a in parts])
    number = np.concatenate([a.rows["seq"] for a in parts])
    if order == "seen":
        # a writer's rows by its numbers; the running maximum of the time decides between writers and partitions
        part = np.concatenate([np.full(len(a.rows), -1 - k) for k, a in enumerate(parts)])
        group = np.where(number >= 0, number >> 48, part)
        by_group = np.lexsort((np.arange(len(ts)), np.where(number >= 0, number, 0), group))
        reached = ts[by_group]
        starts = np.flatnonzero(np.diff(group[by_group], prepend=group[by_group[0]] - 1))
        for begin, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(ts)], strict=True):
            np.maximum.accumulate(reached[begin:stop], out=reached[begin:stop])
        rank_of = by_group[np.argsort(reached, kind="stable")]
    else:
        rank_of = np.lexsort((np.arange(len(ts)), kind, np.where(symbol < 0, len(symbols), symbol), ts))
    rank = np.empty(len(ts), np.int64)
    rank[rank_of] = np.arange(len(ts))
    out: dict[str, Rows] = {}
    at = 0
    places: dict[str, list[Any]] = {}
    held: dict[str, list[Rows]] = {}
    for a in parts:
        held.setdefault(a.table, []).append(a.rows)
        places.setdefault(a.table, []).append(rank[at: at + len(a.rows)])
        at += len(a.rows)
    for name, found in held.items():
        rows, place = joined(found).copy(), np.concatenate(places[name])
        rows["seq"] = place
        out[name] = picked(rows, np.argsort(place))
    return out
