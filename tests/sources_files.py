"""Files for the tests of the sources: rows as Penstock writes them, and a tape as one array per table."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from schemas.codec import to_arrow
from schemas.frame import Frame
from schemas.tables import BARS, BEATS, QUOTES, RECORDED, TRADES, Rows, TableSpec

SPECS: dict[str, TableSpec] = {spec.name: spec for spec in (TRADES, QUOTES, RECORDED, BEATS)}
START_NS = 1_700_000_000 * 10**9


def write_rows(path: Path, spec: TableSpec, rows: Rows, symbols: tuple[str, ...]) -> str:
    """Parquet, as a tool that writes our tables would."""
    pq.write_table(to_arrow(spec, rows, symbols), path, row_group_size=max(1, len(rows) // 3))
    return str(path)


def some_rows(spec: TableSpec, times: Iterable[int], symbol: int = 0) -> Rows:
    """Rows at these times after the start (in s) that differ in a value."""
    ts = START_NS + np.array(list(times), np.int64) * 10**9
    rows = spec.empty(len(ts))
    rows["ts_event_ns"], rows["symbol"] = ts, symbol
    names = rows.dtype.names or ()
    for name in ("price", "bid", "close"):
        if name in names:
            rows[name] = 100.0 + np.arange(len(ts))
    if spec in (BARS, RECORDED):
        rows["ts_open_ns"], rows["ts_close_ns"], rows["interval_ns"] = ts - 10**9, ts, 10**9
    return rows


def whole(frames: Iterable[Frame]) -> dict[str, Rows]:
    """All rows of all frames, per table."""
    parts: dict[str, list[Rows]] = {}
    for frame in frames:
        for name, rows in frame.tables.items():
            parts.setdefault(name, []).append(rows)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def same(a: Any, b: Any) -> bool:
    """Bit for bit, NaN included."""
    return set(a) == set(b) and all(a[k].tobytes() == b[k].tobytes() for k in a)
