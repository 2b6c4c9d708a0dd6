"""From a frame to metrics: what was read, made, decided, ordered and filled, and where the account stands.

It looks at rows and changes none; the cost is a few microseconds a frame, and nothing for tables that are empty.
"""

from collections.abc import Iterable

import numpy as np

from schemas.frame import Frame
from schemas.money import UNITS
from schemas.policy import Policy, compile_policy
from schemas.tables_desk import DECISIONS, DISABLED, ORDER_STATES, REASONS
from schemas.tables_live import INPUTS
from telemetry import metrics

_TIMED = ("trades", "quotes", "recorded")
"""Tables whose rows say that a symbol is alive."""


def frame_read(frame: Frame, tables: Iterable[str] = INPUTS) -> None:
    """Count the input rows of a frame, by table, and note how fresh each symbol is."""
    for name in tables:
        rows = frame.tables.get(name)
        if rows is None or len(rows) == 0:
            continue
        metrics.one(metrics.ROWS, name).inc(len(rows))
        if name in _TIMED:
            metrics.FRESHNESS_SECONDS.see(frame.symbols, rows["symbol"], rows["ts_event_ns"])
    if frame.frontier_ns > 0:
        metrics.FRESHNESS_SECONDS.passed(frame.frontier_ns)
        metrics.FRONTIER_TIMESTAMP.set(frame.frontier_ns / 1e9)


def frame_made(frame: Frame, account: str, tables: Iterable[str]) -> None:
    """Count a frame that went all the way through: rows of these tables but for the input's, decisions, orders, fills, the account."""
    for name in tables:
        made = frame.tables.get(name)
        if made is not None and len(made) and name not in INPUTS and name != "account":
            metrics.one(metrics.ROWS_MADE, name).inc(len(made))
    _decisions(frame)
    orders = frame.tables.get("orders")
    if orders is not None and len(orders):
        for state, n in _counted(orders["state"], ORDER_STATES):
            metrics.one(metrics.ORDERS, state).inc(n)
    fills = frame.tables.get("fills")
    if fills is not None and len(fills):
        metrics.FILLS.inc(len(fills))
    _account(frame, account)
    metrics.FRAMES.inc()
    metrics.progressed()


def _counted(codes: np.ndarray, labels: tuple[str, ...]) -> list[tuple[str, int]]:
    found = np.bincount(codes, minlength=len(labels))
    return [(labels[k] if k < len(labels) else str(k), int(found[k])) for k in np.flatnonzero(found)]


def _decisions(frame: Frame) -> None:
    rows = frame.rows(DECISIONS)
    if len(rows) == 0:
        return
    approved = rows["approved"] != 0
    metrics.DECISIONS.inc(len(rows))
    metrics.ORDERS_APPROVED.inc(int(approved.sum()))
    for reason, n in _counted(rows["reason"][~approved], REASONS):
        metrics.one(metrics.ORDERS_REFUSED, reason).inc(n)


_last: dict[str, tuple[int, ...]] = {}
"""What was shown of each account; most frames do not change it."""


def _account(frame: Frame, account: str) -> None:
    rows = frame.tables.get("account")  # the desk's own record, as it is after the frame
    if rows is None or len(rows) == 0:
        return
    now = tuple(int(rows[name][-1]) for name in ("equity", "peak", "exposure", "positions", "open_orders", "trading_state"))
    if _last.get(account) == now:
        return
    _last[account] = now
    equity, peak, exposure, positions, open_orders, state = now
    metrics.one(metrics.EQUITY, account).set(equity / UNITS)
    metrics.one(metrics.EXPOSURE, account).set(exposure / UNITS)
    metrics.one(metrics.POSITIONS, account).set(positions)
    metrics.one(metrics.OPEN_ORDERS, account).set(open_orders)
    metrics.one(metrics.DRAWDOWN, account).set(max(0.0, (peak - equity) / peak) if peak > 0 else 0.0)
    metrics.trading_state(account, state)


def account_started(account: str, policy: Policy) -> None:
    """Show an account from its start: trading disabled, nothing refused yet, and the drawdown at which it will halt."""
    _last.pop(account, None)
    metrics.DRAWDOWN_HALT.labels(account=account).set(int(compile_policy(policy)["drawdown_halt"][0]) / UNITS)
    metrics.trading_state(account, DISABLED)
    for reason in REASONS[1:]:
        metrics.ORDERS_REFUSED.labels(reason=reason).inc(0)  # a rate needs a first value
