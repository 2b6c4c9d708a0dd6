"""ClickHouse DDL, derived from the Arrow schemas: what a sink writes fits what a table holds, by construction.

Every table leads with `run_id` and is a ReplacingMergeTree ordered by (run_id, key), so writing a row twice leaves one;
readers use FINAL. No column is Nullable: NaN stays NaN. A time column `x_ns` has an alias `x`, a DateTime64 for people.
"""

from collections.abc import Iterable

import pyarrow as pa

from schemas.codec import arrow_schema
from schemas.tables import TableSpec
from schemas.topics import TABLES

DATABASE = "penstock"
RUN_ID = "run_id"
DEDUPLICATION_WINDOW = 1000
"""Blocks whose token a table remembers, so that a repeated insert is not even written."""
_SCALARS = {pa.int64(): "Int64", pa.float64(): "Float64", pa.string(): "String", pa.bool_(): "Bool"}


def quote(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def clickhouse_type(arrow: pa.DataType) -> str:
    """The ClickHouse type of an Arrow type; ValueError where there is no rule."""
    if pa.types.is_dictionary(arrow):
        return f"LowCardinality({clickhouse_type(arrow.value_type)})"
    if pa.types.is_decimal(arrow):
        return f"Decimal({arrow.precision}, {arrow.scale})"
    if pa.types.is_list(arrow):
        return f"Array({clickhouse_type(arrow.value_type)})"
    if arrow not in _SCALARS:
        raise ValueError(f"no ClickHouse type for {arrow}")
    return _SCALARS[arrow]


def create_database(database: str = DATABASE) -> str:
    """The statement that makes the database."""
    return f"CREATE DATABASE IF NOT EXISTS {quote(database)}"


def create_table(spec: TableSpec, database: str = DATABASE, fsync: bool = True) -> str:
    """The statement that makes a table; `fsync` makes an acknowledged insert survive a power cut too."""
    columns = [f"{RUN_ID} LowCardinality(String)"]
    for f, arrow in zip(spec.fields, arrow_schema(spec), strict=True):
        columns.append(f"{quote(f.name)} {clickhouse_type(arrow.type)} COMMENT {_text(f.doc)}")
        if f.kind == "time" and f.name.endswith("_ns"):
            alias = quote(f.name.removesuffix("_ns"))
            columns.append(f"{alias} DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano({quote(f.name)}, 'UTC')")
    order = ", ".join([RUN_ID, *map(quote, spec.key)])
    settings = [f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"]
    if fsync:
        settings += ["fsync_after_insert = 1", "fsync_part_directory = 1"]
    body = ",\n    ".join(columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {quote(database)}.{quote(spec.name)} (\n    {body}\n)\n"
        f"ENGINE = ReplacingMergeTree\nORDER BY ({order})\nSETTINGS {', '.join(settings)}\nCOMMENT {_text(spec.doc)}"
    )


def create_all(database: str = DATABASE, specs: Iterable[TableSpec] | None = None, fsync: bool = True) -> list[str]:
    """Every statement, in order: the database, then each table."""
    wanted = TABLES.values() if specs is None else specs
    return [create_database(database), *(create_table(spec, database, fsync) for spec in wanted)]


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
