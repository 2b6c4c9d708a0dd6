"""One Bytewax worker against two, over the same topic of recorded bars with every feature computed."""

import os
import time
from collections.abc import Iterator

import numpy as np

from bench._broker import ABSENT, BROKER, site
from bench._harness import Absent, Result
from bench._inputs import MINUTE_NS, minute_bars
from schemas.frame import Frame
from schemas.tables import RECORDED

ROWS = 1_000_000
SYMBOLS = tuple(f"S{k:02d}/USDT" for k in range(40))
MINUTES = 100
"""Of every symbol in a frame of input, so that a message carries what a backlog's does."""


def measure(runs: int, rows: int) -> Result | Absent:
    """From the first frame that leaves to the last, each run from the topic's beginning; seconds for all rows at the rate of those after
    the first frame."""
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
                left: list[tuple[float, int]] = []
                Running(made, f"w{workers}-{k}", once=True, workers=workers,
                        seen=lambda f, left=left: left.append((time.perf_counter(), len(f.rows(RECORDED))))).go()
                after = sum(n for _, n in left[1:])
                seconds[workers].append((left[-1][0] - left[0][0]) * rows / after)
    one, two = (float(np.median(seconds[w])) for w in (1, 2))
    return Result("workers", rows, seconds[2], "fetching, sequencing, every feature, desk, publishing bars; not the first frame",
                  {"one_worker": {"rows": rows, "rows_per_second": round(rows / one), "seconds": seconds[1]}},
                  {"speedup": round(one / two, 2)})


def _bars(rows: int) -> Iterator[Frame]:
    """Frames of made-up minute bars, MINUTES of every symbol each."""
    random = np.random.default_rng(1)
    price = 100.0 * np.exp(random.normal(0, 0.3, len(SYMBOLS)))
    n = len(SYMBOLS)
    for first in range(0, rows // n, MINUTES):
        minutes = min(MINUTES, rows // n - first)
        walk = np.concatenate([price[None], price * np.exp(np.cumsum(random.normal(0, 1e-3, (minutes, n)), axis=0))])
        price = walk[-1]
        yield minute_bars(walk, first, SYMBOLS, random)
