"""A day in minutes: the pipeline over 24 simulated hours, with its memory, file descriptors and lag at every hour."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench._broker import ABSENT, BROKER, site
from bench._harness import Absent, Result
from sinks.kafka_admin import KafkaAdmin
from sources.kafka_tape import KafkaTape, Stretch

ROWS = 600_000
SYMBOLS, HOURS = 10, 24.0
PACE = 480.0


def measure(runs: int, rows: int) -> Result | Absent:
    """The slope of resident memory over the simulated hours after the first three, in which everything is allocated once."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("soak", ABSENT)
    hours: list[dict[str, Any]] = []
    with site(servers, "soak", {}) as here:
        here.run("run", "paper", "--once", "--run", "warm")  # compiles what is not compiled yet
        here.run("control", "enable")
        pipeline = here.start("run", "paper")
        began = time.perf_counter()
        ingest = here.start("ingest", "--simulate", f"{SYMBOLS}:{HOURS:g}:7", "--pace", f"{PACE:g}x", "--codec", "json")
        admin = KafkaAdmin(here.kafka)
        hour_s = 3600 / PACE
        try:
            while ingest.poll() is None:
                time.sleep(hour_s)
                proc = Path(f"/proc/{pipeline.pid}")
                status = proc.joinpath("status").read_text()
                resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
                hours.append({"rss_mb": round(resident, 1), "fds": len(list(proc.joinpath("fd").iterdir())), "lag": _lag(here.kafka, admin)})
        finally:
            seconds = time.perf_counter() - began
            for child in (ingest, pipeline):
                child.send_signal(signal.SIGTERM)
                child.wait(120)
        tape = KafkaTape(here.kafka, Stretch(servers, ("trades",)))
        n = tape.rows_total
    rss = np.array([h["rss_mb"] for h in hours])
    slope = float(np.polyfit(np.arange(3, len(rss)), rss[3:], 1)[0]) if len(rss) > 8 else float("nan")
    return Result("soak", n, [seconds], "ingest of a simulated day at a pace, and the pipeline that follows it", {}, {
        "simulated_hours": len(hours), "rss_mb_per_hour": round(slope, 3), "rss_mb_first_last": [float(rss[3]), float(rss[-1])],
        "fds_max": max(h["fds"] for h in hours), "fds_last": hours[-1]["fds"], "lag_max": max(h["lag"] for h in hours),
        "hours": hours,
    })


def _lag(kafka: Any, admin: KafkaAdmin) -> int:
    """Messages on the input topics beyond what the journal has taken."""
    from sources.journal import read_journal
    journal, _ = read_journal(kafka, "paper")
    taken = {(r.table, r.partition): r.offset_to for n in sorted(journal.entries) for r in journal.entries[n].ranges}
    states = admin.states(("trades", "beats"), settings=False)
    return sum(p.end - taken.get((s.topic.table.name, p.partition), 0) for s in states for p in s.partitions)
