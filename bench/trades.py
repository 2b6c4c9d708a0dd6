"""Trades → 1-minute bars → EMA cross 10/30 → gate → paper fills from the ticks → ledger, against hftbacktest and NautilusTrader."""

import tempfile
from typing import Any

from bench._harness import Result, peer, timed
from bench._inputs import cross_plan, frames_of, saved, shared_trades, trade_rows
from research.rehearsal import rehearse
from schemas.frame import Frame

ROWS = 5_000_000
RUST_ROWS, DOCUMENTED_ROWS = 500_000, 250_000
"""NautilusTrader takes the first so many of the same trades: it would need minutes for all of them."""


def measure(runs: int, rows: int) -> Result:
    """One symbol, one core, frames built beforehand, all results kept in memory."""
    shared = shared_trades(rows)
    made = cross_plan()
    frames = frames_of("trades", trade_rows(shared), ("BENCH",))
    kept: list[Frame] = []

    def work(_: Any) -> None:
        rehearse(made, frames, kept.append)

    seconds = timed(kept.clear, work, runs)
    counts: dict[str, int] = {}
    for frame in kept:
        for name, found in frame.tables.items():
            counts[name] = counts.get(name, 0) + len(found)
    kept.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = saved(shared, folder)
        peers = {"hftbacktest": fastest(path, runs)}
        for engine, some in (("rust", RUST_ROWS), ("cython", DOCUMENTED_ROWS)):
            name = "nautilus_rust" if engine == "rust" else "nautilus_documented"
            peers[name] = peer(
                "nautilus",
                "nautilus_trades.py",
                path,
                "--engine",
                engine,
                "--rows",
                str(min(some, rows)),
                processes=runs,
            )
    return Result(
        "trades",
        rows,
        seconds,
        "quality checks, bars, EMAs, rule evaluation, sizing, all limits, order life cycle, fills from ticks after latency, double-entry "
        "ledger, equity samples, BLAKE3 audit chain over every trade and record; not the building of input, nor compilation",
        peers,
        {"counts": counts},
    )


def fastest(path: str, runs: int) -> dict[str, Any]:
    """hftbacktest in its fastest set-up on this machine, of the two ways to wake a strategy."""
    found = [
        peer("hftbacktest", "hftbacktest_trades.py", path, "--mode", mode, "--runs", str(runs))
        for mode in ("elapse", "feed")
    ]
    return max(found, key=lambda line: float(line.get("rows_per_second", 0)))
