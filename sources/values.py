"""Arrow columns to NumPy, strictly: a cell that is not what its role wants is a `UserError` naming place and value.

Missing numbers become NaN (the quality operator rejects such rows with a reason); a missing time is an error, because a
row without a time has no place on a tape. `Place` gives the file and the row of an index into the column.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.tables import BUY, NO_SIDE, SELL

Place = Callable[[int], str]
"""Index of a row in the block → `ticks.csv line 17`."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SIDES = {
    "buy": BUY,
    "b": BUY,
    "bid": BUY,
    "1": BUY,
    "+1": BUY,
    "sell": SELL,
    "s": SELL,
    "ask": SELL,
    "a": SELL,
    "-1": SELL,
    "2": SELL,
    "none": NO_SIDE,
    "": NO_SIDE,
    "n": NO_SIDE,
    "0": NO_SIDE,
    "unknown": NO_SIDE,
}
_TRUTH = {"true": 1, "t": 1, "1": 1, "false": 0, "f": 0, "0": 0}
_TIME_FORMATS = (
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%Y%m%d %H:%M:%S",
    "%Y%m%d",
)
_EPOCHS = ((10**8, 10**11, 10**9), (10**11, 10**14, 10**6), (10**14, 10**17, 10**3), (10**17, 2**63 - 1, 1))
"""Numbers as times: from, to (exclusive), ns per unit. Seconds, ms, µs and ns cannot be confused after 1973."""


def times_ns(column: Any, place: Place, name: str, *, is_ns: bool = False) -> Ints:
    """Times in ns since 1970 UTC of a column of timestamps, dates, numbers (s, ms, µs, ns by magnitude) or text."""
    column = _plain(column)
    if column.null_count:
        raise UserError(f"{place(_first(column.is_null()))}: {name} is missing; every row needs a time")
    kind = column.type
    if pa.types.is_timestamp(kind):
        per = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        raw = column.view(pa.int64()).to_numpy(zero_copy_only=False)
        return _scaled(raw, per, place, name)
    if pa.types.is_date(kind):
        return _ints(column.cast(pa.timestamp("ns")).view(pa.int64()))
    if pa.types.is_integer(kind):
        raw = _ints(column.cast(pa.int64()))
        return raw if is_ns else _epoch(raw, place, name)
    if pa.types.is_floating(kind):
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64)
        bad = ~np.isfinite(numbers)
        if bad.any():
            raise UserError(f"{place(int(bad.argmax()))}: {name} is missing; every row needs a time")
        return _epoch_floats(numbers, place, name)
    if _is_text(kind):
        return _text_times(column.cast(pa.string()), place, name, is_ns)
    raise UserError(f"{place(0)}: {name} is of type {kind}, not a time")


def floats(column: Any, place: Place, name: str) -> Floats:
    """Numbers as float64, NaN where missing."""
    column = _plain(column)
    try:
        if _is_text(column.type):
            column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        out = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _bad_number(column, place, name, float) from None
    values: Floats = out.to_numpy(zero_copy_only=False)
    return values


def ints(column: Any, place: Place, name: str, missing: int) -> Ints:
    """Whole numbers as int64, `missing` where there is none."""
    column = _plain(column)
    try:
        out = column.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _bad_number(column, place, name, int) from None
    return _ints(out.fill_null(missing) if out.null_count else out)


def sides(column: Any, place: Place, name: str) -> Ints:
    """Aggressor sides of a column of `buy`, `sell`, `none` or of our codes 0, 1, 2."""
    if pa.types.is_integer(column.type):
        raw = ints(column, place, name, NO_SIDE)
        bad = (raw < -1) | (raw > 2)
        if bad.any():
            k = int(bad.argmax())
            raise UserError(f'{place(k)}: {name} "{raw[k]}" is neither buy, sell nor none')
        return np.where(raw == -1, SELL, raw)
    return _mapped(column, _SIDES, place, name, "buy, sell nor none", NO_SIDE)


def truths(column: Any, place: Place, name: str) -> Ints:
    """0 and 1 of a column of truth values or of `true` and `false`; 0 where missing."""
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        raw = _plain(column).cast(pa.int64())
        return _ints(raw.fill_null(0) if raw.null_count else raw)
    return _mapped(column, _TRUTH, place, name, "true nor false", 0)


def texts(column: Any) -> tuple[list[str], Ints]:
    """The distinct texts of a column and, for each row, the index of its own; -1 where missing."""
    column = _flat(column)
    encoded = column if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()
    indices = encoded.indices.cast(pa.int64())
    names = [str(v).strip() if v is not None else "" for v in encoded.dictionary.to_pylist()]
    return names, _ints(indices.fill_null(-1) if indices.null_count else indices)


