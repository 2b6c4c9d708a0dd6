"""A run on its way into the warehouse: every table it read or made, and a row that says how it stands.

The `runs` row is written first (running) and last (done, aborted or failed), so a run that was cut off is seen as one.
"""

import json
import time
from typing import Any

from sinks.clickhouse import ClickHouseSink, connect, create_tables

from operators.assembly import Plan
from operators.strategies.documents import to_data
from schemas.codec_features import FEATURES, features_to_compact
from schemas.config import Config, config_document
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables import BARS, LATE, QUOTES, REJECTED, SIGNALS, TRADES
from schemas.tables_desk import AUDIT, CONTROL, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS, RUNS

RECORDED_TABLES = (TRADES, QUOTES, CONTROL, BARS, LATE, REJECTED, SIGNALS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, AUDIT)
RUNNING, DONE, ABORTED, FAILED = "running", "done", "aborted", "failed"


class Recorder:
    """Writes frames of one run; call it with each frame, then `finish`."""

    def __init__(self, url: str, run_id: str, made: Plan, command: str, data: dict[str, Any]) -> None:
        client = connect(url)
        create_tables(client)
        found = client.query("SELECT count() FROM runs WHERE run_id = {r:String}", parameters={"r": run_id}).result_rows
        client.close()
        if found[0][0]:
            raise UserError(f'run "{run_id}" exists; give another --run-id, or none')
        self.sink = ClickHouseSink(url, run_id)
        self.made = made
        self.started_ns = time.time_ns()
        self.command, self.data = command, data
        self._state(RUNNING, {})

    def __call__(self, frame: Frame) -> None:
        """Hand the frame's rows to the sink, which may wait for the warehouse."""
        names = self.made.strategy_names
        for spec in RECORDED_TABLES:
            rows = frame.rows(spec)
            if len(rows):
                self.sink.write(spec, rows, frame.symbols, names)
        for found in frame.features:
            if len(found.bars):
                self.sink.write_arrow(FEATURES, features_to_compact(found, frame.symbols))

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


def config_of(text: str) -> Config:
    """The configuration that a run recorded."""
    from schemas.config import parse_config
    return parse_config(json.loads(text), "recorded config")
