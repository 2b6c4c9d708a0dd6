"""One Bytewax worker against two, over the same topic of recorded bars with every feature computed."""

import contextlib
import os
import time
from typing import Any

import numpy as np

from bench._broker import ABSENT, BROKER, site
from bench._harness import Absent, Result
from schemas.frame import Frame
from schemas.tables import RECORDED

ROWS = 200_000
SYMBOLS = tuple(f"S{k:02d}/USDT" for k in range(40))
MINUTE_NS = 60 * 10**9


def measure(runs: int, rows: int) -> Result | Absent:
    """From the first frame that leaves to the last, each run from the topic's beginning."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("workers", ABSENT)
    from operators.market.features.registry import FEATURES as ALL
    from research.replaying import make_plan, warm_up
    from research.running import Running
    from schemas.config import Config
    from schemas.config_live import LiveConfig
    from sinks.ingest_writer import Writer
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with site(servers, "workers", {}) as here:
        with Writer(here.kafka, "bench", ("recorded",), codec="arrow") as writer:
            for frame in _bars(rows):
                writer.write_frame(frame)
            writer.flush()
        for k in range(runs):
            for workers in (1, 2):
                live = LiveConfig(state_dir=str(here.folder / f"{workers}-{k}"), snapshot_s=3600, record_features=False)
                made = make_plan(Config(kafka=here.kafka, live=live, features={MINUTE_NS: tuple(ALL)}), ())
                warm_up(made)
                times: list[float] = []
                Running(made, f"w{workers}-{k}", once=True, workers=workers, seen=lambda _, t=times: t.append(time.perf_counter())).go()
                seconds[workers].append(times[-1] - times[0])
    one, two = (float(np.median(seconds[w])) for w in (1, 2))
    return Result("workers", rows, seconds[2], "fetching, sequencing, every feature, desk, publishing bars; not the first frame",
                  {"one_worker": {"rows": rows, "rows_per_second": round(rows / one), "seconds": seconds[1]}},
                  {"speedup": round(one / two, 2)})


def _bars(rows: int) -> Any:
    """Frames of made-up minute bars."""
    random = np.random.default_rng(1)
    price = 100.0 * np.exp(random.normal(0, 0.3, len(SYMBOLS)))
    n = len(SYMBOLS)
    with contextlib.suppress(StopIteration):
        for k in range(rows // n):
            out = RECORDED.empty(n)
            open_ = price.copy()
            price = price * np.exp(random.normal(0, 1e-3, n))
            out["symbol"], out["open"], out["close"] = np.arange(n), open_, price
            out["high"], out["low"] = np.maximum(open_, price) * 1.0005, np.minimum(open_, price) * 0.9995
            out["volume"], out["trades"], out["interval_ns"] = random.uniform(1, 9, n), 10, MINUTE_NS
            out["vwap"] = (open_ + price) / 2
            out["notional"] = out["vwap"] * out["volume"]
            out["ts_open_ns"] = 1_700_000_040 * 10**9 + k * MINUTE_NS
            out["ts_close_ns"] = out["ts_event_ns"] = out["ts_open_ns"] + MINUTE_NS
            out["ts_first_ns"], out["ts_last_ns"] = out["ts_open_ns"], out["ts_close_ns"] - 1
            for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
                out[name] = np.nan
            out["seq"] = k * n + np.arange(n)
            yield Frame("bench", k, int(out["ts_event_ns"][-1]), SYMBOLS, {"recorded": out})
