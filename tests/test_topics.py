"""Every table has a topic and a warehouse table, and the DDL says what Arrow says."""

import re

import pyarrow as pa
import pytest

from schemas import ddl, tables, tables_desk, tables_live, tables_models
from schemas.codec import arrow_schema
from schemas.tables import TableSpec
from schemas.topics import FOR_EVER, TABLES, TOPICS


def test_every_declared_table_is_a_topic() -> None:
    declared = {s.name for m in (tables, tables_desk, tables_live, tables_models) for s in vars(m).values() if isinstance(s, TableSpec)}
    assert declared | {"features"} == set(TOPICS) == set(TABLES)
    assert len({t.name for t in TOPICS.values()}) == len(TOPICS)
    for name, topic in TOPICS.items():
        assert topic.table.name == name == topic.warehouse_table
        assert topic.partitions > 0
        assert re.fullmatch(r"[a-z._]+", topic.name)


@pytest.mark.parametrize("name", ["trades", "quotes", "bars", "decisions", "orders", "fills", "ledger", "audit", "runs"])
def test_history_is_kept_for_ever(name: str) -> None:
    assert TOPICS[name].retention_ms == FOR_EVER


def test_keys_follow_who_keeps_order() -> None:
    assert TOPICS["trades"].key == TOPICS["funding"].key == "symbol"
    assert TOPICS["fills"].key == TOPICS["control"].key == "account"
    assert TOPICS["runs"].key == "run"


@pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
def test_keys_are_columns_and_every_column_has_a_type(spec: TableSpec) -> None:
    names = [f.name for f in spec.fields]
    assert set(spec.key) <= set(names) and len(set(names)) == len(names)
    sql = ddl.create_table(spec, "p`d")
    assert sql.startswith(f"CREATE TABLE IF NOT EXISTS `p\\`d`.`{spec.name}`")
    assert "Nullable" not in sql
    assert f"ORDER BY (run_id, {', '.join(f'`{k}`' for k in spec.key)})" in sql
    for f, arrow in zip(spec.fields, arrow_schema(spec), strict=True):
        assert f"`{f.name}` {ddl.clickhouse_type(arrow.type)} " in sql
        assert (f"`{f.name[:-3]}` DateTime64(9, 'UTC') ALIAS" in sql) == (f.kind == "time")


def test_types() -> None:
    assert ddl.clickhouse_type(pa.dictionary(pa.int8(), pa.string())) == "LowCardinality(String)"
    assert ddl.clickhouse_type(pa.decimal128(19, 8)) == "Decimal(19, 8)"
    assert ddl.clickhouse_type(pa.list_(pa.float64())) == "Array(Float64)"
    with pytest.raises(ValueError, match="no ClickHouse type for date32"):
        ddl.clickhouse_type(pa.date32())


def test_create_all_starts_with_the_database() -> None:
    statements = ddl.create_all("mine")
    assert statements[0] == "CREATE DATABASE IF NOT EXISTS `mine`"
    assert len(statements) == 1 + len(TABLES)
    assert "fsync" not in ddl.create_table(tables.TRADES, fsync=False)
