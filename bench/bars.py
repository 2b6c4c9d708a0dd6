"""Recorded bars → EMA cross 10/30 → gate → fills → ledger, one symbol, against vectorbt."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench._harness import Result, peer, timed
from bench._inputs import cross_plan, frames_of, recorded_bars
from research.rehearsal import rehearse
from schemas.frame import Frame

ROWS = 1_000_000


def measure(runs: int, rows: int) -> Result:
    """One symbol, one core, frames built beforehand, all results kept in memory."""
    bars = recorded_bars(rows)
    made = cross_plan()
    frames = frames_of("recorded", bars, ("BENCH",))
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
        path = Path(folder) / "closes.npy"
        np.save(path, bars["close"])
        peers = {"vectorbt": peer("vectorbt", "vectorbt_bars.py", str(path), "--runs", str(runs))}
    return Result(
        "bars",
        rows,
        seconds,
        "quality checks, EMAs, rule evaluation, sizing, all limits, order life cycle, conservative fills from bars, double-entry ledger, an "
        "equity sample each minute, BLAKE3 audit chain over every bar and record; not the building of input, nor compilation",
        peers,
        {"counts": counts},
    )
