"""The limits of the gate: each one small function that says what it measures and what is allowed; it passes where observed <= bound.

`schemas.tables_desk.LIMITS` is their order; `check` asks all of them, every time, and nothing else in the project decides
whether an order may go.
"""

from operators.compiled import inner
from operators.desk.ledger import heat_of
from operators.desk.state import Desk, Record
from schemas.money import mul_units
from schemas.tables_desk import ACTIVE, CAUSE_FLATTEN, DISABLED, HALTED


@inner
def trading_state(state: int, is_exit: bool, cause: int) -> int:
    """0 where the state lets it pass, else 1. A desk that is disabled sends nothing; halted, only its own flattening."""
    if state == ACTIVE:
        return 0
    if state == DISABLED or not is_exit:
        return 1
    return 1 if state == HALTED and cause != CAUSE_FLATTEN else 0


@inner
def position_state(desk: Desk, strategy: int, symbol: int, action: int) -> int:
    """0 where the proposal makes sense for the book: an exit needs something to leave, an entry must not double."""
    b = desk.books[strategy, symbol]
    if action == 2:
        return 1 if (b.quantity == 0 and b.entry_pending < 0) or b.exit_pending >= 0 else 0
    if b.entry_pending >= 0:
        return 1
    if b.quantity == 0:
        return 0
    same = (b.quantity > 0) == (action == 0)
    return 1 if same or b.exit_pending < 0 else 0


@inner
def check(desk: Desk, row: Record, strategy: int, symbol: int, action: int, cause: int, quantity: int, price: int, stop: int,
          strength: float, ts: int) -> None:
    """Ask every limit and write verdict, observation and bound of each into the decision's row."""
    account = desk.account[0]
    policy = desk.policy[0]
    s = desk.symbols[symbol]
    is_exit = action == 2
    observed = row.observed
    bounds = row.bounds
    observed[:] = 0
    bounds[:] = 0
    observed[0] = trading_state(account.trading_state, is_exit, cause)
    observed[2] = position_state(desk, strategy, symbol, action)
    if not is_exit:
        notional = mul_units(price, quantity)
        equity = max(account.equity, 0)
        side = 1 if action == 0 else -1
        risk = heat_of(side * quantity, side * notional, stop)
        held = desk.books[strategy, symbol].quantity
        leaving = abs(mul_units(price, held)) if held != 0 else 0
        gross = account.exposure + account.pending_notional + notional - leaving
        observed[1] = 0 if strength != 0.0 else 1
        observed[3] = ts - s.ts_last_ns
        bounds[3] = policy.price_age_max
        observed[4] = account.peak - account.equity
        bounds[4] = mul_units(account.peak, policy.drawdown_halt)
        observed[5] = account.day_start_equity - account.equity
        bounds[5] = mul_units(account.day_start_equity, policy.daily_loss_max)
        observed[6] = account.week_start_equity - account.equity
        bounds[6] = mul_units(account.week_start_equity, policy.weekly_loss_max)
        observed[7] = account.entries_today + 1
        bounds[7] = policy.daily_trades_max
        observed[8] = max(s.cooldown_until_ns - ts, 0)
        observed[9] = account.positions + account.pending + 1
        bounds[9] = policy.positions_max
        observed[10] = account.open_orders + 1
        bounds[10] = policy.orders_max
        observed[11] = policy.lot
        bounds[11] = quantity
        observed[12] = policy.notional_min
        bounds[12] = notional
        observed[13] = risk if stop > 0 else 0
        bounds[13] = mul_units(equity, policy.position_risk_max)
        observed[14] = notional
        bounds[14] = mul_units(equity, policy.position_notional_max)
        observed[15] = gross
        bounds[15] = mul_units(equity, policy.exposure_max)
        observed[16] = account.heat + account.pending_heat + risk
        bounds[16] = mul_units(equity, policy.heat_max)
        observed[17] = gross
        bounds[17] = mul_units(equity, policy.leverage_max)
        observed[18] = 0 if strength >= 0.0 else 1
    row.reason = 0
    for k in range(len(row.verdicts)):
        asked = not is_exit or k == 0 or k == 2
        row.verdicts[k] = 0 if not asked else (1 if observed[k] <= bounds[k] else 2)
        if asked and observed[k] > bounds[k] and row.reason == 0:
            row.reason = k + 1
