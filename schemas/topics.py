"""The one table of topics: for every table its topic, key, partitions, retention, warehouse table and codec.

A table becomes a topic by being declared in `schemas.tables`, `tables_desk`, `tables_live`, `tables_models` or `codec_features`. Topics
whose records cannot be made again keep them for ever (-1): with a finite retention, a broker deletes a record by its
event time as soon as its segment closes, so replayed history would be gone within minutes.
"""

from dataclasses import dataclass
from typing import Literal

from schemas import codec_features, tables, tables_desk, tables_live, tables_models
from schemas.tables import TableSpec

PREFIX = "penstock."
FOR_EVER = -1
DAY_MS = 86_400_000

Key = Literal["symbol", "account", "run"]
Codec = Literal["arrow", "json"]


@dataclass(frozen=True)
class Topic:
    """One topic.

    key: what a message's key is, hence what stays in order. codec: arrow is an IPC stream of many rows, json one object
    a row. warehouse_table: the ClickHouse table that the rows land in.
    """

    name: str
    table: TableSpec
    key: Key
    partitions: int
    retention_ms: int
    warehouse_table: str
    codec: Codec

    def named(self, prefix: str) -> str:
        """Its name on a broker that is shared by several installations."""
        return prefix + self.table.name


_MODULES = (tables, codec_features, tables_desk, tables_live, tables_models)
_BY_ACCOUNT = {
    s.name for m in (tables_desk, tables_live) for s in vars(m).values() if isinstance(s, TableSpec)
} - {"funding"} | {"promotions"}
_ONE_PARTITION = {"promotions", "runs", "journal", "approved", "dead_letter"}
"""Those whose order over all of an account is read back."""
_RETENTION_DAYS = {"dead_letter": 30, "late": 30, "rejected": 30, "features": 30}
"""Days for what a replay makes again, or what matters only live; everything else is kept for ever."""
_JSON = {"promotions", "control", "runs", "journal", "approved", "reports", "dead_letter"}
"""Few rows that people and other programs write or read."""


def _topic(spec: TableSpec) -> Topic:
    key: Key = "run" if spec.name == "runs" else "account" if spec.name in _BY_ACCOUNT else "symbol"
    days = _RETENTION_DAYS.get(spec.name)
    return Topic(
        name=PREFIX + spec.name,
        table=spec,
        key=key,
        partitions=1 if spec.name in _ONE_PARTITION else {"symbol": 16, "account": 4, "run": 1}[key],
        retention_ms=FOR_EVER if days is None else days * DAY_MS,
        warehouse_table=spec.name,
        codec="json" if spec.name in _JSON else "arrow",
    )


TABLES: dict[str, TableSpec] = {
    spec.name: spec for module in _MODULES for spec in vars(module).values() if isinstance(spec, TableSpec)
}
"""Every table by name."""

TOPICS: dict[str, Topic] = {name: _topic(spec) for name, spec in TABLES.items()}
"""Every topic by the name of its table."""
