"""The bar batch as the kernels see it: one float64 row per column, one entry per bar.

Bars are copied out of their records in chunks, so that a chunk of columns and results stays in the processor's cache
while every kernel passes over it. Logarithms are taken once here, because a dozen features need them. Times are in
whole seconds: a float64 would lose the nanoseconds.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.tables import BARS

compiled = njit(cache=True, nogil=True, error_model="numpy")
"""How kernels are compiled: on first use, kept on disk; a division by zero gives inf or NaN, as in NumPy."""
helper = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
"""How the small functions inside kernels are."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

OPEN, HIGH, LOW, CLOSE, VOLUME, NOTIONAL, VWAP, TRADE_COUNT, BUY_VOLUME, BID, ASK, BID_SIZE, ASK_SIZE = range(13)
TS_OPEN, INTERVAL = 13, 14
"""Seconds since 1970 UTC of the bar's open; the bar's length in seconds."""
LOG_OPEN, LOG_HIGH, LOG_LOW, LOG_CLOSE = 15, 16, 17, 18
N_COLS = 19

CHUNK = 512
"""Bars per pass. Larger chunks cost cache misses, smaller ones cost calls; measured best on 512 KiB of second-level
cache.
"""
STRIDE = CHUNK + 8
"""Length of a scratch row; not a power of two, so that rows do not share cache sets."""

_NAMES = tuple(f.name for f in BARS.fields)
AT = np.array([_NAMES.index(name) for name in (
    "open", "high", "low", "close", "volume", "notional", "vwap", "trades", "buy_volume", "bid", "ask", "bid_size",
    "ask_size", "ts_open_ns", "interval_ns", "symbol",
)], np.int64)
"""Position in a bar record of each column above, then of the symbol."""
KIND_AT, INTERVAL_AT = _NAMES.index("bar_kind"), _NAMES.index("interval_ns")
assert BARS.dtype.itemsize == 8 * len(_NAMES), "a bar is a record of eight-byte fields without padding"


def as_columns(rows: npt.NDArray[Any]) -> tuple[Floats, Ints]:
    """The same memory twice, as (rows, fields) of float64 and of int64: every field of a record takes eight bytes."""
    flat = np.ascontiguousarray(rows)
    shape = (len(flat), len(_NAMES))
    return flat.view(np.float64).reshape(shape), flat.view(np.int64).reshape(shape)


@compiled
def select_bars(ints: Ints, kind_at: int, interval_at: int, interval_ns: int, index: Ints) -> int:
    """Positions of the time bars of this interval, in order; how many there are."""
    n = 0
    for i in range(ints.shape[0]):
        if ints[i, kind_at] == 0 and ints[i, interval_at] == interval_ns:
            index[n] = i
            n += 1
    return n


@compiled
def load_columns(floats: Floats, ints: Ints, start: int, n: int, at: Ints, b: Floats, code: Codes) -> None:
    """Copy bars `start` to `start + n` into the first n entries of `b` and `code`; `at` holds the fields' positions in
    a record.
    """
    for i in range(n):
        row = start + i
        for c in range(13):
            b[c, i] = float(ints[row, at[c]]) if c == TRADE_COUNT else floats[row, at[c]]
        if not b[NOTIONAL, i] > 0.0:  # a recording without it
            b[NOTIONAL, i] = (b[HIGH, i] + b[LOW, i] + b[CLOSE, i]) / 3.0 * b[VOLUME, i]
        b[TS_OPEN, i] = float(ints[row, at[13]] // 1_000_000_000)
        b[INTERVAL, i] = ints[row, at[14]] * 1e-9
        b[LOG_OPEN, i] = math.log(b[OPEN, i])
        b[LOG_HIGH, i] = math.log(b[HIGH, i])
        b[LOG_LOW, i] = math.log(b[LOW, i])
        b[LOG_CLOSE, i] = math.log(b[CLOSE, i])
        code[i] = ints[row, at[15]]


@compiled
def store_values(out: Floats, columns: Ints, n: int, values: Floats, start: int) -> None:
    """Turn result rows into the rows of a table: values[start + i, c] = out[columns[c], i], in tiles of 32 bars."""
    for i0 in range(0, n, 32):
        i1 = min(i0 + 32, n)
        for c in range(columns.shape[0]):
            row = columns[c]
            for i in range(i0, i1):
                values[start + i, c] = out[row, i]
