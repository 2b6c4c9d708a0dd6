"""What the benchmarks share: timing, the peers' processes, and the line that is printed.

A peer runs in a virtual environment of its own under `.bench/` (`make bench-peers`); where that is absent the result
says so and carries no ratio.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".bench"
PEERS = Path(__file__).resolve().parent / "peers"


@dataclass
class Result:
    """One benchmark's outcome. `ratios`: rows per second of Penstock over those of the peer; `more`: other figures."""

    bench: str
    rows: int
    seconds: Sequence[float]
    includes: str
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        return self.rows / statistics.median(self.seconds)

    @property
    def ratios(self) -> dict[str, float]:
        """Peer → how many times its speed."""
        return {
            k: round(self.rows_per_second / p["rows_per_second"], 2)
            for k, p in self.peers.items()
            if "rows_per_second" in p
        }

    @property
    def rows_per_cpu_second(self) -> float:
        """By processor time: on a machine that does other work as well, the fairer figure."""
        cpu = self.seconds.cpu_seconds if isinstance(self.seconds, Timed) else self.seconds
        return self.rows / statistics.median(cpu)

    @property
    def ratios_cpu(self) -> dict[str, float]:
        """The ratios by processor time, of peers that report it."""
        return {
            k: round(self.rows_per_cpu_second / (p["rows"] / p["cpu_seconds"]), 2)
            for k, p in self.peers.items()
            if "cpu_seconds" in p
        }

    def values(self) -> dict[str, Any]:
        """The object that is printed."""
        used = {"rows_per_cpu_second": round(self.rows_per_cpu_second)} if isinstance(self.seconds, Timed) else {}
        return {
            "bench": self.bench,
            "version": version("penstock"),
            "rows": self.rows,
            "seconds": round(statistics.median(self.seconds), 6),
            "rows_per_second": round(self.rows_per_second),
            "runs": [round(s, 6) for s in self.seconds],
            "peers": self.peers,
            "ratios": self.ratios,
            **used,
            **({"ratios_cpu": self.ratios_cpu} if self.peers else {}),
            **self.more,
            "includes": self.includes,
            "machine": machine(),
        }

    def as_json(self) -> str:
        return json.dumps(self.values())

    def as_text(self) -> str:
        """The same for reading."""
        values = self.values()
        lines = [
            f"{self.bench}: {self.rows_per_second:,.0f} rows/s ({self.rows:,} rows in {values['seconds']} s, median of {len(self.seconds)})"
        ]
        if isinstance(self.seconds, Timed):
            lines.append(
                f"  {self.rows_per_cpu_second:,.0f} rows per second of processor time"
                + (f"; ratios by it {self.ratios_cpu}" if self.ratios_cpu else "")
            )
        for name, peer in self.peers.items():
            if "rows_per_second" in peer:
                lines.append(
                    f"  {self.ratios[name]:g} x {name} {peer.get('version', '')}: {peer['rows_per_second']:,.0f} rows/s, {peer['work']}"
                )
            else:
                lines.append(f"  {name}: {peer['absent']}")
        lines += [f"  {key}: {value}" for key, value in self.more.items()]
        return "\n".join([*lines, f"  includes: {self.includes}", f"  machine: {machine()}"])


@dataclass
class Absent:
    """A benchmark that cannot be run here, and what would change that."""

    bench: str
    why: str

    def as_json(self) -> str:
        return json.dumps({"bench": self.bench, "version": version("penstock"), "absent": self.why})

    def as_text(self) -> str:
        return f"{self.bench}: {self.why}"


def machine() -> str:
    """Processor, cores and Python, in one line."""
    model = platform.processor() or platform.machine()
    try:
        found = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        model = found[0] if found else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


class Timed(list[float]):
    """Seconds by the clock of each run; `cpu_seconds` is what this process used of a processor meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_seconds: list[float] = []


def timed(prepare: Callable[[], Any], work: Callable[[Any], Any], runs: int) -> Timed:
    """Seconds of `work(prepare())` for each run after one to warm up; `prepare` is not timed."""
    seconds = Timed()
    for run in range(runs + 1):
        ready = prepare()
        started, used = time.perf_counter(), time.process_time()
        work(ready)
        if run:
            seconds.append(time.perf_counter() - started)
            seconds.cpu_seconds.append(time.process_time() - used)
    return seconds


def peer(environment: str, script: str, *arguments: str, processes: int = 1) -> dict[str, Any]:
    """A peer's own JSON line, the median one of several processes, or `absent` with what to do."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        return {"absent": "not measured: there is no .bench/" + environment + "; make it with `make bench-peers`"}
    lines: list[dict[str, Any]] = []
    for _ in range(processes):
        done = subprocess.run(
            [str(python), "-W", "ignore", str(PEERS / script), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")},
        )
        if done.returncode:
            return {
                "absent": f"not measured: {script} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            }
        lines.append(json.loads(done.stdout.strip().splitlines()[-1]))
    middle = dict(sorted(lines, key=lambda line: float(line["rows_per_second"]))[len(lines) // 2])
    if processes > 1:
        middle["runs"] = [line["seconds"] for line in lines]
    return middle


def child(module: str, *arguments: str) -> Mapping[str, Any]:
    """Run a module of ours in a process of its own; its last line is a JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    values: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return values
