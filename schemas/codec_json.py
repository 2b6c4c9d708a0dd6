"""Rows as JSON messages, one object a row, for topics that people and other languages read.

Exact both ways: an amount is a decimal string, an id sixteen hex digits, a code its name; NaN is null and the
infinities are the strings "Infinity" and "-Infinity", since JSON has no such numbers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from schemas.codec import NO_NAME, has_text
from schemas.errors import UserError, unknown
from schemas.ids import id_text
from schemas.money import UNITS, parse_units
from schemas.tables import Field, Rows, TableSpec

_Number = float | str | None
_PYTHON: dict[str, Any] = {
    "time": int, "int": int, "float": _Number, "money": str, "symbol": str, "strategy": str, "enum": str, "id": str,
    "bool": bool, "floats": list[_Number], "ints": list[int], "text": str,
}

_structs: dict[tuple[str, ...], type[msgspec.Struct]] = {}
_NONE: Mapping[str, Any] = {}
_encoder = msgspec.json.Encoder()


def record_type(spec: TableSpec, optional: Mapping[str, Any] = _NONE) -> type[msgspec.Struct]:
    """The msgspec record of a table's JSON message; unknown members are ignored, missing ones are an error, but for the `optional`
    ones, which have these values then."""
    key = (spec.name, *optional)
    if key not in _structs:
        columns: list[Any] = [(f.name, _PYTHON[f.kind], *([optional[f.name]] if f.name in optional else [])) for f in spec.fields]
        _structs[key] = msgspec.defstruct(spec.name, columns, gc=False, kw_only=bool(optional))
    return _structs[key]


def encode_json(
    spec: TableSpec,
    rows: Rows | Sequence[Mapping[str, Any]],
    symbols: Sequence[str] = (),
    strategies: Sequence[str] = (),
) -> list[bytes]:
    """One JSON object per row (or per record, for a table with text columns)."""
    record = record_type(spec)
    if has_text(spec):
        return [_encoder.encode(record(**r)) for r in rows]
    assert isinstance(rows, np.ndarray)
    columns = [_outside(f, rows[f.name].tolist(), symbols, strategies) for f in spec.fields]
    return [_encoder.encode(record(*values)) for values in zip(*columns, strict=True)]


def decode_json(
    spec: TableSpec, messages: Iterable[bytes], symbols: Sequence[str] = (), strategies: Sequence[str] = (),
    optional: Mapping[str, Any] = _NONE,
) -> Rows:
    """The rows of JSON messages; UserError that names table, message number and what is wrong with it."""
    found = _decode(spec, messages, optional)
    rows = spec.empty(len(found))
    for f in spec.fields:
        try:
            rows[f.name] = _inside(f, [getattr(r, f.name) for r in found], symbols, strategies)
        except UserError as error:
            raise UserError(f"{spec.name}.{f.name}: {error}") from None
        except (OverflowError, ValueError) as error:
            raise UserError(f"{spec.name}.{f.name}: {error}; a value does not fit its column") from None
    return rows


def decode_json_records(spec: TableSpec, messages: Iterable[bytes]) -> list[dict[str, Any]]:
    """The records of JSON messages of a table with text columns."""
    return [msgspec.structs.asdict(r) for r in _decode(spec, messages)]


def _decode(spec: TableSpec, messages: Iterable[bytes], optional: Mapping[str, Any] = _NONE) -> list[Any]:
    decoder = msgspec.json.Decoder(record_type(spec, optional))
    found: list[Any] = []
    for message in messages:
        try:
            found.append(decoder.decode(message))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{spec.name} message {len(found) + 1}: {error}") from None
    return found


def _outside(field: Field, values: list[Any], symbols: Sequence[str], strategies: Sequence[str]) -> list[Any]:
    match field.kind:
        case "float":
            return [_number_out(v) for v in values]
        case "floats":
            return [[_number_out(v) for v in row] for row in values]
        case "money":
            return [money_text(v) for v in values]
        case "id":
            return [id_text(v) for v in values]
        case "bool":
            return [bool(v) for v in values]
        case "symbol":
            return [_name(v, symbols) for v in values]
        case "strategy":
            return [_name(v, strategies) for v in values]
        case "enum":
            return [field.labels[v] for v in values]
    return values


def _inside(field: Field, values: list[Any], symbols: Sequence[str], strategies: Sequence[str]) -> Any:
    match field.kind:
        case "float":
            return [_number_in(v) for v in values]
        case "floats":
            return np.array([[_number_in(v) for v in row] for row in values]).reshape(-1, field.width)
        case "ints":
            return np.array(values, np.int64).reshape(-1, field.width)
        case "money":
            return [parse_units(v) for v in values]
        case "id":
            return np.array([_id(v) for v in values], np.uint64)
        case "symbol":
            return _codes(values, symbols, field, True)
        case "strategy":
            return _codes(values, strategies, field, True)
        case "enum":
            return _codes(values, field.labels, field, False)
    return values


def _number_out(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def _number_in(value: float | str | None) -> float:
    if isinstance(value, float):
        return value
    if value is None:
        return math.nan
    if value in ("Infinity", "-Infinity"):
        return math.inf if value == "Infinity" else -math.inf
    raise UserError(f'"{value}" is not a number; write it without quotes')


def money_text(units: int) -> str:
    """Units as a decimal with eight places, never in scientific notation: `-0.00000001`."""
    whole, rest = divmod(abs(units), UNITS)
    return f"{'-' if units < 0 else ''}{whole}.{rest:08d}"


def _id(text: str) -> int:
    if len(text) == 16:
        try:
            return int(text, 16)
        except ValueError:
            pass
    raise UserError(f'"{text}" is not an id; an id is 16 hex digits')


def _name(code: int, names: Sequence[str]) -> str:
    if code == NO_NAME:
        return ""
    if not 0 <= code < len(names):
        raise ValueError(f"code {code} is not one of {len(names)} names")
    return names[code]


def _codes(values: list[str], names: Sequence[str], field: Field, optional: bool) -> list[int]:
    codes = {name: code for code, name in enumerate(names)}
    if optional:
        codes[""] = NO_NAME
    try:
        return [codes[v] for v in values]
    except KeyError as error:
        raise unknown(field.name, str(error.args[0]), names) from None
