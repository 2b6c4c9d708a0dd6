"""Bars of 16 symbols through the whole loop with 60 features on each bar."""

from typing import Any

from bench._harness import Result, timed
from bench._inputs import cross_plan, frames_of, recorded_bars
from operators.market.features.operator import default_features
from research.rehearsal import rehearse
from schemas.frame import Frame

ROWS = 480_000
SYMBOLS, FEATURES = 16, 60


def measure(runs: int, rows: int) -> Result:
    """One core, frames built beforehand; the results are dropped after each frame, but for their number."""
    names = chosen()
    made = cross_plan(names)
    frames = frames_of("recorded", recorded_bars(rows, SYMBOLS), [f"BENCH{k:02d}" for k in range(SYMBOLS)])
    counts: dict[str, int] = {}

    def collect(frame: Frame) -> None:
        for name, found in frame.tables.items():
            counts[name] = counts.get(name, 0) + len(found)

    def work(_: Any) -> None:
        rehearse(made, frames, collect)

    seconds = timed(counts.clear, work, runs)
    return Result(
        "features",
        rows,
        seconds,
        f"{SYMBOLS} symbols, {len(names)} features a bar, quality checks, EMA cross in every symbol, gate, fills, "
        "ledger, equity samples, audit chain; not the building of input, nor compilation",
        {},
        {"features": len(names), "counts": counts},
    )


def chosen() -> tuple[str, ...]:
    """One column of each of 60 features, in the registry's order."""
    first: dict[str, str] = {}
    for column in default_features():
        first.setdefault(column.split("(")[0].split(".")[0], column)
    return tuple(first.values())[:FEATURES]
