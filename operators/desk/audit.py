"""The audit chain: every record that the desk read or wrote, hashed in blocks cut by record number, never by batch.

digest(k) = BLAKE3(digest(k-1) + bytes of block k), one chain per stream; a block that filled up is a row of `audit`. A
record's bytes are its columns in order, eight bytes each, with the symbol and strategy codes replaced by ids of their names.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from operators.compiled import kernel
from schemas.tables import Rows, TableSpec
from schemas.tables_desk import AUDIT

BLOCK = 1024
"""Records in a block."""


@kernel
def _pick(words: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], out: npt.NDArray[np.int64]) -> None:
    """Copy the chosen columns."""
    for i in range(len(words)):
        for j in range(len(columns)):
            out[i, j] = words[i, columns[j]]


@kernel
def _name(out: npt.NDArray[np.int64], names: npt.NDArray[np.int64], symbol_ids: npt.NDArray[np.uint64],
          strategy_ids: npt.NDArray[np.uint64]) -> None:
    """Codes become ids, in the columns whose `names` is 1 (symbols) or 2 (strategies). A negative code stays."""
    for j in range(len(names)):
        if names[j] != 0:
            ids = symbol_ids if names[j] == 1 else strategy_ids
            for i in range(len(out)):
                if out[i, j] >= 0:
                    out[i, j] = np.int64(ids[out[i, j]])


_READ = {
    "trades": ("ts_event_ns", "seq", "symbol", "price", "size"),
    "bars": ("ts_event_ns", "seq", "symbol", "bar_kind", "interval_ns", "ts_close_ns", "open", "high", "low", "close", "volume"),
}
"""What the desk reads of its largest inputs, so what the audit hashes of them; of the others, everything."""


_chosen: dict[tuple[str, bool], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
"""By name: hashing a whole declaration costs more than the columns of one tick."""


def _columns(spec: TableSpec, whole: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if (spec.name, whole) in _chosen:
        return _chosen[spec.name, whole]
    chosen: list[int] = []
    names: list[int] = []
    at = 0
    for field in spec.fields:
        width = max(field.width, 1)
        if whole or spec.name not in _READ or field.name in _READ[spec.name]:
            chosen += range(at, at + width)
            names += [{"symbol": 1, "strategy": 2}.get(field.kind, 0)] * width
        at += width
    return _chosen.setdefault((spec.name, whole), (np.array(chosen, np.int64), np.array(names, np.int64)))


def canonical(spec: TableSpec, rows: Rows, symbol_ids: npt.NDArray[np.uint64],
              strategy_ids: npt.NDArray[np.uint64], whole: bool = False) -> npt.NDArray[np.int64]:
    """Rows as an int64 matrix (rows, words) that does not depend on how names were coded; `whole`: with columns the desk ignores."""
    columns, names = _columns(spec, whole)
    words = np.ascontiguousarray(rows).view(np.int64).reshape(len(rows), -1)
    if len(columns) == words.shape[1]:
        out = words.copy()
    else:
        out = np.empty((len(rows), len(columns)), np.int64)
        _pick(words, columns, out)
    _name(out, names, symbol_ids, strategy_ids)
    return out


class Chain:
    """One stream's chain. `add` returns the blocks that became full, as (last row's index in the call, block number, digest)."""

    def __init__(self) -> None:
        self.digest = bytes(32)
        self.open = bytearray()
        self.records_open = 0
        self.block_no = 0

    def add(self, words: npt.NDArray[np.int64]) -> list[tuple[int, int, bytes]]:
        """Append records; a block's digest depends on its records and all before, not on the calls."""
        done: list[tuple[int, int, bytes]] = []
        taken = 0
        while self.records_open + len(words) - taken >= BLOCK:
            cut = taken + BLOCK - self.records_open
            hasher = blake3(self.digest)
            hasher.update(self.open)
            hasher.update(words[taken:cut].view(np.uint8).reshape(-1).data)
            self.digest = hasher.digest()
            done.append((cut - 1, self.block_no, self.digest))
            self.block_no += 1
            self.open, self.records_open, taken = bytearray(), 0, cut
        self.open += words[taken:].tobytes()
        self.records_open += len(words) - taken
        return done

    def head(self) -> bytes:
        """The digest over everything so far, the open block included."""
        return blake3(self.digest + self.open).digest()


_NO_BLOCKS = AUDIT.empty(0)


class Audit:
    """The chains of all streams of an account."""

    def __init__(self) -> None:
        self.streams = next(f for f in AUDIT.fields if f.name == "stream").labels
        self.chains = [Chain() for _ in self.streams]

    def add(self, spec: TableSpec, rows: Rows, symbol_ids: npt.NDArray[np.uint64], strategy_ids: npt.NDArray[np.uint64]) -> Rows:
        """Hash rows of one table; the `audit` rows of the blocks that became full."""
        if not len(rows):
            return _NO_BLOCKS
        stream = self.streams.index(spec.name)
        full = self.chains[stream].add(canonical(spec, rows, symbol_ids, strategy_ids))
        if not full:
            return _NO_BLOCKS
        out = AUDIT.empty(len(full))
        for k, (last, block_no, digest) in enumerate(full):
            out[k] = (rows["ts_event_ns"][last], rows["seq"][last], -1, stream, block_no, BLOCK, *np.frombuffer(digest, "<u8"))
        return out

    def heads(self) -> dict[str, str]:
        """Stream → digest over all its records so far."""
        return {name: chain.head().hex() for name, chain in zip(self.streams, self.chains, strict=True)}

    def snapshot(self) -> list[tuple[Any, ...]]:
        return [(c.digest, bytes(c.open), c.records_open, c.block_no) for c in self.chains]

    def restore(self, state: list[tuple[Any, ...]]) -> None:
        for chain, saved in zip(self.chains, state, strict=True):
            chain.digest, chain.open, chain.records_open, chain.block_no = saved[0], bytearray(saved[1]), *saved[2:]
