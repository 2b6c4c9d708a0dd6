"""The codec law: every row of every table survives Arrow, Arrow IPC and JSON, bit for bit (JSON: NaN for NaN)."""

import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.codec import (
    arrow_schema,
    decode_ipc,
    encode_ipc,
    from_arrow,
    has_text,
    names_in,
    records_from_arrow,
    to_arrow,
)
from schemas.codec_features import FEATURES, features_to_arrow, features_to_compact, widen
from schemas.codec_json import decode_json, decode_json_records, encode_json, money_text
from schemas.errors import UserError
from schemas.frame import FeatureRows
from schemas.money import parse_units
from schemas.tables import BARS, BEATS, TRADES, Field, TableSpec
from schemas.tables_desk import DECISIONS, FILLS, RUNS
from schemas.topics import TABLES

SYMBOLS = ("BTC-USDT", "ETHUSDT", "Ünïcode", "a'b\\c")
STRATEGIES = ("ema_cross", "rsi")
ROW_TABLES = [s for s in TABLES.values() if not has_text(s) and s is not FEATURES]
TEXT_TABLES = [s for s in TABLES.values() if has_text(s)]

_EVERY_KIND = TableSpec("every_kind", "One column of each kind.", ("a",), (
    Field("a", "time", ""), Field("b", "int", ""), Field("c", "float", ""), Field("d", "money", ""),
    Field("e", "symbol", ""), Field("f", "strategy", ""), Field("g", "enum", "", ("x", "y")), Field("h", "id", ""),
    Field("i", "bool", ""), Field("j", "floats", "", width=3), Field("k", "ints", "", width=2),
))


_INTS = np.array([-(2**63), 2**63 - 1, -1, 0, 1, 10**18, -123456789])
_FLOATS = np.array([0.0, -0.0, 5e-324, 1.7e308, np.inf, -np.inf, np.nan, 0.1, 1e-8, 2.0**53 + 2])


def rows_of(spec: TableSpec, n: int, seed: int) -> np.ndarray[Any, Any]:
    """Rows whose columns hold the extremes of what they may hold, and arbitrary bits."""
    rng = np.random.default_rng(seed)
    rows = np.frombuffer(rng.bytes(n * spec.dtype.itemsize), spec.dtype).copy()
    bounds = {"symbol": (-1, len(SYMBOLS)), "strategy": (-1, len(STRATEGIES)), "bool": (0, 2)}
    for f in spec.fields:
        column = rows[f.name]
        if f.kind in bounds or f.kind == "enum":
            rows[f.name] = rng.integers(*bounds.get(f.kind, (0, len(f.labels))), n)
        elif f.kind != "id":
            extremes = rng.choice(_FLOATS if f.kind in ("float", "floats") else _INTS, column.shape)
            rows[f.name] = np.where(rng.random(column.shape) < 0.7, extremes, column)
        if f.kind == "money":
            rows[f.name] = np.maximum(rows[f.name], -(2**63) + 1)
    return rows


@pytest.mark.parametrize("spec", [*ROW_TABLES, _EVERY_KIND], ids=lambda s: s.name)
def test_rows_round_trip(spec: TableSpec) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 6), st.integers(0, 2**32))
    @example(0, 0)
    def law(n: int, seed: int) -> None:
        rows = rows_of(spec, n, seed)
        table = to_arrow(spec, rows, SYMBOLS, STRATEGIES)
        table.validate(full=True)
        assert table.schema == arrow_schema(spec)
        assert from_arrow(spec, table, SYMBOLS, STRATEGIES).tobytes() == rows.tobytes()
        again = decode_ipc(encode_ipc(table, "lz4"))
        assert from_arrow(spec, again, SYMBOLS, STRATEGIES).tobytes() == rows.tobytes()
        from_json = decode_json(spec, encode_json(spec, rows, SYMBOLS, STRATEGIES), SYMBOLS, STRATEGIES)
        for name in rows.dtype.names or ():
            np.testing.assert_array_equal(from_json[name], rows[name])

    law()


