"""Every limit of the gate: an example in which it is the reason of the refusal, and one at its very bound, which passes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from operators.compiled import kernel
from operators.desk.limits import check
from schemas.tables_desk import DECISIONS, HALTED, LIMITS
from tests.desk_tapes import DAY, MINUTE, ONE, SECOND, ScriptedDesk, measured, plain, reason

Example = Callable[[bool], Any]
"""Gives a decision: with False one that the limit refuses, with True one just inside it."""
EXAMPLES: dict[str, Example] = {}


def example(make: Example) -> Example:
    EXAMPLES[make.__name__] = make
    return make


def priced(*, enabled: bool = True, **limits: str) -> ScriptedDesk:
    """A desk that has seen three symbols at 100 and puts all its equity, 100,000, into a trade of strength 1."""
    desk = ScriptedDesk(plain(notional_per_trade="100 %", **limits), enabled=enabled)
    for symbol in range(3):
        desk.trade(100.0, symbol=symbol, after=0)
    return desk


@example
def trading_state(inside: bool) -> Any:
    return priced(enabled=inside).signal("enter_long")


@example
def conflict(inside: bool) -> Any:
    return priced().signal("enter_long", strength=0.01 if inside else 0.0)


@example
def position_state(inside: bool) -> Any:
    desk = priced()
    desk.buy(strength=0.1)
    return desk.signal("exit") if inside else desk.signal("enter_long", strength=0.1)


@example
def stale_price(inside: bool) -> Any:
    desk = priced(price_age_max="5 min")
    return desk.signal("enter_long", after=5 * MINUTE + (0 if inside else 1))


@example
def drawdown(inside: bool) -> Any:
    desk = priced(drawdown_halt="15 %", drawdown_reduce="15 %")
    desk.buy(strength=0.5)
    desk.trade(70.0 if inside else 69.99)
    desk.control("enable")
    return desk.signal("enter_long", symbol=1, strength=0.1)


@example
def daily_loss(inside: bool) -> Any:
    desk = priced(daily_loss_max="5 %")
    desk.buy(strength=0.5)
    desk.trade(90.0 if inside else 89.99)
    return desk.signal("enter_long", symbol=1, strength=0.1)


@example
def weekly_loss(inside: bool) -> Any:
    desk = priced(weekly_loss_max="5 %")
    desk.buy(strength=0.5)
    desk.trade(90.0 if inside else 89.99)
    desk.beat(DAY)  # another day, the same week
    return desk.signal("enter_long", symbol=1, strength=0.1)


@example
def daily_trades(inside: bool) -> Any:
    desk = priced(daily_trades_max="2")
    desk.buy(0, strength=0.1)
    if not inside:
        desk.buy(1, strength=0.1)
    return desk.signal("enter_long", symbol=2, strength=0.1)


@example
def cooldown(inside: bool) -> Any:
    desk = priced(cooldown_after_loss="15 min")
    desk.buy(strength=0.1)
    desk.trade(99.0)
    desk.signal("exit")
    desk.trade(99.0)
    return desk.signal("enter_long", after=15 * MINUTE - (0 if inside else 1))


@example
def open_positions(inside: bool) -> Any:
    desk = priced(positions_max="2")
    desk.buy(0, strength=0.1)
    if not inside:
        desk.buy(1, strength=0.1)
    return desk.signal("enter_long", symbol=2, strength=0.1)


@example
def open_orders(inside: bool) -> Any:
    desk = priced(orders_max="2")
    desk.signal("enter_long", symbol=0, strength=0.1)
    if not inside:
        desk.signal("enter_long", symbol=1, strength=0.1)
    return desk.signal("enter_long", symbol=2, strength=0.1)


@example
def lot(inside: bool) -> Any:
    return priced(lot="10").signal("enter_long", strength=0.01 if inside else 0.00999)


@example
def notional_min(inside: bool) -> Any:
    return priced(notional_min="1000").signal("enter_long", strength=0.01 if inside else 0.00999)


@example
def position_risk(inside: bool) -> Any:
    return priced(position_risk_max="1 %" if inside else "0.99 %").signal("enter_long", stop=90.0)


@kernel
def ask(desk: Any, row: Any, quantity: int, price: int) -> None:
    """The limits alone, about a long entry of any size."""
    check(desk, row[0], 0, 0, 0, 0, quantity, price, 0, 1.0, desk.symbols[0].ts_last_ns)


@example
def position_notional(inside: bool) -> Any:
    """Sizing never asks for more than this, so the limit is asked itself."""
    desk, row = priced(position_notional_max="20 %"), DECISIONS.empty(1)
    ask(desk.operator.desk, row, 200 * ONE + (0 if inside else 1), 100 * ONE)
    return row[0]


@example
def exposure(inside: bool) -> Any:
    desk = priced(exposure_max="100 %")
    desk.buy(0, strength=0.6)
    return desk.signal("enter_short", symbol=1, strength=0.4 if inside else 0.401)


@example
def heat(inside: bool) -> Any:
    desk = priced(heat_max="2 %")
    desk.buy(0, stop=90.0)
    second = desk.signal("enter_short", symbol=1, stop=110.0)  # an order that is still open counts too
    return second if inside else desk.signal("enter_long", symbol=2, stop=90.0, strength=0.001)


@example
def cash(inside: bool) -> Any:
    desk = priced(leverage_max="1 x", risk_per_trade="6 %")
    desk.buy(0, stop=90.0)  # 600 units, 60,000
    return desk.signal("enter_short", symbol=1, stop=110.0, strength=0.66 if inside else 0.67)


@example
def validation(inside: bool) -> Any:
    return priced().signal("enter_long", strength=0.01 if inside else -1.0)


def test_every_limit_has_an_example() -> None:
    assert tuple(sorted(EXAMPLES)) == tuple(sorted(LIMITS))


@pytest.mark.parametrize("limit", LIMITS)
def test_the_limit_is_the_reason_of_the_refusal(limit: str) -> None:
    decision = EXAMPLES[limit](False)
    assert reason(decision) == limit
    verdict, observed, bound = measured(decision, limit)
    assert verdict == 2 and observed > bound


@pytest.mark.parametrize("limit", LIMITS)
def test_at_its_bound_it_passes(limit: str) -> None:
    decision = EXAMPLES[limit](True)
    assert reason(decision) == "approved"
    verdict, observed, bound = measured(decision, limit)
    assert verdict == 1 and observed <= bound


def test_exits_are_asked_only_about_state_and_position() -> None:
    desk = priced(daily_trades_max="1", positions_max="1")
    desk.buy()
    decision = desk.signal("exit")
    assert [LIMITS[k] for k in np.flatnonzero(decision["verdicts"])] == ["trading_state", "position_state"]


def test_an_exit_without_a_position_and_a_second_exit_are_refused() -> None:
    desk = priced()
    assert reason(desk.signal("exit")) == "position_state"
    desk.buy()
    assert reason(desk.signal("exit")) == "approved"
    assert reason(desk.signal("exit", slot=1)) == "position_state"


@pytest.mark.parametrize(("command", "entry", "leave"), [
    ("enable", "approved", "approved"), ("disable", "trading_state", "trading_state"), ("reduce", "trading_state", "approved"),
    ("halt", "trading_state", "trading_state"),
])
def test_what_each_state_of_trading_lets_through(command: str, entry: str, leave: str) -> None:
    desk = priced()
    desk.buy(0, strength=0.1)
    desk.control(command)
    assert reason(desk.signal("enter_long", symbol=1, strength=0.1)) == entry
    if command == "halt":
        desk.trade(100.0)
        assert desk.held() == 0.0
    else:
        assert reason(desk.signal("exit")) == leave


def test_a_reversal_is_approved_behind_an_exit_and_fills_after_it() -> None:
    desk = priced(participation="50 %")
    desk.buy(strength=0.1)
    assert reason(desk.signal("enter_short", strength=0.1)) == "position_state"
    assert reason(desk.signal("exit")) == "approved"
    assert reason(desk.signal("enter_short", strength=0.1, slot=1)) == "approved"
    desk.trade(100.0, size=120.0)
    assert desk.held() == 40.0
    desk.trade(100.0, size=1000.0)
    desk.trade(100.0, size=1000.0)
    assert desk.held() == -100.0


def test_a_day_and_a_week_begin_at_midnight_and_on_monday() -> None:
    desk = priced(daily_loss_max="5 %", weekly_loss_max="9 %")
    desk.buy(strength=0.5)
    desk.trade(88.0)
    assert reason(desk.signal("enter_long", symbol=1, strength=0.1)) == "daily_loss"
    desk.beat(DAY)
    desk.trade(88.0)
    assert reason(desk.signal("enter_long", symbol=1, strength=0.1)) == "approved"
    desk.trade(81.0)
    assert reason(desk.signal("enter_long", symbol=2, strength=0.1, slot=1)) == "weekly_loss"
    desk.beat(7 * DAY)
    assert reason(desk.signal("enter_long", symbol=2, strength=0.1, slot=2)) == "approved"


def test_sizes_are_halved_from_the_drawdown_that_says_so() -> None:
    desk = priced(drawdown_reduce="10 %", drawdown_halt="15 %")
    desk.buy()
    desk.trade(90.01)
    assert desk.signal("enter_long", symbol=1, strength=0.01)["quantity"] == 9_001_000_000 // 10
    desk.trade(90.0)
    assert desk.signal("enter_long", symbol=2, strength=0.01)["quantity"] == 9 * ONE // 2


def test_past_the_drawdown_limit_trading_halts_and_everything_is_flattened() -> None:
    desk = priced(drawdown_reduce="10 %", drawdown_halt="15 %", participation="50 %")
    desk.buy(0, stop=50.0, strength=1.0)
    desk.buy(1, strength=0.8)
    desk.signal("enter_long", symbol=2, strength=0.1)
    desk.trade(1.0, symbol=1)
    assert desk.account["trading_state"] == HALTED
    flatten = desk.made(DECISIONS)[-3:]
    assert [DECISIONS.field("cause").labels[c] for c in flatten["cause"]] == ["flatten"] * 3 and flatten["approved"].all()
    for symbol in (0, 1, 2):
        desk.trade(100.0, symbol=symbol)
    assert [desk.held(k) for k in range(3)] == [0.0, 0.0, 0.0]
    assert reason(desk.signal("enter_long", symbol=2, slot=5)) == "trading_state"


def test_a_halt_withdraws_the_reversal_that_waits_behind_an_exit() -> None:
    desk = priced(participation="50 %")
    desk.buy(strength=0.1)
    desk.signal("exit")
    desk.signal("enter_short", strength=0.1, slot=1)
    desk.control("halt")
    for _ in range(4):
        desk.trade(100.0)
    assert desk.held() == 0.0 and len(desk.fills) == 2


@pytest.mark.parametrize("command", ["disable", "reduce", "halt"])
def test_an_entry_on_its_way_is_withdrawn_when_trading_stops_being_active(command: str) -> None:
    desk = priced(latency="10 s")
    desk.signal("enter_long", stop=90.0)
    desk.control(command)
    desk.trade(100.0, after=20 * SECOND)
    assert not len(desk.fills) and desk.account["pending"] == 0 and desk.account["pending_notional"] == 0


def test_a_disabled_desk_keeps_its_stops() -> None:
    desk = priced()
    desk.buy(stop=90.0)
    desk.control("disable")
    desk.trade(89.0)
    desk.trade(89.0)
    assert desk.held() == 0.0
