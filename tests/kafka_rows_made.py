"""Rows of every kind of value, and JSON that says the same in another way, for tests of the decoder."""

import json
import random
from typing import Any

import numpy as np

from schemas.json_schema import OPTIONAL
from schemas.tables import BEATS, QUOTES, RECORDED, TRADES, Rows, TableSpec
from schemas.tables_desk import CONTROL, FUNDING_RATES
from schemas.tables_live import APPROVED, REPORTS
from sources.kafka_names import Interner
from sources.kafka_rows import Decoded, Decoder

INPUTS = (TRADES, QUOTES, RECORDED, BEATS, FUNDING_RATES, CONTROL)
"""Those that the compiled parser reads."""
ALL = (*INPUTS, REPORTS, APPROVED)
NAMES = ("BTC/USDT", "E", "SYM-12345678901", "a name of 32 bytes, no more of it", "one that is longer than thirty-two bytes by far", "ÄÖÜ/€", 'q"\\uote')


def some_rows(spec: TableSpec, n: int, seed: int, symbols: int = len(NAMES)) -> Rows:
    """Rows of every kind of value, some of them extreme."""
    rng = np.random.default_rng(seed)
    rows = spec.empty(n)
    for f in spec.fields:
        if f.kind in ("symbol", "strategy"):
            rows[f.name] = rng.integers(0, symbols, n)
        elif f.kind == "enum":
            rows[f.name] = rng.integers(0, len(f.labels), n)
        elif f.kind == "bool":
            rows[f.name] = rng.integers(0, 2, n)
        elif f.kind == "id":
            rows[f.name] = rng.integers(0, 2**63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        elif f.kind == "float":
            rows[f.name] = np.choose(rng.integers(0, 6, n), [
                np.round(rng.random(n) * 1e5, 2), rng.random(n), rng.integers(-(2**62), 2**62, n).astype(float),
                np.frombuffer(rng.bytes(8 * n), np.float64), rng.choice([0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2], n), np.full(n, np.nan),
            ])
            rows[f.name][np.isnan(rows[f.name])] = np.nan  # one NaN: JSON has no payloads
        else:
            rows[f.name] = np.choose(rng.integers(0, 3, n), [
                rng.integers(-100, 100, n), 1_700_000_000_000_000_000 + rng.integers(0, 10**15, n), rng.choice([2**63 - 1, -(2**63) + 1, 0, 10**18], n)])
    return rows


def decoder(*names: str) -> Decoder:
    """One that knows these names."""
    symbols, strategies = Interner(), Interner()
    for name in names:
        symbols.code(name)
        strategies.code(name)
    return Decoder(symbols, strategies, clock=lambda: 7)


def all_rows(decoded: Decoded) -> Rows:
    return np.concatenate([block.rows for block in decoded.blocks])


def same(a: Rows, b: Rows) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def number(rng: random.Random, value: Any) -> str:
    """A float as JSON, in one of the ways to write it that say the same."""
    if value is None or isinstance(value, str):
        return json.dumps(value)
    if value == 0:
        return repr(value)  # "-0" is the whole number 0
    forms = [repr(value), f"{value:.17g}", f"{value:.16e}", f"{value:.20e}".replace("e", "E")]
    if value == int(value) and abs(value) < 1e15:
        forms += [str(int(value)), f"{int(value)}.000", f"{int(value)}e0", f"{int(value)}0e-1"]
    return rng.choice(forms)


def rewritten(rng: random.Random, spec: TableSpec, message: bytes) -> tuple[bytes, bytes]:
    """The same row written another way: key order, white space, unknown keys, forms of numbers, columns left out; and all of it in full."""
    document = json.loads(message)
    items = [(json.dumps(k, ensure_ascii=rng.random() < 0.5),
              number(rng, v) if spec.field(k).kind == "float" else json.dumps(v, ensure_ascii=rng.random() < 0.3)) for k, v in document.items()]
    optional = OPTIONAL.get(spec.name, {})
    for k, default in optional.items():
        if rng.random() < 0.2:
            items = [(key, v) for key, v in items if json.loads(key) != k]
            document[k] = default
    items += rng.sample([('"x"', "1.5e3"), ('"venue"', '"binance"'), ('"null"', "null"), ('"ok"', "true"), ('"no"', "false"), ('"n"', "-7"),
                         ('"deep"', '{"a":[1,{"b":"}"}]}'), ('"esc"', '"\\u0041\\n"')], rng.choice([0, 0, 0, 1, 2]))
    rng.shuffle(items)
    space = (lambda: "") if rng.random() < 0.4 else (lambda: rng.choice(["", " ", "\t", "\n", "\r\n  "]))
    text = "," .join(f"{space()}{k}{space()}:{space()}{v}{space()}" for k, v in items)
    return f"{space()}{{{text}}}{space()}".encode(), json.dumps(document).encode()


GOOD = {"symbol": "A", "price": 1.5, "size": 2, "ts_event_ns": 3}


def changed(**columns: Any) -> bytes:
    return json.dumps({**GOOD, **columns}).encode()
