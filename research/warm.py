"""Compilation up front: a small frame through the plan's operators compiles, or loads, every kernel that the plan needs.

The first time, the desk compiles in a process of its own beside the market's operators, so that two cores share the wait;
both leave their machine code in the kernel cache.
"""

import os
import subprocess
import sys
from pathlib import Path

from operators.assembly import Plan
from operators.desk.desk import DeskOperator
from research.rehearsal import rehearse
from schemas.frame import Frame
from schemas.policy import Policy
from schemas.tables import BEATS, QUOTES, TRADES

ROOT = Path(__file__).resolve().parent.parent
_DESK_DONE = "desk.compiled"


def _frame() -> Frame:
    tables = {}
    for spec, price in ((TRADES, "price"), (QUOTES, "bid"), (BEATS, "")):
        rows = spec.empty(1)
        rows["ts_event_ns"] = 1
        if price:
            rows[price] = 1.0
        tables[spec.name] = rows
    return Frame("warm", 0, 1, ("WARM",), tables)


def warm_desk() -> None:
    """Compile or load the desk."""
    DeskOperator(Policy(), ("warm",)).step(_frame())


def warm_plan(made: Plan) -> None:
    """Run one frame through a fresh set of the plan's operators."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    done = Path(folder) / _DESK_DONE if folder else None
    beside = None
    if done is not None and not done.exists():
        beside = subprocess.Popen([sys.executable, "-m", "research.warm"], cwd=ROOT, stdin=subprocess.DEVNULL)
        from operators.assembly import market_chain
        market_chain(made).step(_frame())
    if beside is not None and beside.wait() == 0 and done is not None:
        done.touch()
    rehearse(made, [_frame()], lambda frame: None)


if __name__ == "__main__":
    warm_desk()
