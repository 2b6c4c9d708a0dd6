"""Parity: what a run recorded, against what the same operators make of the same input now; the first event that differs is named.

Frames are formed again from the journal, so the input is the run's own. Rows are compared by stage, bit for bit, in tape order;
a row that was written twice with the same content is one row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from operators.assembly import Plan, account_chain, market_chain
from operators.market.sequence import Sequencer
from research.parity_records import Recorded, as_feature_rows, feature_columns, merged_rows
from schemas.frame import Frame
from schemas.rows import opaque
from schemas.tables import BARS, LATE, REJECTED, SIGNALS, Rows, TableSpec
from schemas.tables_desk import AUDIT, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS
from schemas.tables_live import APPROVED
from schemas.tables_models import DRIFT, LABELS, PREDICTIONS, SCORES, SWITCHES, VALIDATIONS, VOTES
from sources.journal import Entry
from sources.kafka_input import Taken

STAGES: tuple[tuple[str, tuple[TableSpec, ...]], ...] = (
    ("quality", (REJECTED,)), ("bars", (BARS, LATE)), ("features", ()),
    ("learning", (SWITCHES, LABELS, PREDICTIONS, SCORES, VOTES, DRIFT)), ("strategies", (SIGNALS, VALIDATIONS)),
    ("gate", (DECISIONS, APPROVED)), ("orders", (ORDERS,)), ("fills", (FILLS,)),
    ("ledger", (LEDGER, POSITIONS, EQUITY)), ("audit", (AUDIT,)),
)
"""In the order in which a row passes them; the features come from each frame's sets."""


@dataclass(frozen=True)
class Input:
    """A run's input, to be formed into its frames again. take: what a journal entry names; names: of symbols, after it."""

    run: str
    entries: list[Entry]
    take: Callable[[Entry], Taken]
    names: Callable[[], tuple[str, ...]]
    from_start: bool = True

    def frames(self) -> Iterator[Frame]:
        """The frames, as they were."""
        sequencer = Sequencer(self.run, self.from_start)
        for entry in self.entries:
            taken = self.take(entry)
            yield sequencer.step(taken.arrivals, self.names(), entry.skip).frame


def rerun(made: Plan, frames: Iterator[Frame], external: bool, collect: Callable[[Frame], None]) -> None:
    """The operators over the frames again; features are left out where the run recorded none."""
    market, account = market_chain(made), account_chain(made, external)
    for frame in frames:
        again = account.step(market.step(frame))
        collect(again if made.config.live.record_features else again.without_features())


@dataclass(frozen=True)
class Difference:
    """The first event that differs: where it is, and each side's version; None where a side has none."""

    stage: str
    table: str
    seq: int
    ts_event_ns: int
    symbol: str
    columns: tuple[str, ...]
    recorded: dict[str, Any] | None
    replayed: dict[str, Any] | None


class Again:
    """Collects what the replay makes, table by table."""

    def __init__(self) -> None:
        self.symbols: tuple[str, ...] = ()
        self.parts: dict[str, list[Rows]] = {}
        self.features: dict[tuple[int, tuple[str, ...]], list[Rows]] = {}
        self.rows_in = 0

    def __call__(self, frame: Frame) -> None:
        self.symbols = frame.symbols
        for _, specs in STAGES:
            for spec in specs:
                rows = frame.rows(spec)
                if len(rows):
                    self.parts.setdefault(spec.name, []).append(rows)
        for found in frame.features:
            if len(found.bars):
                self.features.setdefault((found.interval_ns, found.names), []).append(as_feature_rows(found))

    def rows(self, spec: TableSpec) -> Rows:
        """Everything of one table."""
        return merged_rows(self.parts.get(spec.name, []), spec.dtype)


def compare(recorded: Recorded, again: Again, strategies: tuple[str, ...], keep: Callable[[Rows], Rows]) -> tuple[
        dict[str, int], Difference | None]:
    """Rows compared by table, and the first difference in tape order, then stage. keep: which rows of either side count."""
    counts: dict[str, int] = {}
    first: tuple[int, int, Difference] | None = None
    for stage_no, (stage, specs) in enumerate(STAGES):
        pairs: list[tuple[str, tuple[str, ...], Rows, Rows, TableSpec | None]] = []
        symbols = recorded.symbols(again.symbols)
        for spec in specs:
            pairs.append((spec.name, spec.key, keep(recorded.rows(spec, symbols, strategies)), keep(again.rows(spec)), spec))
        if stage == "features":
            stored = recorded.features(symbols)
            for key in dict.fromkeys([*stored, *again.features]):
                dtype = feature_columns(key[1])
                mine = merged_rows(again.features.get(key, []), dtype)
                have = stored.get(key, np.zeros(0, dtype))
                pairs.append(("features", ("interval_ns", "symbol", "ts_open_ns"), keep(have), keep(mine), None))
        for table, key_columns, a, b, of in pairs:
            counts[table] = counts.get(table, 0) + len(b)
            found = _first_difference(a, b, key_columns)
            if found is not None and (first is None or (found[0], stage_no) < first[:2]):
                first = (found[0], stage_no, _described(stage, table, found, a, b, symbols, strategies, of))
    return counts, None if first is None else first[2]


