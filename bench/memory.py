"""Peak memory of a replay whose frames are streamed, on a tape and on one ten times as long."""

from bench._harness import Result, child

ROWS = 2_000_000
TIMES = 10


def measure(runs: int, rows: int) -> Result:
    """Processes of their own, the simulated market made hour by hour: results dropped, and results written to Parquet."""
    seconds, more = [], {}
    total = 0
    for kept in ("dropped", "parquet"):
        short, long = (child("bench._memory_run", str(n), kept) for n in (rows, rows * TIMES))
        seconds.append(float(long["seconds"]))
        total = int(long["rows"])
        more[kept] = {
            "rows": [short["rows"], long["rows"]],
            "peak_mb": [short["peak_mb"], long["peak_mb"]],
            "growth": round(long["peak_mb"] / short["peak_mb"], 3),
            "start_mb": short["start_mb"],
        }
    return Result(
        "memory",
        total,
        seconds,
        "simulation of the market, replay with the default strategies, Parquet where it says so; peak RSS",
        {},
        more,
    )
