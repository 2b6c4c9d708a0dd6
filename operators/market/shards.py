"""Fan-out and alignment: a frame is split by symbol over shards, and its parts come together again in one order.

Whatever the number of shards, the aligned frame has the rows that one shard would have made, in the order (seq, symbol,
then as made). A frame is released when all its parts are there and all frames of its origin before it were.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from operators.compiled import kernel
from schemas.frame import FeatureRows, Frame
from schemas.ids import name_id
from schemas.rows import opaque, picked
from schemas.tables import Rows

_WHOLE = ("beats", "control", "promotions")
"""Tables that every shard, or the desk alone, gets whole."""


def shard_of(symbol: str, shards: int) -> int:
    """The fixed shard of a symbol."""
    return name_id(symbol) % shards


def split(frame: Frame, shards: int) -> list[Frame]:
    """One part per shard, each with the rows of its symbols; control goes with part 0, beats and promotions with all."""
    if shards == 1:
        return [frame]
    home = np.array([shard_of(s, shards) for s in frame.symbols], np.int64)
    parts = []
    for k in range(shards):
        tables: dict[str, Rows] = {}
        for name, rows in frame.tables.items():
            if name not in _WHOLE:
                tables[name] = picked(rows, home[rows["symbol"]] == k)
            elif name != "control" or k == 0:
                tables[name] = rows
        parts.append(replace(frame, tables=tables, part=k, parts=shards))
    return parts


def _places(parts: Sequence[Rows]) -> list[Any]:
    """For each part the places of its rows among all of them, in the order (seq, symbol, then as given)."""
    order = np.lexsort((np.concatenate([p["symbol"] for p in parts]), np.concatenate([p["seq"] for p in parts])))
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return np.split(places, np.cumsum([len(p) for p in parts])[:-1])


def _merged(parts: Sequence[Rows], places: Sequence[Any]) -> Rows:
    """Rows of several parts at their places; as bytes, since NumPy copies records field by field."""
    dtype = parts[0].dtype
    out = np.empty(sum(len(p) for p in parts), f"V{dtype.itemsize}")
    for part, at in zip(parts, places, strict=True):
        out[at] = opaque(part)
    return out.view(dtype)


def join(parts: Sequence[Frame]) -> Frame:
    """The parts of one frame, in the order of their numbers, as one."""
    if len(parts) == 1:
        return parts[0]
    tables: dict[str, Rows] = {}
    for name in dict.fromkeys(n for part in parts for n in part.tables):
        if name in _WHOLE:
            tables[name] = parts[0].tables[name]
            continue
        found = [np.ascontiguousarray(part.tables[name]) for part in parts if name in part.tables]
        tables[name] = _merged(found, _places(found))
    features = []
    for interval_ns in dict.fromkeys(f.interval_ns for part in parts for f in part.features):
        sets = [f for part in parts for f in part.features if f.interval_ns == interval_ns]
        places = _places([f.bars for f in sets])
        values = np.empty((sum(len(f.bars) for f in sets), len(sets[0].names)))
        for f, at in zip(sets, places, strict=True):
            _scatter(f.values, at, values)
        features.append(FeatureRows(interval_ns, sets[0].names, _merged([np.ascontiguousarray(f.bars) for f in sets], places), values))
    return replace(parts[0], tables=tables, features=tuple(features), part=0, parts=1)


@kernel
def _scatter(values: Any, at: Any, out: Any) -> None:
    """Rows of `values` into the rows `at` of `out`."""
    for i in range(len(values)):
        for k in range(values.shape[1]):
            out[at[i], k] = values[i, k]


class Align:
    """Collects parts; gives whole frames in order. Holds at most `pending_max` incomplete frames."""

    name = "align"

    def __init__(self, pending_max: int = 4096) -> None:
        self.pending_max = pending_max
        self.next: dict[str, int] = {}
        self.pending: dict[tuple[str, int], dict[int, Frame]] = {}

    def add(self, part: Frame) -> list[Frame]:
        """One part in; the frames that are now complete and in turn."""
        self.pending.setdefault((part.origin, part.number), {})[part.part] = part
        if len(self.pending) > self.pending_max:
            raise RuntimeError(f"more than {self.pending_max} incomplete frames: a shard has stopped")
        out: list[Frame] = []
        number = self.next.get(part.origin, 0)
        while (parts := self.pending.get((part.origin, number))) and len(parts) == part.parts:
            out.append(join([parts[k] for k in range(part.parts)]))
            del self.pending[(part.origin, number)]
            number += 1
        self.next[part.origin] = number
        return out

    def snapshot(self) -> Any:
        return {"next": dict(self.next), "pending": {k: dict(v) for k, v in self.pending.items()}}

    def restore(self, state: Any) -> None:
        self.next = dict(state["next"])
        self.pending = {k: dict(v) for k, v in state["pending"].items()}
