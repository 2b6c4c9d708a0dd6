"""Polled messages of any topic as rows for a warehouse: by table and run, with what cannot be read as dead letters.

Every message gives rows or a dead letter. Market input has no run and is kept as the run `market`; a row of it that has no
number of its writer gets one from its place in the log, so that the same message always gives the same row and two trades
of one moment stay two.
"""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.codec import arrow_schema, has_text, records_from_arrow
from schemas.codec_features import FEATURES
from schemas.codec_json import decode_json_records
from schemas.errors import UserError
from schemas.messages import Headers, check_version, codec_of, decode_arrow
from schemas.tables import Rows, TableSpec
from schemas.topics import TABLES
from sources.kafka_polled import PADDING, Ints, Polled
from sources.kafka_rows import Block, Decoder, Interner

MARKET = "market"
"""The run of what no run made."""
UNNUMBERED = ("trades", "quotes", "beats", "control")
"""Input tables whose `seq` tells rows apart and may be missing."""
OFFSET_BITS, ROW_BITS = 36, 17
"""Of a number made of a place: with these there is room for 1,024 partitions and 131,072 rows a message."""
NAMES_MAX = 1 << 20


@dataclass(frozen=True)
class Unpacked:
    """Rows of one table and run. `rows` are records for a table with text columns, an Arrow table for features."""

    spec: TableSpec
    run_id: str
    rows: Rows | list[dict[str, Any]] | pa.Table
    symbols: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.rows)


class Unpacker:
    """Keeps the names that it has seen, and nothing else. clock: ns since 1970, for what is said of dead letters alone."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._symbols, self._strategies = Interner(NAMES_MAX), Interner(NAMES_MAX)
        self._decoder = Decoder(self._symbols, self._strategies, clock)

    def unpack(self, polled: Polled) -> tuple[list[Unpacked], list[dict[str, Any]]]:
        """(rows by table and run, dead letters). Never raises for what a message holds."""
        made: list[Unpacked] = []
        dead: list[dict[str, Any]] = []
        other = np.array([_is_other(TABLES[table]) for table in polled.tables], bool)[polled.table]
        for run_id, which in _by_run(polled, np.flatnonzero(~other)):
            decoded = self._decoder.decode(selected(polled, which))
            dead += decoded.dead
            names = self._symbols.names, self._strategies.names
            made += [Unpacked(TABLES[b.table], run_id, numbered(b), *names) for b in decoded.blocks if len(b.rows)]
        for run_id, which in _by_run(polled, np.flatnonzero(other)):
            for i in which.tolist():
                spec = TABLES[polled.tables[int(polled.table[i])]]
                try:
                    rows = other_rows(spec, polled.payload(i), polled.header_sets[int(polled.headers[i])])
                    made.append(Unpacked(spec, run_id, rows))
                except Exception as error:  # whatever it holds, the message is kept, with what is wrong with it
                    said = str(error) if isinstance(error, UserError) else f"it cannot be read: {type(error).__name__}: {error}"
                    dead.append(self._letter(polled, i, said))
        return made, dead

    def _letter(self, polled: Polled, i: int, said: str) -> dict[str, Any]:
        topic, partition, offset = polled.topics[int(polled.table[i])], int(polled.partition[i]), int(polled.offset[i])
        return {
            "ts_seen_ns": self._clock(), "topic": topic, "partition": partition, "offset": offset,
            "error": f"{topic} partition {partition} offset {offset}: {said}",
            "payload": base64.b64encode(polled.payload(i)).decode(),
        }  # fmt: skip


def selected(polled: Polled, which: Ints) -> Polled:
    """Some of the messages, in their order."""
    if len(which) == len(polled):
        return polled
    sizes = (polled.starts[1:] - polled.starts[:-1])[which]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    at = np.arange(int(starts[-1])) + np.repeat(polled.starts[which] - starts[:-1], sizes)
    data = np.concatenate((polled.data[at], np.zeros(PADDING, np.uint8)))
    columns = {name: getattr(polled, name)[which] for name in ("table", "partition", "offset", "timestamp_ms", "headers")}
    return replace(polled, **columns, data=data, starts=starts)


def numbered(block: Block) -> Rows:
    """The rows, each with a number that tells it apart: its writer's, else one below zero made of its place in the log."""
    rows = block.rows
    if block.table not in UNNUMBERED or not (rows["seq"] < 0).any():
        return rows
    out = rows.copy()
    first = np.searchsorted(block.offsets, block.offsets)  # of the rows of one message
    within = np.arange(len(rows)) - first
    place = (((block.partition << OFFSET_BITS) + block.offsets) << ROW_BITS) + within
    missing = rows["seq"] < 0
    out["seq"][missing] = -1 - place[missing]
    return out


def other_rows(spec: TableSpec, payload: bytes, headers: Headers) -> list[dict[str, Any]] | pa.Table:
    """The rows of a message that are no fixed records: text as records, features as an Arrow table. UserError where there are none."""
    if not payload:
        raise UserError("the message is empty")
    codec = codec_of(payload, headers)
    check_version(spec, headers)
    if codec == "json":
        records = decode_json_records(spec, [payload])
        return _features(records) if spec.name == FEATURES.name else records
    table = decode_arrow(payload)
    try:
        table.validate(full=True)
        fitted = table.select([f.name for f in spec.fields]).cast(arrow_schema(spec))
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(f"not a table of {spec.name}: {error}") from None
    if any(column.null_count for column in fitted.columns):
        raise UserError(f"a table of {spec.name} with nulls")
    return fitted if spec.name == FEATURES.name else records_from_arrow(spec, fitted)


def _features(records: list[dict[str, Any]]) -> pa.Table:
    """Feature rows that came as JSON, where NaN is null and an infinity is text."""
    def number(value: float | str | None) -> float:
        return float("nan") if value is None else float(value)

    floats = [f.name for f in FEATURES.fields if f.kind == "float"]
    try:
        fitted = [{**r, **{n: number(r[n]) for n in floats}, "values": [number(v) for v in r["values"]]} for r in records]
    except ValueError as error:
        raise UserError(f"features: {error}") from None
    return pa.Table.from_pylist(fitted, schema=arrow_schema(FEATURES))


def _is_other(spec: TableSpec) -> bool:
    return has_text(spec) or spec.name == FEATURES.name


def _by_run(polled: Polled, which: Ints) -> list[tuple[str, Ints]]:
    """The messages by the run that made them; nearly always there is one."""
    if not len(which):
        return []
    used = np.unique(polled.headers[which])
    runs: dict[str, list[int]] = {}
    for code in used.tolist():
        given = dict(polled.header_sets[code])
        runs.setdefault(given.get("run", b"").decode(errors="replace") or MARKET, []).append(code)
    if len(runs) == 1:
        return [(next(iter(runs)), which)]
    return [(run, which[np.isin(polled.headers[which], codes)]) for run, codes in runs.items()]