def _sorted(rows: Rows, key: tuple[str, ...]) -> Rows:
    """By tape position, then key; the same row twice is one."""
    if not len(rows):
        return rows
    order = np.lexsort([*(rows[k] for k in reversed(key)), rows["seq"]])
    rows = rows[order]
    words = opaque(rows)
    keep = np.ones(len(rows), bool)
    keep[1:] = words[1:] != words[:-1]
    return rows[keep]


def _first_difference(a: Rows, b: Rows, key: tuple[str, ...]) -> tuple[int, int | None, int | None, Rows, Rows] | None:
    a, b = _sorted(a, key), _sorted(b, key)
    n = min(len(a), len(b))
    size = f"V{a.dtype.itemsize}"
    unequal = np.flatnonzero(a[:n].view(size) != b[:n].view(size)) if n else np.zeros(0, np.int64)
    if not len(unequal) and len(a) == len(b):
        return None
    at = int(unequal[0]) if len(unequal) else n
    i, j = (at if at < len(a) else None), (at if at < len(b) else None)
    if i is not None and j is not None:
        names = ("seq", *key)
        ka, kb = ([x[k].item() for k in names] for x in (a[i], b[j]))
        if ka < kb:
            j = None
        elif kb < ka:
            i = None
    seq = int(a["seq"][i] if i is not None else b["seq"][j])
    return seq, i, j, a, b


def _described(stage: str, table: str, found: tuple[int, int | None, int | None, Rows, Rows], a: Rows, b: Rows, symbols: tuple[str, ...],
               strategies: tuple[str, ...], spec: TableSpec | None) -> Difference:
    seq, i, j, a, b = found
    one, two = (None if i is None else a[i]), (None if j is None else b[j])
    row = one if one is not None else two
    assert row is not None
    columns: tuple[str, ...] = ()
    if one is not None and two is not None:
        columns = tuple(n for n in a.dtype.names or () if np.asarray(one[n]).tobytes() != np.asarray(two[n]).tobytes())
    code = int(row["symbol"])
    return Difference(stage, table, seq, int(row["ts_event_ns"]), symbols[code] if code >= 0 else "", columns,
                      shown(one, spec, symbols, strategies), shown(two, spec, symbols, strategies))


def shown(row: Any | None, spec: TableSpec | None, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> dict[str, Any] | None:
    """A row for people: names instead of codes, amounts as decimals."""
    if row is None:
        return None
    if spec is None:
        out = {name: row[name].item() for name in row.dtype.names}
        out["symbol"] = symbols[out["symbol"]]
        return out
    import msgspec

    from schemas.codec_json import encode_json
    return dict(msgspec.json.decode(encode_json(spec, np.array([row], row.dtype), symbols, strategies)[0]))


def fed_by(made: Plan, source: Input, external: bool, at: Difference) -> dict[str, Any]:
    """What the event was made from: its frame in the journal, and every row of the replay at its place on the tape."""
    from schemas.topics import TABLES
    entry = next((e for e in source.entries if e.first_seq <= at.seq < e.first_seq + e.rows), None)
    seen: dict[str, Any] = {}

    def look(frame: Frame) -> None:
        for name, rows in frame.tables.items():
            if name in TABLES and "seq" in (rows.dtype.names or ()):
                mine = rows[rows["seq"] == at.seq]
                if len(mine):
                    seen[name] = [shown(r, TABLES[name], frame.symbols, made.names) for r in mine[:5]]
        for found in frame.features:
            mine = as_feature_rows(found)
            mine = mine[mine["seq"] == at.seq]
            if len(mine):
                seen.setdefault("features", []).extend(shown(r, None, frame.symbols, ()) for r in mine[:5])

    rerun(made, source.frames(), external, look)
    journal = None if entry is None else {
        "frame": entry.number, "first_seq": entry.first_seq, "rows": entry.rows,
        "messages": [f"{r.table}[{r.partition}] {r.offset_from}..{r.offset_to - 1}" for r in entry.ranges if r.offset_to > r.offset_from]}
    return {"journal": journal, "rows": seen}
