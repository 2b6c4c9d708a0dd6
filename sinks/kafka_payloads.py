"""Rows as the payloads of messages: one a row as JSON, a bounded number as Arrow, with the names that they use and no others.

Rows keep their order over the payloads. The bytes are those of `schemas.messages.encode` for the same rows and names.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from schemas.codec import NO_NAME
from schemas.codec_features import FEATURES, SEPARATOR
from schemas.codec_templates import TemplateEncoder
from schemas.frame import FeatureRows
from schemas.messages import encode
from schemas.rows import copied
from schemas.tables import Field, Rows, TableSpec
from schemas.topics import Topic
from sinks.batches import Records

MESSAGE_BYTES = 512 * 1024
"""Rows of one Arrow message take about so much at most; brokers refuse a message beyond 1 MiB by default."""
FEW = 16
"""Rows whose names are quicker found one by one."""
Payload = tuple[bytes, str, int]
"""The bytes, the symbol where the rows are of just one (else empty), the number of rows."""


class Payloads:
    """Keeps what makes the next payload quick. Not for several threads at once."""

    def __init__(self) -> None:
        self._arrow = TemplateEncoder()

    def of(self, topic: Topic, rows: Rows | Records, symbols: Sequence[str], strategies: Sequence[str]) -> Iterator[Payload]:
        """The payloads of rows (records, for a table with text columns)."""
        spec = topic.table
        has_symbol = isinstance(rows, np.ndarray) and "symbol" in (rows.dtype.names or ())
        if topic.codec == "json":
            codes = rows["symbol"].tolist() if has_symbol else [NO_NAME] * len(rows)  # type: ignore[call-overload]
            for payload, code in zip(encode(spec, rows, "json", symbols, strategies), codes, strict=True):
                yield payload, "" if code == NO_NAME else symbols[code], 1
            return
        assert isinstance(rows, np.ndarray)
        width = max(1, MESSAGE_BYTES // (2 * spec.dtype.itemsize))
        for start in range(0, len(rows), width):
            yield self._piece(spec, rows[start : start + width], symbols, strategies, has_symbol)

    def features(self, features: FeatureRows, symbols: Sequence[str]) -> Iterator[Payload]:
        """The payloads of feature rows, in the compact form."""
        spec = feature_spec(features.names)
        width = max(1, MESSAGE_BYTES // (8 * features.values.shape[1] + 128))
        for start in range(0, len(features.bars), width):
            bars = features.bars[start : start + width]
            rows = spec.empty(len(bars))  # feature_set is code 0, the only name
            for f in spec.fields[:-2]:
                rows[f.name] = features.interval_ns if f.name == "interval_ns" else bars[f.name]
            rows["values"] = features.values[start : start + width]
            yield self._piece(spec, rows, symbols, (SEPARATOR.join(features.names),), True)

    def _piece(self, spec: TableSpec, rows: Rows, symbols: Sequence[str], strategies: Sequence[str], has_symbol: bool) -> Payload:
        if not has_symbol:
            return self._arrow.encode(spec, rows, (), strategies), "", len(rows)
        compact, names = compacted(rows, symbols)
        return self._arrow.encode(spec, compact, names, strategies), names[0] if len(names) == 1 else "", len(rows)


@lru_cache(maxsize=256)
def feature_spec(names: tuple[str, ...]) -> TableSpec:
    """`FEATURES` for one set, as a table of fixed width: the name of the set is its only name."""
    bar = tuple(f for f in FEATURES.fields if f.name not in ("feature_set", "values"))
    digest = SEPARATOR.join(names)
    return TableSpec(f"features {digest}", FEATURES.doc, FEATURES.key, (
        *bar, Field("feature_set", "strategy", "the set"), Field("values", "floats", "values", width=len(names)),
    ))  # fmt: skip


def compacted(rows: Rows, symbols: Sequence[str]) -> tuple[Rows, tuple[str, ...]]:
    """The rows with codes into the names that they use, in the order of the codes before."""
    codes = rows["symbol"]
    out = copied(rows)
    if len(rows) <= FEW:
        given = codes.tolist()
        used = sorted(set(given) - {NO_NAME})
        place = {code: i for i, code in enumerate(used)}
        place[NO_NAME] = NO_NAME
        out["symbol"] = [place[code] for code in given]
    else:
        among = np.zeros(len(symbols) + 1, np.int64)  # the last is that of code -1
        among[codes] = 1
        used = np.flatnonzero(among[:-1]).tolist()
        among[used], among[-1] = np.arange(len(used)), NO_NAME
        out["symbol"] = among[codes]
    return out, tuple(symbols[code] for code in used)
