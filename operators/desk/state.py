"""What the desk remembers: the account, a record per symbol, a book per (strategy, symbol), and the open orders.

All of it is in plain arrays that compiled functions write in place; every array has a bound. `equity` is always cash
plus the values of all symbols at their last prices, to the unit.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.policy import Policy, compile_policy
from schemas.tables_desk import DISABLED

Records = npt.NDArray[Any]
Record = Any
"""One record of a structured array, as compiled code sees it."""


def _ints(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "i8") for name in names])


ACCOUNT = np.dtype([
    ("id", "u8"),
    *((name, "i8") for name in (
        "trading_state", "cash", "equity", "exposure", "heat", "peak", "halt_below", "realised", "fees", "funding",
        "day_start_equity", "week_start_equity", "entries_today", "positions", "pending", "pending_notional", "pending_heat", "open_orders",
        "next_sample_ns", "next_day_ns", "next_week_ns", "next_time_ns",
        "decision_no", "event_no", "fill_no", "entry_no", "position_no", "flatten_due",
        "external", "approval_no", "retry_at_ns", "leave_due", "done_no", "reports_ignored", "reports_unknown", "exits_failed",
    )),
])
"""external: 1 where a venue that is not the paper one fills the orders. retry_at_ns: when an exit is sent again, at the earliest.
leave_due: a position came out of an order that was given up. done_no: orders that the venue has ended. reports_ignored: reports that
said nothing new, or nothing that can be. reports_unknown: of orders that were never sent. exits_failed: exits that were given up."""
SYMBOL = np.dtype([
    *((name, "i8") for name in (
        "last", "ts_last_ns", "net", "value", "head", "tail", "ticks", "bid", "ask", "bar_interval_ns", "cooldown_until_ns",
        "act_below", "act_above",
    )),
    ("var_rate", "f8"),
    ("bar_close", "f8"),
    ("bar_ts_ns", "i8"),
])
"""act_below, act_above: between these prices no open order does anything.
ticks: 0 no tick seen, 1 trades, 2 quotes only. var_rate: EWMA of squared log returns per second."""
BOOK = _ints(
    "quantity", "cost", "stop", "target", "risk", "realised", "fees", "trip_pnl", "ts_entry_ns", "entry_pending", "exit_pending",
    "exit_sent", "leave", "own_exits",
)
"""entry_pending, exit_pending: slots of the gate's open orders, or -1. exit_sent: slot of the exit that is at an external venue, or
-1; there is never a second one. leave: what still comes of an order that was given up is to be left again. own_exits: exits that the desk
itself proposed."""
ORDER = np.dtype([
    ("order_id", "u8"), ("parent_id", "u8"),
    *((name, "i8") for name in (
        "used", "next", "strategy", "symbol", "order_type", "state", "side", "cause", "quantity", "filled", "limit_price",
        "stop_price", "trail", "ts_active_ns", "seq_placed", "reduce_only", "bracket_stop", "bracket_target", "bracket_trail",
        "is_bracket", "reserved", "reserved_heat",
        "decision_no", "due", "sent", "notional", "fee", "report_no", "cancel_asked", "attempt", "failures", "rounds",
    )),
    ("root_id", "u8"),
])
"""From decision_no on, for an external venue. due: it is to be sent as soon as it may. sent: what was asked of the venue, 0 for not
sent. notional, fee: totals that the venue has reported. attempt: how often it was sent again, failures: how often in a row nothing
came of it. rounds: how often its bracket was placed. root_id: the id that the ids of later attempts are made of."""
ORDERS_BOUND = 2048
"""Slots for open orders: entries are bounded by the policy, exits by three per position."""
SCRATCH = ORDERS_BOUND
"""The slot in which a late report of an ended order is booked; it is never in a queue."""
DONE_BOUND = 1024
"""Ended orders that an external venue may still say something of."""
NEVER = 2**62
"""A time that does not come."""


class Desk(NamedTuple):
    """The state, as compiled functions take it. weights: allocation per strategy in 1e-8. done: a ring of ended orders."""

    account: Records
    policy: Records
    symbols: Records
    books: Records
    orders: Records
    weights: npt.NDArray[np.int64]
    strategy_ids: npt.NDArray[np.uint64]
    symbol_ids: npt.NDArray[np.uint64]
    done: Records


class Out(NamedTuple):
    """Rows that one call makes, and how many of each are used (`n`)."""

    decisions: Records
    orders: Records
    fills: Records
    ledger: Records
    positions: Records
    equity: Records
    approved: Records
    n: npt.NDArray[np.int64]


DECISION_N, ORDER_N, FILL_N, LEDGER_N, POSITION_N, EQUITY_N, APPROVED_N = range(7)


def new_symbols(n: int) -> Records:
    """`n` fresh symbol records."""
    out = np.zeros(n, SYMBOL)
    out["head"] = out["tail"] = -1
    return out


def new_books(strategies: int, symbols: int) -> Records:
    """Fresh books, shape (strategies, symbols)."""
    out = np.zeros((strategies, symbols), BOOK)
    out["entry_pending"] = -1
    out["exit_pending"] = -1
    out["exit_sent"] = -1
    return out


def new_desk(account_id: int, policy: Policy, weights: npt.NDArray[np.int64], strategy_ids: npt.NDArray[np.uint64],
             external: bool = False) -> Desk:
    """A desk that has seen nothing: its capital in cash, trading disabled."""
    compiled = compile_policy(policy)
    account = np.zeros(1, ACCOUNT)
    capital = int(compiled["capital"][0])
    account["id"] = account_id
    account["trading_state"] = DISABLED
    for name in ("cash", "equity", "peak", "day_start_equity", "week_start_equity"):
        account[name] = capital
    account["halt_below"] = -(2**62)
    account["external"] = external
    account["retry_at_ns"] = NEVER
    return Desk(account, compiled, new_symbols(1), new_books(max(len(weights), 1), 1), np.zeros(ORDERS_BOUND + 1, ORDER),
                weights, strategy_ids, np.zeros(1, np.uint64), np.zeros(DONE_BOUND if external else 1, ORDER))
