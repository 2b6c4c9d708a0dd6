"""The audit chain: every record that the desk read or wrote, hashed in blocks cut by record number, never by batch.

digest(k) = BLAKE3(digest(k-1) + bytes of block k), one chain per stream; a block that filled up is a row of `audit`. A
record's bytes are its columns in order, eight bytes each, with the symbol and strategy codes replaced by ids of their names.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from schemas.tables import Rows, TableSpec
from schemas.tables_desk import AUDIT

BLOCK = 1024
"""Records in a block."""


def canonical(spec: TableSpec, rows: Rows, symbol_ids: npt.NDArray[np.uint64], strategy_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Rows as an int64 matrix (rows, words) that does not depend on how names were coded."""
    words = np.ascontiguousarray(rows).view(np.int64).reshape(len(rows), -1)
    words = words.copy()
    for field in spec.fields:
        if field.kind in ("symbol", "strategy"):
            ids = symbol_ids if field.kind == "symbol" else strategy_ids
            assert spec.dtype.fields is not None
            column = spec.dtype.fields[field.name][1] // 8
            known = words[:, column] >= 0
            codes = words[known, column]
            words[known, column] = ids[codes].view(np.int64)
    return words


class Chain:
    """One stream's chain. `add` returns the blocks that became full, as (last row's index in the call, block number, digest)."""

    def __init__(self) -> None:
        self.digest = bytes(32)
        self.open = b""
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
            hasher.update(memoryview(words[taken:cut]).cast("B"))
            self.digest = hasher.digest()
            done.append((cut - 1, self.block_no, self.digest))
            self.block_no += 1
            self.open, self.records_open, taken = b"", 0, cut
        self.open += words[taken:].tobytes()
        self.records_open += len(words) - taken
        return done

    def head(self) -> bytes:
        """The digest over everything so far, the open block included."""
        return blake3(self.digest + self.open).digest()


class Audit:
    """The chains of all streams of an account."""

    def __init__(self) -> None:
        self.streams = next(f for f in AUDIT.fields if f.name == "stream").labels
        self.chains = [Chain() for _ in self.streams]

    def add(self, spec: TableSpec, rows: Rows, symbol_ids: npt.NDArray[np.uint64], strategy_ids: npt.NDArray[np.uint64]) -> Rows:
        """Hash rows of one table; the `audit` rows of the blocks that became full."""
        if not len(rows):
            return AUDIT.empty(0)
        stream = self.streams.index(spec.name)
        full = self.chains[stream].add(canonical(spec, rows, symbol_ids, strategy_ids))
        out = AUDIT.empty(len(full))
        for k, (last, block_no, digest) in enumerate(full):
            out[k] = (rows["ts_event_ns"][last], rows["seq"][last], -1, stream, block_no, BLOCK, *np.frombuffer(digest, "<u8"))
        return out

    def heads(self) -> dict[str, str]:
        """Stream → digest over all its records so far."""
        return {name: chain.head().hex() for name, chain in zip(self.streams, self.chains, strict=True)}

    def snapshot(self) -> list[tuple[Any, ...]]:
        return [(c.digest, c.open, c.records_open, c.block_no) for c in self.chains]

    def restore(self, state: list[tuple[Any, ...]]) -> None:
        for chain, saved in zip(self.chains, state, strict=True):
            chain.digest, chain.open, chain.records_open, chain.block_no = saved
