"""A run as the warehouse holds it: the same tables and summary as a run in memory, its explanations and its audit.

Rows are read with FINAL, so a row that was written twice is seen once.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from operators.assembly import Plan
from operators.desk.audit import BLOCK, Chain, canonical
from research import stored_live
from research.learning.resolving import planned
from research.recording import config_of
from research.stored_models import models_of
from schemas.codec import from_arrow
from schemas.codec_features import SEPARATOR
from schemas.ddl import DATABASE, RUN_ID
from schemas.errors import UserError, unknown
from schemas.ids import name_ids
from schemas.tables import BARS, LATE, QUOTES, REJECTED, SIGNALS, TRADES, TableSpec
from schemas.tables_desk import AUDIT, CONTROL, DECISIONS, EQUITY, FILLS, LEDGER, LIMITS, ORDERS, POSITIONS
from schemas.tables_live import APPROVED, REPORTS
from sinks.clickhouse import connect, create_tables, query_arrow

_COUNTERS = ("approval_no", "decision_no", "event_no", "fill_no", "entry_no", "position_no")
"""What the desk counts its records with: the order in which it wrote them."""
_STATES = ("done", "aborted", "failed", "stopped", "running")
"""How a run stands, the last word first. A live run that was stopped may run again, so of its states the newest counts."""


def opened(url: str) -> Any:
    """A client of the warehouse's database, whose tables are made where they are missing."""
    first = connect(url)
    create_tables(first)
    first.close()
    return connect(url, DATABASE)


def list_runs(url: str) -> list[dict[str, Any]]:
    """Every run with its last state, newest first."""
    client = opened(url)
    rows = query_arrow(client, "SELECT run_id, groupArray(toString(state)) AS states, min(ts_started_ns) AS started, "
                       "argMax(summary, length(summary)) AS summary, any(command) AS command, any(config) AS config, any(data) AS data "
                       "FROM runs FINAL GROUP BY run_id ORDER BY started DESC").to_pylist()
    summaries = {row["run_id"]: json.loads(row["summary"] or "{}") for row in rows}
    summaries |= stored_live.listed(client, {row["run_id"]: row["config"] for row in rows if "pnl" not in summaries[row["run_id"]]
                                             and stored_live.is_live(json.loads(row["data"] or "{}"))})
    client.close()
    out = []
    for row in rows:
        s = summaries[row["run_id"]]
        state = next(x for x in _STATES if x in row["states"])
        out.append({"run_id": row["run_id"], "state": state, "started": str(np.datetime64(int(row["started"]), "ns"))[:19] + "Z",
                    "rows": s.get("rows", 0), "pnl": s.get("pnl"), "trades": s.get("trades"), "command": row["command"]})
    return out


