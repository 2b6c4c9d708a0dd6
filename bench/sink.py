"""Trade rows into the embedded ClickHouse through the sink, over HTTP on loopback."""

import tempfile
from importlib import import_module
from typing import Any

from bench._harness import Result, timed
from bench._inputs import shared_trades, trade_rows
from schemas.tables import TRADES

ROWS = 2_000_000
BATCH_ROWS = 65_536


def measure(runs: int, rows: int) -> Result:
    """Rows are acknowledged by the engine when the time stops; every run is a run id of its own."""
    sink_class: Any = import_module("sinks.clickhouse").ClickHouseSink
    start: Any = import_module("sinks.warehouse").start_embedded
    trades = trade_rows(shared_trades(rows))
    batches = [trades[at : at + BATCH_ROWS] for at in range(0, rows, BATCH_ROWS)]
    made: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        url, stop = start(folder)
        try:

            def prepare() -> Any:
                made.append(sink_class(url, f"bench-{len(made)}"))
                return made[-1]

            def work(sink: Any) -> None:
                for batch in batches:
                    sink.write(TRADES, batch, ("BENCH",), ())
                for name in ("flush", "close"):
                    if hasattr(sink, name):
                        getattr(sink, name)()
                        break

            seconds = timed(prepare, work, runs)
        finally:
            stop()
    return Result(
        "sink",
        rows,
        list(seconds),
        f"rows to columns, transport in batches of {BATCH_ROWS} rows, insertion, acknowledgement",
    )
