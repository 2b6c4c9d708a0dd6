"""`JsonReader`: JSON messages of one table through the compiled parser, into one array of rows.

A row whose `easy` is 0 holds nothing yet: its message is for the slow way. A name that is new stops the parser, so that it
has its code before the next message is read.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.json_schema import OPTIONAL
from schemas.tables import Field, Rows, TableSpec
from sources.kafka_json import EASY, HARD, KEY_BYTES_MAX, LABEL, LABEL_BYTES_MAX, NAME, REAL, TIME, parse
from sources.kafka_names import Interner
from sources.kafka_polled import Ints, Polled
from sources.kafka_slow import FOR_ALL

_KINDS = {"time": TIME, "int": TIME, "float": REAL, "symbol": NAME, "enum": LABEL}
_COLUMNS_MAX = 62
"""A bit each."""


def quick(spec: TableSpec) -> bool:
    """Whether rows of this table can be read here at all."""
    return len(spec.fields) <= _COLUMNS_MAX and all(
        f.kind in _KINDS and len(f.name) <= KEY_BYTES_MAX and all(len(label) <= LABEL_BYTES_MAX for label in f.labels)
        and (f.kind != "enum" or f.labels)
        for f in spec.fields
    )  # fmt: skip


class JsonReader:
    """Reads messages of one table. Remembers in which order the keys came the last time, which is a guess for the next."""

    def __init__(self, spec: TableSpec, symbols: Interner) -> None:
        optional = OPTIONAL.get(spec.name, {})
        self._spec, self._symbols = spec, symbols
        self._blank = spec.name in FOR_ALL
        self._keys = np.array([_key(f.name) for f in spec.fields], np.uint64)
        self._kinds = np.array([_KINDS[f.kind] for f in spec.fields], np.int64)
        most = max(1, *(len(f.labels) for f in spec.fields))
        self._labels = np.zeros((len(spec.fields), most, 2), np.uint64)
        self._labels[:, :, 1] = LABEL_BYTES_MAX + 1  # no text is so long here
        for i, f in enumerate(spec.fields):
            for code, label in enumerate(f.labels):
                self._labels[i, code] = _words(label, LABEL_BYTES_MAX)
        self._order = np.full(len(spec.fields) + 8, -1, np.int64)
        self._defaults = np.array([_bits(f, optional[f.name]) if f.name in optional else 0 for f in spec.fields], np.int64)
        self._required = sum(1 << i for i, f in enumerate(spec.fields) if f.name not in optional)

    def rows(self, polled: Polled, which: Ints, stopped: Callable[[int], None]) -> tuple[Rows, npt.NDArray[np.int8]]:
        """A row and an `easy` for each message of `which`. stopped: called with the place in `which` of a message that has a new name,
        to read it the slow way, which gives the name its code."""
        rows = np.empty(len(which), self._spec.dtype)
        easy = np.zeros(len(which), np.int8)
        words = rows.view(np.int64).reshape(len(which), -1)
        at = 0
        while True:
            names = self._symbols
            at = parse(
                polled.data.ctypes.data, polled.starts, which, at, words, easy, self._keys, self._kinds, self._labels, self._order,
                self._defaults, self._required, names.slots, names.codes, self._blank,
            )  # fmt: skip
            if at == len(which):
                return rows, easy
            easy[at] = HARD
            stopped(at)
            at += 1


def _words(text: str, width: int) -> list[int]:
    """The text in words of eight bytes, then its length."""
    raw = text.encode().ljust(width, b"\0")
    return [*(int.from_bytes(raw[i : i + 8], "little") for i in range(0, width, 8)), len(text)]


def _key(name: str) -> list[int]:
    """What `kafka_json` compares a key with: a word and its mask, the next word and its mask, and the length."""
    low, high, n = _words(name, KEY_BYTES_MAX)
    masks = [(1 << 8 * min(8, max(0, n - start))) - 1 for start in (0, 8)]
    return [low, masks[0], high, masks[1], n]


def _bits(field: Field, value: Any) -> int:
    """What an optional column holds where a message leaves it out, as the eight bytes of a row."""
    if field.kind == "float":
        return int(np.float64(np.nan if value is None else value).view(np.int64))
    if field.kind == "enum":
        return field.labels.index(value)
    return -1 if field.kind == "symbol" else int(value)


__all__ = ["EASY", "JsonReader", "quick"]
