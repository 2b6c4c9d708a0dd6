"""Stage hashes: one per stage, a function of its rows alone, whatever the engine, workers, batch size or run id."""

import numpy as np
from blake3 import blake3

from operators.desk.audit import Chain, canonical
from schemas.frame import Frame
from schemas.ids import name_ids
from schemas.tables import BARS, SIGNALS, TableSpec
from schemas.tables_desk import AUDIT, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS
from schemas.tables_models import LABELS, PREDICTIONS, VOTES

STAGES: dict[str, TableSpec] = {
    "bars": BARS, "signals": SIGNALS, "decisions": DECISIONS, "orders": ORDERS, "fills": FILLS, "ledger": LEDGER, "audit": AUDIT,
}
LEARNED: dict[str, TableSpec] = {"predictions": PREDICTIONS, "labels": LABELS, "votes": VOTES}
"""Stages of runs that have models."""
RECORDS: dict[str, TableSpec] = {"positions": POSITIONS, "equity": EQUITY}
"""Hashed too, so that the audit of a stored run covers their last records."""


class Digests:
    """Feed it the frames in order; `values` says the hash of every stage so far."""

    def __init__(self, strategies: tuple[str, ...]) -> None:
        self.chains = {name: Chain() for name in (*STAGES, *LEARNED, *RECORDS)}
        self.features: dict[int, Chain] = {}
        self.feature_names: dict[int, tuple[str, ...]] = {}
        self.strategy_ids = name_ids(strategies)
        self.symbols: tuple[str, ...] = ()
        self.symbol_ids = name_ids(())

    def add(self, frame: Frame) -> None:
        if frame.symbols is not self.symbols:
            self.symbols, self.symbol_ids = frame.symbols, name_ids(frame.symbols)
        for name, spec in (*STAGES.items(), *LEARNED.items(), *RECORDS.items()):
            rows = frame.rows(spec)
            if len(rows):
                self.chains[name].add(canonical(spec, rows, self.symbol_ids, self.strategy_ids, whole=True))
        for found in frame.features:
            if len(found.bars):
                self.feature_names[found.interval_ns] = found.names
                words = np.empty((len(found.bars), 2 + len(found.names)), np.int64)
                words[:, 0] = found.bars["seq"]
                words[:, 1] = self.symbol_ids[found.bars["symbol"]].view(np.int64)
                words[:, 2:] = np.ascontiguousarray(found.values).view(np.int64)
                self.features.setdefault(found.interval_ns, Chain()).add(words)

    def values(self) -> dict[str, str]:
        """Stage → 32 hex digits."""
        out = {name: chain.head().hex()[:32] for name, chain in self.chains.items()}
        learned = [name for name in LEARNED if self.chains[name].records_open or self.chains[name].block_no]
        total = blake3()
        for interval_ns in sorted(self.features):
            total.update(repr((interval_ns, self.feature_names[interval_ns])).encode() + self.features[interval_ns].head())
        out["features"] = total.hexdigest()[:32]
        order = ("bars", "features", *learned, "signals", "decisions", "orders", "fills", "ledger", "audit")
        return {name: out[name] for name in order}

    def records(self) -> dict[str, str]:
        """The hashes of `RECORDS`."""
        return {name: self.chains[name].head().hex()[:32] for name in RECORDS}
