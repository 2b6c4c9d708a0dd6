"""An hour at sixty times its pace through two pipelines, of one worker and of two, and each against its own replay."""

import os
import signal
import time
from typing import Any

from bench._broker import ABSENT, BROKER, site
from bench._harness import Absent, Result

ROWS = 20_000
"""Not used: the hour has as many ticks as the simulator makes of it."""
SYMBOLS, HOURS, PACE = 10, 1.0, 60.0
DRAIN_S = 5.0


def measure(runs: int, rows: int) -> Result | Absent:
    """Differing events: 0 where parity is OK, and then what was compared."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("parity", ABSENT)
    more: dict[str, Any] = {}
    with site(servers, "parity", {}) as here:
        here.run("run", "paper", "--once", "--run", "warm")  # compiles what is not compiled yet
        here.run("control", "enable")
        pipelines = [here.start("run", "paper", "--run", f"workers-{n}", "--workers", str(n)) for n in (1, 2)]
        began = time.perf_counter()
        here.run("ingest", "--simulate", f"{SYMBOLS}:{HOURS:g}:7", "--pace", f"{PACE:g}x", "--codec", "json")
        seconds = time.perf_counter() - began
        time.sleep(DRAIN_S)
        for pipeline in pipelines:
            pipeline.send_signal(signal.SIGTERM)
        for pipeline in pipelines:
            pipeline.wait(120)
        for n in (1, 2):
            found = here.run("parity", f"workers-{n}")
            more[f"workers_{n}"] = {key: found[key] for key in ("ok", "frames", "rows_in", "compared", "unpublished_frames", "difference")}
    return Result("parity", more["workers_1"]["rows_in"], [seconds], f"one simulated hour of {SYMBOLS} symbols at {PACE:g}x, every stage "
                  "of both runs compared with a replay of their journals", {}, more)
