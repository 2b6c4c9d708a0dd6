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
from schemas.tables import ALL_SYMBOLS, BEATS, QUOTES, RECORDED, TRADES

ROOT = Path(__file__).resolve().parent.parent
_DESK_DONE = "desk.compiled"


def _frame() -> Frame:
    """Prints, quotes, recorded bars and a beat, far enough apart to close a bar of every length."""
    day = 86_400 * 10**9
    trades = TRADES.empty(2)
    trades["price"], trades["size"], trades["trade_id"] = 1.0, 1.0, -1
    quotes = QUOTES.empty(1)
    quotes["bid"], quotes["ask"], quotes["symbol"] = 1.0, 1.1, 1
    bars = RECORDED.empty(2)
    for name in ("open", "high", "low", "close", "volume", "vwap"):
        bars[name] = 1.0
    bars["symbol"], bars["interval_ns"] = 2, day
    bars["ts_open_ns"] = (0, day)
    bars["ts_close_ns"] = bars["ts_event_ns"] = (day, 2 * day)
    beats = BEATS.empty(1)
    beats["ts_event_ns"], beats["symbol"] = 9 * day, ALL_SYMBOLS
    trades["ts_event_ns"], trades["seq"] = (0, 3 * day), (0, 4)
    quotes["seq"], bars["seq"], beats["seq"] = 1, (2, 3), 5
    return Frame("warm", 0, 9 * day, ("WARM0", "WARM1", "WARM2"),
                 {"trades": trades, "quotes": quotes, "recorded": bars, "beats": beats})


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
