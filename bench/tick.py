"""One tick at a time through the whole loop engine: bars, features, strategies, gate, ledger."""

import time
from typing import Any

import numpy as np

from bench._harness import Result
from bench._inputs import cross_plan, frames_of, shared_trades, trade_rows
from operators.assembly import desk, market_chain
from schemas.policy import Policy
from schemas.tables import BARS

ROWS = 20_000
STRATEGIES = ("bollinger_bounce", "breakout_momentum", "momentum")


def measure(runs: int, rows: int) -> Result:
    """Frames of one trade, about 600 to a minute, as they come live; the default strategies under the default policy."""
    frames = frames_of("trades", trade_rows(shared_trades(rows)), ("BENCH",), batch_rows=1)
    made = cross_plan(strategies=STRATEGIES, policy=Policy())
    all_seconds, plain, closing = [], [], []
    for run in range(runs + 1):
        market, money = market_chain(made), desk(made)
        taken = np.empty(len(frames))
        closed = np.zeros(len(frames), np.bool_)
        for k, frame in enumerate(frames):
            started = time.perf_counter_ns()
            after = money.step(market.step(frame))
            taken[k] = time.perf_counter_ns() - started
            closed[k] = BARS.name in after.tables
        if run:
            all_seconds.append(float(taken.sum()) / 1e9)
            plain.append(taken[~closed] / 1e3)
            closing.append(taken[closed] / 1e3)
    more: dict[str, Any] = {
        "latency_us": {
            "no_bar": percentiles(np.concatenate(plain)),
            "closing_bar": percentiles(np.concatenate(closing)),
        }
    }
    more["latency_us"]["all"] = percentiles(np.concatenate([*plain, *closing]))
    return Result(
        "tick",
        rows,
        all_seconds,
        f"{', '.join(STRATEGIES)} on 1-minute bars with their features, quality checks, gate, fills, ledger, audit "
        "chain, one frame a trade; not the decoding of a message",
        {},
        more,
    )


def percentiles(us: Any) -> dict[str, float]:
    """Median, 99th percentile and count, in microseconds."""
    return {"median": round(float(np.median(us)), 1), "p99": round(float(np.percentile(us, 99)), 1), "ticks": len(us)}
