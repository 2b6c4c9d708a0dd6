"""One message the slow way: by the project's codecs, with whatever is wrong with it said in one sentence.

This is what decides whether a message is taken; the compiled ways only take what this would take, and give the same bits.
A message that is refused leaves no name behind.
"""

import re
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from schemas.codec import arrow_type, from_arrow
from schemas.codec_json import decode_json
from schemas.errors import UserError
from schemas.json_schema import OPTIONAL
from schemas.messages import Headers, check_version, codec_of, decode_arrow
from schemas.tables import Rows, TableSpec
from schemas.topics import TOPICS
from sources.kafka_names import Interner

OF_A_SYMBOL = ("trades", "quotes", "recorded", "bars", "late", "rejected", "funding", "signals", "features", "approved", "fills", "orders")
FOR_ALL = frozenset(TOPICS) - frozenset(OF_A_SYMBOL)
"""Tables of which a row may speak for every symbol, or for the account."""
SHOWN_MAX = 60
"""Characters of a value that a sentence repeats."""
_WANTED = {
    "time": "a whole number", "int": "a whole number", "float": "a number", "bool": "true or false", "ints": "a list of whole numbers",
    "floats": "a list of numbers",
}  # fmt: skip
_PLACE = re.compile(r" - at `\$\.(\w+)")


def read_message(spec: TableSpec, payload: bytes, headers: Headers, symbols: Interner, strategies: Interner) -> Rows:
    """The rows of a message; UserError with the sentence where there are none to be had."""
    if not payload:
        raise UserError("the message is empty")
    check_version(spec, headers)
    if codec_of(payload, headers) == "json":
        return _from_json(spec, payload, symbols, strategies)
    return _from_arrow(spec, payload, symbols, strategies)


def _from_json(spec: TableSpec, payload: bytes, symbols: Interner, strategies: Interner) -> Rows:
    document = _document(spec, payload)
    # with its own names alone, so that a bad row adds none
    own = {f.name: document[f.name] for f in spec.fields if f.kind in ("symbol", "strategy") and f.name in document}
    for name, value in own.items():
        if not isinstance(value, str):
            raise UserError(f"{name} {_shown(value)} is not text")
        (symbols if name == "symbol" else strategies).check(value)
    used = {name: (value,) if value else () for name, value in own.items()}
    try:
        rows = decode_json(spec, [payload], used.get("symbol", ()), used.get("strategy", ()), OPTIONAL.get(spec.name, {}))
    except UserError as error:
        raise UserError(_sentence(spec, document, str(error))) from None
    for name, value in own.items():
        rows[name] = (symbols if name == "symbol" else strategies).code(value)
    return rows


def _document(spec: TableSpec, payload: bytes) -> dict[str, Any]:
    """The message as plain values, with the mistakes that make all of it unreadable told."""
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"not a JSON object: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"JSON, but not an object: {_shown(document)}")
    optional = OPTIONAL.get(spec.name, {})
    missing = [f.name for f in spec.fields if f.name not in document and f.name not in optional]
    if missing:
        raise UserError(f"a row of {spec.name} needs {', '.join(missing)}; it has {', '.join(map(str, document)) or 'nothing'}"[:300])
    if "symbol" in document and document["symbol"] == "" and spec.name not in FOR_ALL:
        raise UserError(f"symbol is empty; a row of {spec.name} is of one symbol")
    return document


def _sentence(spec: TableSpec, document: dict[str, Any], error: str) -> str:
    """What is wrong, beginning with the column and its value."""
    place = _PLACE.search(error)
    field = next((f for f in spec.fields if place and f.name == place[1]), None)
    if field is not None:
        return f"{field.name} {_shown(document[field.name])} is not {_WANTED.get(field.kind, 'text')}"
    column = re.match(rf"{spec.name}\.(\w+): ", error)
    if column and error.endswith("a value does not fit its column"):
        return f"{column[1]} {_shown(document.get(column[1]))} does not fit a 64-bit integer"
    return f"{column[1]} {error[column.end() :]}" if column else error.removeprefix(f"{spec.name} message 1: ")


def _shown(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        text = str(type(value).__name__)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def _from_arrow(spec: TableSpec, payload: bytes, symbols: Interner, strategies: Interner) -> Rows:
    table = decode_arrow(payload)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise UserError(f"a broken Arrow table: {error}") from None
    for name, value in OPTIONAL.get(spec.name, {}).items():
        if name not in table.column_names:
            kind = arrow_type(spec.field(name))
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            filled = pa.array(np.repeat(np.nan if value is None else value, table.num_rows), plain)
            table = table.append_column(name, filled.dictionary_encode() if plain is not kind else filled)
    names: dict[str, list[str]] = {"symbol": [], "strategy": []}
    for f in spec.fields:
        if f.kind in names and f.name in table.column_names:
            names[f.kind] += _names_of(table, f.name)
    if "" in names["symbol"] and spec.name not in FOR_ALL:
        raise UserError(f"symbol is empty; a row of {spec.name} is of one symbol")
    found = {kind: [name for name in dict.fromkeys(used) if name] for kind, used in names.items()}
    for name in found["symbol"]:
        symbols.check(name)
    for name in found["strategy"]:
        strategies.check(name)
    rows = from_arrow(spec, table, found["symbol"], found["strategy"])
    for f in spec.fields:
        if f.kind in names:
            interner = symbols if f.kind == "symbol" else strategies
            codes = np.array([*(interner.code(name) for name in found[f.kind]), -1], np.int64)
            rows[f.name] = codes[rows[f.name]]  # -1, no name, is the last
    return rows


def _names_of(table: pa.Table, column: str) -> list[str]:
    """The distinct names of a column in the order in which they come."""
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UserError(f"{column} is {values.type}, needs text")
    found: list[str] = [value for value in values.unique().to_pylist() if value is not None]
    return found