class StoredRun:
    """One run in the warehouse; UserError with the nearest name where there is none."""

    def __init__(self, url: str, run_id: str) -> None:
        self.client = opened(url)
        self.run_id = run_id
        rows = self.query(f"SELECT state, config, strategies, summary, data, policy, command, ts_started_ns FROM runs FINAL "
                          f"WHERE {RUN_ID} = {{r:String}}").to_pylist()
        if not rows:
            known = [str(r) for r in self.query("SELECT DISTINCT run_id FROM runs")["run_id"].to_pylist()]
            raise unknown("run", run_id, known) if known else UserError(f'unknown run "{run_id}"; the warehouse holds no runs yet')
        best = min(rows, key=lambda r: (_STATES.index(str(r["state"])) // 3, -int(r["ts_started_ns"]), _STATES.index(str(r["state"]))))
        self.state = str(best["state"])
        self._config, self._strategies = best["config"], best["strategies"]
        self._summary = str(best["summary"])
        self.data: dict[str, Any] = json.loads(best["data"] or "{}")
        self.source = self.data
        self.policy_yaml, self.command, self.ts_started_ns = str(best["policy"]), str(best["command"]), int(best["ts_started_ns"])

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Its instruments, by code."""
        return stored_live.symbols_of(self) if stored_live.is_live(self.data) else tuple(self.data.get("symbols", ()))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The object of `--json`; a live run's is made of its stored tables, as far as they go."""
        return stored_live.figures_of(self, self._summary)

    @cached_property
    def plan(self) -> Plan:
        """The plan that ran, from what was recorded."""
        return planned(config_of(self._config), json.loads(self._strategies))

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        """An Arrow table; `{r:String}` in the SQL is the run's id."""
        return query_arrow(self.client, sql, {"r": self.run_id, **parameters})

    def table(self, spec: TableSpec, where: str = "1", **parameters: Any) -> pa.Table:
        """The rows of one table, by its key."""
        columns = ", ".join(f"`{f.name}`" for f in spec.fields)
        names = [f.name for f in spec.fields]
        counter = next((n for n in names if n in _COUNTERS), None)
        order = counter or ", ".join(dict.fromkeys(k for k in ("seq", *spec.key) if k in names))
        return self.query(f"SELECT {columns} FROM {spec.name} FINAL WHERE {RUN_ID} = {{r:String}} AND {where} ORDER BY {order}",
                          **parameters)

    bars = cached_property(lambda self: self.table(BARS))
    signals = cached_property(lambda self: self.table(SIGNALS))
    decisions = cached_property(lambda self: self.table(DECISIONS))
    orders = cached_property(lambda self: self.table(ORDERS))
    fills = cached_property(lambda self: self.table(FILLS))
    ledger = cached_property(lambda self: self.table(LEDGER))
    positions = cached_property(lambda self: self.table(POSITIONS))
    equity = cached_property(lambda self: self.table(EQUITY))
    audit = cached_property(lambda self: self.table(AUDIT))
    rejected = cached_property(lambda self: self.table(REJECTED))
    late = cached_property(lambda self: self.table(LATE))

    def report(self, path: str | Path) -> Path:
        """Write the report of the run."""
        from research.report import write_report
        return write_report(self, Path(path))

    def one(self, spec: TableSpec, where: str, **parameters: Any) -> dict[str, Any] | None:
        """The first row that meets a condition."""
        rows = self.table(spec, where, **parameters).slice(0, 1).to_pylist()
        return rows[0] if rows else None

    def explain(self, order_id: str) -> dict[str, Any]:
        """From an order, sent or refused, to all that led to it."""
        decision = self.one(DECISIONS, "order_id = {o:String}", o=order_id)
        parent = None
        if decision is None:
            child = self.one(ORDERS, "order_id = {o:String}", o=order_id)
            if child is None:
                raise UserError(f'no order "{order_id}" in run {self.run_id}; '
                                '`penstock warehouse query "SELECT order_id FROM decisions"` lists them')
            parent = child["parent_id"]
            decision = self.one(DECISIONS, "order_id = {o:String}", o=parent) or {}
        key = {"s": decision["symbol"], "t": decision["strategy"], "q": decision["seq"], "i": decision["interval_ns"],
               "b": decision["ts_open_ns"]}
        signal = self.one(SIGNALS, "symbol = {s:String} AND strategy = {t:String} AND seq = {q:Int64}", **key)
        bar = self.one(BARS, "symbol = {s:String} AND interval_ns = {i:Int64} AND ts_open_ns = {b:Int64} AND bar_kind = 'time'", **key)
        features: dict[str, float] = {}
        found = self.query(f"SELECT feature_set, values FROM features FINAL WHERE {RUN_ID} = {{r:String}} AND symbol = {{s:String}} "
                           "AND interval_ns = {i:Int64} AND ts_open_ns = {b:Int64}", **key).to_pylist()
        for row in found:
            features.update(zip(row["feature_set"].split(SEPARATOR), row["values"], strict=True))
        ticks, found_by = stored_live.ticks_of(self, bar) if bar is not None else ([], "")
        verdicts = [
            {"limit": LIMITS[k], "verdict": ("not applicable", "passed", "refused")[v], "observed": decision["observed"][k],
             "bound": decision["bounds"][k]}
            for k, v in enumerate(decision["verdicts"])
        ]
        rule = next((spec for spec in self.plan.specs if spec.name == decision["strategy"]), None)
        from operators.strategies.text import to_text
        return {
            "run_id": self.run_id, "order_id": order_id, "parent_id": parent, "approved": bool(decision["approved"]),
            "reason": decision["reason"],
            "decision": {k: v for k, v in decision.items() if k not in ("verdicts", "observed", "bounds")},
            "verdicts": verdicts, "signal": signal, "strategy": to_text(rule) if rule else None, "features": features,
            **models_of(self, decision), "bar": bar,
            "first_tick": ticks[0] if ticks else None, "last_tick": ticks[-1] if ticks else None,
            "ticks_found_by": found_by or None,
            "policy": {"version": decision["policy_version"], "digest": self.plan.config.policy.digest},
            "orders": self.table(ORDERS, "(order_id = {o:String} OR parent_id = {o:String})", o=order_id).to_pylist(),
            "fills": self.table(FILLS, "order_id = {o:String}", o=order_id).to_pylist(),
        }

    def verify(self) -> dict[str, Any]:
        """Hash the stored records again, stream by stream; compare with the stored chain and with the hashes of the run's end.

        `ok` is None, with the reason, for a stream that is not stored as the run hashed it.
        """
        names = self.plan.names
        stored: dict[str, dict[int, bytes]] = {}
        for row in self.table(AUDIT).to_pylist():
            digest = b"".join(int(row[f"digest_{k}"], 16).to_bytes(8, "little") for k in range(4))
            stored.setdefault(row["stream"], {})[row["block_no"]] = digest
        ends = {**self.summary.get("hashes", {}), **self.summary.get("record_hashes", {})}  # these cover the open block too
        streams: dict[str, Any] = {}
        broken: dict[str, Any] | None = None
        for spec in (TRADES, QUOTES, BARS, SIGNALS, CONTROL, REPORTS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, APPROVED):
            why = stored_live.unverifiable(self, spec)
            if why:
                streams[spec.name] = {"records": None, "blocks": len(stored.get(spec.name, {})), "ok": None, "why": why}
                continue
            rows = self._rows(spec, names)
            made = Chain().add(canonical(spec, rows, name_ids(self.symbols), name_ids(names))) if len(rows) else []
            have = stored.get(spec.name, {})
            bad = next((no for _, no, digest in made if have.get(no) != digest), None)
            if bad is None and len(have) != len(made):
                bad = min(len(have), len(made))
            streams[spec.name] = {"records": len(rows), "blocks": len(made), "ok": bad is None}
            if bad is None and spec.name in ends:
                whole = Chain()
                if len(rows):
                    whole.add(canonical(spec, rows, name_ids(self.symbols), name_ids(names), whole=True))
                bad = len(made) if whole.head().hex()[:32] != ends[spec.name] else None
            streams[spec.name]["ok"] = bad is None
            if bad is not None and broken is None:
                broken = {"stream": spec.name, "block": bad, "first_record": bad * BLOCK + 1, "last_record": (bad + 1) * BLOCK}
        return {"run_id": self.run_id, "ok": broken is None, "broken": broken, "streams": streams}

    def _rows(self, spec: TableSpec, names: tuple[str, ...]) -> Any:
        symbols = self.symbols
        rows = from_arrow(spec, self.table(spec), symbols, names)
        keys = {"bars": ("bar_kind", "interval_ns", "symbol", "seq"), "signals": ("slot", "strategy", "symbol", "seq")}.get(spec.name)
        return rows[np.lexsort([rows[k] for k in keys])] if keys and len(rows) else rows


def find_order(url: str, order_id: str) -> str:
    """The newest run that has an order."""
    client = opened(url)
    rows = query_arrow(client, "SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM decisions WHERE order_id = {o:String} "
                       "UNION ALL SELECT run_id FROM orders WHERE order_id = {o:String}) ORDER BY ts_started_ns DESC LIMIT 1",
                       {"o": order_id}).to_pylist()
    client.close()
    if not rows:
        raise UserError(f'no order "{order_id}" in the warehouse; '
                        '`penstock warehouse query "SELECT order_id FROM decisions LIMIT 20"` shows some')
    return str(rows[0]["run_id"])
