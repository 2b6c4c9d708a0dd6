"""Compilation up front, shown: a small simulated tape through the plan compiles or loads every kernel it needs."""

from operators.assembly import Plan
from research.rehearsal import rehearse
from schemas.frame import Frame
from schemas.tables import BARS, BEATS, QUOTES, RECORDED, TRADES


def warm_plan(made: Plan) -> None:
    """Run one row of each kind through a fresh set of operators."""
    tables = {}
    for spec, price in ((TRADES, "price"), (QUOTES, "bid"), (RECORDED, "close"), (BEATS, None)):
        rows = spec.empty(1)
        rows["ts_event_ns"] = 1
        if price:
            rows[price] = 1.0
        tables[spec.name] = rows
    del tables[RECORDED.name]
    rehearse(made, [Frame("warm", 0, 1, ("WARM",), tables)], lambda frame: None)
    _ = BARS
