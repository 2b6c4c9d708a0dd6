"""One replay in a process of its own: `python -m bench._memory_run ROWS dropped|parquet` prints its peak memory as JSON."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from research.rehearsal import rehearse
from research.replaying import enabled, make_plan, warm_up
from schemas.codec import to_arrow
from schemas.frame import Frame
from schemas.tables import BARS, SIGNALS
from schemas.tables_desk import AUDIT, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS
from sources.simulator import simulate

SYMBOLS = 10
WRITTEN = (BARS, SIGNALS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, AUDIT)


def peak_mb() -> float:
    """The process's highest resident size so far, MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main(rows: int, kept: str) -> None:
    """Replay about `rows` simulated rows of ten symbols."""
    made = make_plan(None, None)
    warm_up(made)
    hours = rows / (simulate(SYMBOLS, 1, 7).rows_total)
    tape = simulate(SYMBOLS, hours, 7)
    seen = {"rows": 0}
    writers: dict[str, pq.ParquetWriter] = {}
    start_mb, started = peak_mb(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        def collect(frame: Frame) -> None:
            seen["rows"] += sum(len(frame.tables[name]) for name in ("trades", "beats") if name in frame.tables)
            if kept == "dropped":
                return
            for spec in WRITTEN:
                found = frame.rows(spec)
                if len(found):
                    table = to_arrow(spec, found, frame.symbols, made.strategy_names)
                    if spec.name not in writers:
                        writers[spec.name] = pq.ParquetWriter(Path(folder) / f"{spec.name}.parquet", table.schema)
                    writers[spec.name].write_table(table)

        rehearse(made, enabled(tape.frames(65_536)), collect)
        for writer in writers.values():
            writer.close()
    print(
        json.dumps(
            {
                "rows": seen["rows"],
                "seconds": round(time.perf_counter() - started, 3),
                "peak_mb": peak_mb(),
                "start_mb": start_mb,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