@pytest.mark.parametrize("spec", TEXT_TABLES, ids=lambda s: s.name)
def test_records_round_trip(spec: TableSpec) -> None:
    def value(f: Field) -> Any:
        return 2**63 - 1 if f.kind in ("int", "time") else f'{f.name} "ü" {{}}\n'

    record: Mapping[str, Any] = {f.name: value(f) for f in spec.fields}
    for records in ([], [record], [record, record]):
        table = decode_ipc(encode_ipc(to_arrow(spec, records)))
        assert records_from_arrow(spec, table) == records
        assert decode_json_records(spec, encode_json(spec, records)) == records


def test_slices_and_foreign_types_of_a_table_decode_too() -> None:
    rows = DECISIONS.empty(5)
    rows["order_id"] = np.arange(5) * 2**60
    rows["quantity"] = [-1, 2**63 - 1, -(2**63), 0, 5]
    rows["verdicts"] = np.arange(5 * rows["verdicts"].shape[1]).reshape(5, -1)
    rows["symbol"] = [0, 1, -1, 2, 0]
    table = to_arrow(DECISIONS, rows, SYMBOLS, STRATEGIES)
    assert from_arrow(DECISIONS, table.slice(1, 3), SYMBOLS, STRATEGIES).tobytes() == rows[1:4].tobytes()
    foreign = pa.table({
        name: table[name].cast(pa.string()) if pa.types.is_dictionary(table[name].type) else table[name]
        for name in reversed(table.column_names)
    })
    foreign = pa.concat_tables([foreign.slice(0, 2), foreign.slice(2)])
    assert from_arrow(DECISIONS, foreign, SYMBOLS, STRATEGIES).tobytes() == rows.tobytes()
    assert names_in(table) == tuple(sorted(SYMBOLS[:3]))


def test_arrow_shares_no_memory_with_rows() -> None:
    rows = TRADES.empty(2)
    table = to_arrow(TRADES, rows, SYMBOLS)
    rows["price"] = 7.0
    assert table["price"].to_pylist() == [0.0, 0.0]


def test_a_null_float_is_nan_and_any_other_null_names_its_place() -> None:
    table = to_arrow(TRADES, TRADES.empty(2), SYMBOLS)
    nothing = pa.array([None, 1.0], pa.float64())
    found = from_arrow(TRADES, table.set_column(3, "price", nothing), SYMBOLS)
    assert math.isnan(found["price"][0]) and found["price"][1] == 1.0
    with pytest.raises(UserError, match=r"trades\.seq is null in row 2"):
        from_arrow(TRADES, table.set_column(1, "seq", pa.array([1, None], pa.int64())), SYMBOLS)


@pytest.mark.parametrize(("column", "values", "message"), [
    ("symbol", ["BTC-USDT", "ETHUSD"], 'unknown symbol "ETHUSD"; did you mean "ETHUSDT"'),
    ("side", ["buy", "bought"], 'unknown side "bought"'),
    ("price", ["1.5", "cheap"], r"trades\.price is string, needs double.*cheap"),
    ("seq", [1.0, 1.5], r"trades\.seq is double, needs int64"),
])
def test_a_wrong_value_is_named(column: str, values: list[Any], message: str) -> None:
    table = to_arrow(TRADES, TRADES.empty(2), SYMBOLS)
    at = table.column_names.index(column)
    with pytest.raises(UserError, match=message):
        from_arrow(TRADES, table.set_column(at, column, pa.array(values)), SYMBOLS)


def test_errors_of_shape_and_bytes() -> None:
    table = to_arrow(FILLS, FILLS.empty(1), SYMBOLS, STRATEGIES)
    with pytest.raises(UserError, match='fills has no column "fee"; it has'):
        from_arrow(FILLS, table.drop_columns("fee"), SYMBOLS, STRATEGIES)
    with pytest.raises(UserError, match='order_id: "12" is not an id'):
        at = table.column_names.index("order_id")
        from_arrow(FILLS, table.set_column(at, "order_id", pa.array(["12"])), SYMBOLS, STRATEGIES)
    with pytest.raises(UserError, match="not an Arrow IPC stream of 4 bytes"):
        decode_ipc(b"nope")
    with pytest.raises(ValueError, match=r"trades\.symbol.*code 9 is not one of 4 names"):
        rows = TRADES.empty(1)
        rows["symbol"] = 9
        to_arrow(TRADES, rows, SYMBOLS)
    with pytest.raises(UserError, match='unknown column of runs "stat"; did you mean "state"'):
        to_arrow(RUNS, [{"stat": "done"}])
    with pytest.raises(UserError, match="runs has no value for"):
        to_arrow(RUNS, [{"state": "done"}])
    with pytest.raises(TypeError, match="is text"):
        from_arrow(RUNS, to_arrow(RUNS, []))


