"""How long `penstock --help` takes, beside an empty Python."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench._harness import Result

ROWS = 10_000


def measure(runs: int, rows: int) -> Result:
    """Processes started one after the other; a row is a start."""
    command = Path(sys.executable).parent / "penstock"
    helped = seconds_of([str(command), "--help"], max(runs, 5))
    empty = seconds_of([sys.executable, "-c", "pass"], max(runs, 5))
    return Result(
        "startup",
        1,
        helped,
        "start of the interpreter, imports, printing of the help",
        {},
        {
            "python_seconds": round(statistics.median(empty), 4),
            "times_python": round(statistics.median(helped) / statistics.median(empty), 1),
        },
    )


def seconds_of(command: Sequence[str], runs: int) -> list[float]:
    """Seconds of each run of a command after one to warm up."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