def _mapped(column: Any, codes: dict[str, int], place: Place, name: str, wanted: str, missing: int) -> Ints:
    names, indices = texts(column)
    lookup = np.array([codes.get(n.lower(), -2) for n in names] + [missing], np.int64)
    out: Ints = lookup[indices]
    bad = out == -2
    if bad.any():
        k = int(bad.argmax())
        raise UserError(f'{place(k)}: {name} "{names[int(indices[k])]}" is neither {wanted}')
    return out


def _text_times(column: Any, place: Place, name: str, is_ns: bool) -> Ints:
    column = pc.utf8_trim_whitespace(column)
    if len(column) == 0:
        return np.empty(0, np.int64)
    first = column[0].as_py()
    for parse in (_as_numbers(place, name, is_ns), _as_iso, *(_as_format(f) for f in _TIME_FORMATS)):
        try:
            parse(column.slice(0, 1))
        except (pa.ArrowInvalid, ValueError, UserError):
            continue
        try:
            return parse(column)
        except (pa.ArrowInvalid, ValueError):
            for k in range(len(column)):
                try:
                    parse(column.slice(k, 1))
                except (pa.ArrowInvalid, ValueError):
                    raise UserError(
                        f'{place(k)}: {name} "{column[k].as_py()}" is not a time like "{first}" on the first row'
                    ) from None
            raise
    raise UserError(f'{place(0)}: {name} "{first}" is not a time; write 2024-01-31 09:30:00 or ms since 1970')


def _as_numbers(place: Place, name: str, is_ns: bool) -> Callable[[Any], Ints]:
    def parse(column: Any) -> Ints:
        try:
            whole = column.cast(pa.int64())
        except pa.ArrowInvalid:
            return _epoch_floats(column.cast(pa.float64()).to_numpy(zero_copy_only=False), place, name)
        return _ints(whole) if is_ns else _epoch(_ints(whole), place, name)

    return parse


def _as_iso(column: Any) -> Ints:
    zoned = re.search(r"(Z|[+-]\d\d:?\d\d)$", column[0].as_py()[10:]) is not None
    return _ints(column.cast(pa.timestamp("ns", "UTC" if zoned else None)).view(pa.int64()))


def _as_format(form: str) -> Callable[[Any], Ints]:
    def parse(column: Any) -> Ints:
        return _ints(pc.strptime(column, format=form, unit="s").cast(pa.timestamp("ns")).view(pa.int64()))

    return parse


def _epoch(raw: Ints, place: Place, name: str) -> Ints:
    """Numbers since 1970 in the unit that the first one's magnitude shows; all must be of that unit."""
    if len(raw) == 0:
        return raw
    lo, hi, per = next((e for e in _EPOCHS if e[0] <= int(raw[0]) < e[1]), (0, 0, 0))
    bad = (raw < lo) | (raw >= hi)
    if bad.any():
        k = int(bad.argmax())
        raise UserError(
            f'{place(k)}: {name} "{raw[k]}" is not a time'
            + (" in s, ms, µs or ns since 1970" if k == 0 else f' in the unit of "{raw[0]}" on an earlier row')
        )
    return raw * per


def _epoch_floats(numbers: Floats, place: Place, name: str) -> Ints:
    if len(numbers) == 0:
        return np.empty(0, np.int64)
    per = next((e[2] for e in _EPOCHS if e[0] <= numbers[0] < e[1]), 0)
    whole = np.floor(numbers)
    # the fraction apart: a double holds 1.7e9 s only to 0.2 µs
    out = _epoch(whole.astype(np.int64), place, name) + np.rint((numbers - whole) * per).astype(np.int64)
    return np.asarray(out, np.int64)


def _scaled(raw: Any, per: int, place: Place, name: str) -> Ints:
    limit = (2**63 - 1) // per
    bad = (raw > limit) | (raw < -limit)
    if bad.any():
        k = int(bad.argmax())
        raise UserError(f"{place(k)}: {name} {raw[k]} does not fit nanoseconds in 64 bits")
    return np.asarray(raw, np.int64) * per if per != 1 else np.asarray(raw, np.int64)


def _bad_number(column: Any, place: Place, name: str, want: Callable[[Any], Any]) -> UserError:
    for k, value in enumerate(column.to_pylist()):
        try:
            if value is not None and want(value) != value and not isinstance(value, str):
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            what = "a whole number" if want is int else "a number"
            return UserError(f'{place(k)}: {name} "{value}" is not {what}')
    return UserError(f"{place(0)}: {name} is of type {column.type}, not numbers")


def _first(mask: Any) -> int:
    return int(mask.to_numpy(zero_copy_only=False).argmax())


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _plain(column: Any) -> Any:
    column = _flat(column)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _ints(column: Any) -> Ints:
    out: Ints = column.to_numpy(zero_copy_only=False)
    return out
