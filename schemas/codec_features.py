"""Feature sets as Arrow tables: wide for research (a column per feature), compact for the warehouse (a list per row).

Both carry one row per closed bar with its prices. Wide writes null while a feature warms up; compact keeps the NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.codec import arrow_schema, named, plain
from schemas.errors import UserError
from schemas.frame import FeatureRows
from schemas.tables import BARS, Field, TableSpec

SEPARATOR = ";"
"""Joins feature names to the name of their set; a feature's name holds commas, never this."""

_BAR = ("symbol", "interval_ns", "ts_open_ns", "ts_event_ns", "seq", "open", "high", "low", "close", "volume")

FEATURES = TableSpec(
    "features", "Feature values of closed bars, as a list in the order of the names in `feature_set`.",
    ("symbol", "interval_ns", "feature_set", "ts_open_ns", "seq"),
    (
        *(BARS.field(name) for name in _BAR),
        Field("feature_set", "enum", f"names of the values, joined by {SEPARATOR}"),
        Field("values", "floats", "values, NaN while a feature warms up"),
    ),
)


def features_to_arrow(features: FeatureRows, symbols: Sequence[str]) -> pa.Table:
    """The wide form: the bar's columns, then one float64 column per feature, null where it has no value yet."""
    table = pa.table(_bar_columns(features, symbols))
    for i, name in enumerate(features.names):
        values = np.array(features.values[:, i], order="C")
        table = table.append_column(name, pa.array(values, mask=np.isnan(values)))
    return table


def features_to_compact(features: FeatureRows, symbols: Sequence[str]) -> pa.Table:
    """The compact form, of the schema of `FEATURES`."""
    n, width = features.values.shape
    columns = _bar_columns(features, symbols)
    columns["feature_set"] = named(np.zeros(n, np.int64), (SEPARATOR.join(features.names),))
    offsets = plain(np.arange(n + 1, dtype=np.int32) * np.int32(width), pa.int32())
    values = plain(np.array(features.values, np.float64, order="C").reshape(-1), pa.float64())
    columns["values"] = pa.ListArray.from_arrays(offsets, values)
    return pa.table(columns, schema=arrow_schema(FEATURES))


def widen(compact: pa.Table) -> pa.Table:
    """The wide form of a compact table whose rows are all of one feature set."""
    sets = compact["feature_set"].cast(pa.string()).unique().to_pylist()
    if len(sets) > 1:
        raise UserError(f"the rows are of {len(sets)} feature sets; select one by its feature_set")
    wide = compact.select(_BAR)
    names = sets[0].split(SEPARATOR) if sets else []
    flat = compact["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, max(len(names), 1))
    for i, name in enumerate(names):
        values = np.array(flat[:, i], order="C")
        wide = wide.append_column(name, pa.array(values, mask=np.isnan(values)))
    return wide


def _bar_columns(features: FeatureRows, symbols: Sequence[str]) -> dict[str, Any]:
    bars = features.bars
    columns: dict[str, Any] = {}
    for name in _BAR:
        values = np.array(bars[name], order="C")
        if name == "symbol":
            columns[name] = named(values, symbols)
        elif name == "interval_ns":
            columns[name] = plain(np.full(len(bars), features.interval_ns, np.int64), pa.int64())
        else:
            columns[name] = pa.array(values)
    return columns