@pytest.mark.parametrize(("message", "expected"), [
    (b"{", "trades message 2: Input data was truncated"),
    (b"{}", "trades message 2: Object missing required field `ts_event_ns`"),
    (b"\xff", "trades message 2"),
])
def test_bad_json_names_the_message(message: bytes, expected: str) -> None:
    good = encode_json(TRADES, TRADES.empty(1), SYMBOLS)[0]
    with pytest.raises(UserError, match=expected):
        decode_json(TRADES, [good, message], SYMBOLS)
    with pytest.raises(UserError, match=r"trades\.seq: .*does not fit"):
        decode_json(TRADES, [good.replace(b'"seq":0', b'"seq":9223372036854775808')], SYMBOLS)
    with pytest.raises(UserError, match='unknown symbol "?'):
        decode_json(TRADES, [good], SYMBOLS[1:])


def test_json_is_what_people_expect() -> None:
    rows = FILLS.empty(1)
    rows["fee"], rows["order_id"], rows["maker"], rows["strategy"], rows["symbol"] = -1, 255, 1, 0, -1
    text = encode_json(FILLS, rows, SYMBOLS, STRATEGIES)[0].decode()
    for part in ('"fee":"-0.00000001"', '"order_id":"00000000000000ff"', '"maker":true', '"strategy":"ema_cross"',
                 '"symbol":""'):
        assert part in text
    bar = BARS.empty(1)
    bar["bid"], bar["ask"] = math.nan, math.inf
    assert b'"bid":null,"ask":"Infinity"' in encode_json(BARS, bar, SYMBOLS)[0]
    assert b'"symbol":""' in encode_json(BEATS, np.array([(1, 2, -1)], BEATS.dtype))[0]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_money_text_is_exact(units: int) -> None:
    assert parse_units(money_text(units)) == units


def _features() -> FeatureRows:
    bars = BARS.empty(3)
    bars["symbol"], bars["close"], bars["seq"] = [0, 1, 0], [1.0, 2.0, 3.0], [5, 6, 7]
    values = np.array([[math.nan, 1.0], [2.0, math.nan], [3.0, 4.0]])
    return FeatureRows(60_000_000_000, ("rsi(14)", "macd(12,26,9).signal"), bars, values)


def test_features_wide_and_compact() -> None:
    features = _features()
    wide = features_to_arrow(features, SYMBOLS)
    wide.validate(full=True)
    assert wide.column_names[-2:] == ["rsi(14)", "macd(12,26,9).signal"]
    assert wide["rsi(14)"].to_pylist() == [None, 2.0, 3.0]
    assert wide["symbol"].to_pylist() == ["BTC-USDT", "ETHUSDT", "BTC-USDT"]
    assert wide["interval_ns"].to_pylist() == [60_000_000_000] * 3
    compact = features_to_compact(features, SYMBOLS)
    compact.validate(full=True)
    assert compact.schema == arrow_schema(FEATURES)
    assert compact["feature_set"].to_pylist()[0] == "rsi(14);macd(12,26,9).signal"
    assert widen(compact).to_pylist() == wide.to_pylist()
    assert widen(compact.slice(1, 1)).to_pylist() == wide.slice(1, 1).to_pylist()
    empty = FeatureRows(1, (), features.bars[:0], features.values[:0, :0])
    assert features_to_arrow(empty, SYMBOLS).num_rows == 0
    assert widen(features_to_compact(empty, SYMBOLS)).num_rows == 0


def test_importing_the_codec_loads_no_dataframe_library() -> None:
    code = "import sys, schemas.codec, schemas.topics, schemas.ddl; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
