"""A run on its way into the warehouse: every table it read or made, and a row that says how it stands.

The `runs` row is written first (running) and last (done, aborted or failed), so a run that was cut off is seen as one.
"""

import contextlib
import json
import time
from typing import Any

from operators.assembly import Plan
from operators.strategies.documents import to_data
from schemas.config import Config, config_document
from schemas.ddl import DATABASE
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame
from schemas.tables import BARS, LATE, QUOTES, REJECTED, SIGNALS, TRADES
from schemas.tables_desk import AUDIT, CONTROL, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS, RUNS
from schemas.tables_models import MODEL_TABLES, PROMOTIONS
from sinks.clickhouse import ClickHouseSink, connect, create_tables, query_arrow

RECORDED_TABLES = (TRADES, QUOTES, CONTROL, BARS, LATE, REJECTED, SIGNALS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, AUDIT,
                   PROMOTIONS, *MODEL_TABLES)
RUNNING, DONE, ABORTED, FAILED = "running", "done", "aborted", "failed"


class Recorder:
    """Writes frames of one run; call it with each frame, then `finish`."""

    def __init__(self, url: str, run_id: str, made: Plan, command: str, data: dict[str, Any]) -> None:
        client = connect(url)
        create_tables(client)
        found = query_arrow(client, f"SELECT count() AS n FROM {DATABASE}.runs WHERE run_id = {{r:String}}", {"r": run_id})
        client.close()
        if found["n"][0].as_py():
            raise UserError(f'run "{run_id}" exists; give another --run-id, or none')
        self.sink = ClickHouseSink(url, run_id)
        self.made = made
        self.started_ns = time.time_ns()
        self.command, self.data = command, data
        self._state(RUNNING, {})

    def __call__(self, frame: Frame) -> None:
        """Hand the frame's rows to the sink, which may wait for the warehouse."""
        names = self.made.names
        for spec in RECORDED_TABLES:
            rows = frame.rows(spec)
            if len(rows):
                self.sink.write(spec, rows, frame.symbols, names)
        for found in frame.features:
            if len(found.bars):
                self.sink.write_features(found, frame.symbols)

    def _state(self, state: str, summary: dict[str, Any]) -> None:
        record = {
            "ts_started_ns": self.started_ns, "state": state, "command": self.command,
            "config": json.dumps(config_document(self.made.config)), "policy": self.made.config.policy.to_yaml(),
            "strategies": json.dumps([to_data(spec) for spec in self.made.specs]),
            "feature_names": json.dumps({str(ns): list(names) for ns, names in self.made.features.items()}),
            "data": json.dumps(self.data), "summary": json.dumps(summary),
        }
        self.sink.write(RUNS, [record])
        self.sink.flush()

    def finish(self, state: str, summary: dict[str, Any], data: dict[str, Any] | None = None) -> None:
        """Everything written and acknowledged, then the state."""
        self.data = data or self.data
        self.sink.flush()
        self._state(state, summary)
        self.sink.close()

    def abandon(self, state: str, summary: dict[str, Any]) -> None:
        """Say how it ended, where the warehouse still takes it; what was stored stays as it is."""
        with contextlib.suppress(PenstockError):
            self.finish(state, summary)


def config_of(text: str) -> Config:
    """The configuration that a run recorded."""
    from schemas.config import parse_config
    return parse_config(json.loads(text), "recorded config")
