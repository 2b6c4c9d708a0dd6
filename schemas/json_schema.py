"""JSON Schema (draft 2020-12) of every topic's messages, derived from the tables like the codec and the DDL.

A message that the schema takes is a message that the decoder takes: the columns of `OPTIONAL` may be left out of market
input that somebody else produces, and have these values then; every other column is required. Further members are ignored.
"""

from collections.abc import Mapping
from typing import Any

from schemas.tables import Field
from schemas.topics import Topic

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INT64_MAX = 2**63 - 1

OPTIONAL: Mapping[str, Mapping[str, Any]] = {
    "trades": {"seq": -1, "side": "none", "trade_id": -1, "flags": 0},
    "quotes": {"seq": -1, "bid_size": 0.0, "ask_size": 0.0, "flags": 0},
    "beats": {"seq": -1, "symbol": ""},
    "funding": {"seq": -1, "mark": 0.0},
    "control": {"seq": -1, "symbol": ""},
    "reports": {"seq": -1},
    "recorded": {
        "seq": -1, "bar_kind": "time", "trades": 0, "buy_volume": None, "bid": None, "ask": None, "bid_size": None, "ask_size": None,
        "gap": 0, "first_seq": -1, "last_seq": -1,
    },
}
"""Columns that a producer may leave out, and what they are then. A `seq` of -1 says that the row has no number of its writer."""

OF_ONE_SYMBOL = ("trades", "quotes", "recorded", "funding", "reports")
"""Input of which a row speaks for one symbol; one of `beats` or `control` may speak for all, and names none then."""

_NUMBER: dict[str, Any] = {
    "anyOf": [{"type": "number"}, {"type": "null"}, {"enum": ["Infinity", "-Infinity"]}],
}
_INTEGER: dict[str, Any] = {"type": "integer", "minimum": -(2**63), "maximum": INT64_MAX}


def json_schema(topic: Topic) -> dict[str, Any]:
    """The schema of one JSON message of a topic; an Arrow message holds the same columns, many rows."""
    spec = topic.table
    optional = OPTIONAL.get(spec.name, {})
    of_one = spec.name in OF_ONE_SYMBOL
    return {
        "$schema": DIALECT,
        "$id": f"{topic.name}.json",
        "title": topic.name,
        "description": spec.doc,
        "type": "object",
        "properties": {f.name: {**_type(f, of_one), **({"default": optional[f.name]} if f.name in optional else {})} for f in spec.fields},
        "required": [f.name for f in spec.fields if f.name not in optional],
    }


def _type(field: Field, of_one: bool) -> dict[str, Any]:
    described = {"description": field.doc}
    match field.kind:
        case "time":
            return {**_INTEGER, "minimum": 0, "description": f"{field.doc}; nanoseconds since 1970-01-01 UTC"}
        case "int":
            return {**_INTEGER, **described}
        case "float":
            return {**_NUMBER, "description": f"{field.doc}; null for NaN"}
        case "money":
            return {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,8})?$", "description": f"{field.doc}; a decimal as text"}
        case "id":
            return {"type": "string", "pattern": "^[0-9a-fA-F]{16}$", "description": f"{field.doc}; sixteen hex digits"}
        case "bool":
            return {"type": "boolean", **described}
        case "symbol" if of_one:
            return {"type": "string", "minLength": 1, "maxLength": 128, **described}
        case "symbol":
            return {"type": "string", "description": f"{field.doc}; empty for all of them"}
        case "enum" if field.labels:
            return {"enum": list(field.labels), **described}
        case "floats":
            return {"type": "array", "items": dict(_NUMBER), **_width(field), **described}
        case "ints":
            return {"type": "array", "items": dict(_INTEGER), **_width(field), **described}
    return {"type": "string", **described}


def _width(field: Field) -> dict[str, Any]:
    return {"minItems": field.width, "maxItems": field.width} if field.width else {}
