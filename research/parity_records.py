"""What a run recorded, as rows: from the topics of a broker or from the warehouse, with the same codes on both sides."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from research.stored import StoredRun
from schemas.codec import decode_ipc, from_arrow, names_in
from schemas.codec_features import FEATURES, SEPARATOR
from schemas.codec_json import decode_json
from schemas.config_live import KafkaConfig
from schemas.frame import FeatureRows
from schemas.rows import appended
from schemas.tables import Rows, TableSpec
from schemas.topics import TOPICS

_PLACE = ("ts_event_ns", "seq", "symbol", "interval_ns", "ts_open_ns")
FeatureKey = tuple[int, tuple[str, ...]]
"""Interval and names of a feature set."""


class Recorded(Protocol):
    """A run's records. symbols: the replay's names, and after them those that only the recording has."""

    def symbols(self, known: tuple[str, ...]) -> tuple[str, ...]: ...
    def rows(self, spec: TableSpec, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> Rows: ...
    def features(self, symbols: tuple[str, ...]) -> dict[FeatureKey, Rows]: ...


def merged_rows(parts: Sequence[Rows], dtype: np.dtype[Any]) -> Rows:
    """Rows one after the other."""
    if not parts:
        return np.zeros(0, dtype)
    return appended(parts)


def feature_columns(names: Sequence[str]) -> np.dtype[Any]:
    """A row type with a column for each feature of a set."""
    return np.dtype([*((name, "i8") for name in _PLACE), *((name, "f8") for name in names)])


def as_feature_rows(found: FeatureRows) -> Rows:
    """A feature set as rows."""
    out = np.zeros(len(found.bars), feature_columns(found.names))
    for name in _PLACE:
        out[name] = found.bars[name]
    out["interval_ns"] = found.interval_ns
    for i, name in enumerate(found.names):
        out[name] = found.values[:, i]
    return out


def compact_to_rows(table: pa.Table, symbols: tuple[str, ...]) -> dict[FeatureKey, Rows]:
    """The compact table of features as rows, by feature set."""
    out: dict[FeatureKey, Rows] = {}
    if not table.num_rows:
        return out
    sets = table["feature_set"].cast(pa.string())
    codes = {name: code for code, name in enumerate(symbols)}
    for text in sets.unique().to_pylist():
        names = tuple(text.split(SEPARATOR))
        mine = table.filter(pc.equal(sets, text))
        rows = np.zeros(mine.num_rows, feature_columns(names))
        for name in _PLACE:
            if name != "symbol":
                rows[name] = mine[name].to_numpy()
        rows["symbol"] = [codes[s] for s in mine["symbol"].cast(pa.string()).to_pylist()]
        values = mine["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
        for i, name in enumerate(names):
            rows[name] = values[:, i]
        for interval in np.unique(rows["interval_ns"]).tolist():
            out[interval, names] = rows[rows["interval_ns"] == interval]
    return out


class WarehouseRecorded:
    """Records in the warehouse."""

    def __init__(self, stored: StoredRun) -> None:
        self.stored = stored

    def symbols(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The replay's names; then those that only the recording has."""
        found = {s for name in ("bars", "rejected", "decisions") for s in self.stored.query(
            f"SELECT DISTINCT symbol FROM {name} WHERE run_id = {{r:String}}")["symbol"].to_pylist()}
        return (*known, *sorted(str(s) for s in found if s and s not in known))

    def rows(self, spec: TableSpec, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> Rows:
        """The rows of a table."""
        return from_arrow(spec, self.stored.table(spec), symbols, strategies)

    def features(self, symbols: tuple[str, ...]) -> dict[FeatureKey, Rows]:
        """The rows of every feature set."""
        return compact_to_rows(self.stored.table(FEATURES), symbols)


class KafkaRecorded:
    """Records on the topics of a broker."""

    def __init__(self, kafka: KafkaConfig, run: str) -> None:
        self.kafka, self.run = kafka, run
        self._arrow: dict[str, pa.Table] = {}

    def _payloads(self, spec: TableSpec) -> list[bytes]:
        from sources.kafka_topics import payloads_of
        return payloads_of(self.kafka, spec.name, self.run)

    def _table(self, spec: TableSpec) -> pa.Table:
        if spec.name not in self._arrow:
            tables = [decode_ipc(p) for p in self._payloads(spec)]
            self._arrow[spec.name] = pa.concat_tables([_spelled_out(t) for t in tables]) if tables else pa.table({})
        return self._arrow[spec.name]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        from schemas.tables import BARS, REJECTED
        from schemas.tables_desk import DECISIONS
        found: set[str] = set()
        for spec in (BARS, REJECTED, DECISIONS):
            table = self._table(spec)
            found |= set(names_in(table)) if table.num_rows else set()
        return tuple(sorted(found))

    def symbols(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The replay's names; then those that only the recording has."""
        return (*known, *(s for s in self._names if s not in known))

    def rows(self, spec: TableSpec, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> Rows:
        """The rows of a table."""
        if TOPICS[spec.name].codec == "json":
            return decode_json(spec, self._payloads(spec), symbols, strategies)
        table = self._table(spec)
        return from_arrow(spec, table, symbols, strategies) if table.num_rows else spec.empty(0)

    def features(self, symbols: tuple[str, ...]) -> dict[FeatureKey, Rows]:
        """The rows of every feature set."""
        return compact_to_rows(self._table(FEATURES), symbols)


def _spelled_out(table: pa.Table) -> pa.Table:
    """The table with names instead of dictionaries: each message has its own."""
    return table.cast(pa.schema([f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]))
