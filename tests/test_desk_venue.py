"""The paper venue by hand: brackets, trailing stops, gaps, targets, participation and latency on trades, quotes and bars."""

import pytest

from schemas.tables_desk import CANCELLED, FILLED, NEW, ORDER_TYPES, ORDERS, PARTIALLY_FILLED, STOP, TAKE_PROFIT, TRAILING_STOP
from tests.desk_tapes import MINUTE, ONE, SECOND, ScriptedDesk, plain


def trader(**values: str) -> ScriptedDesk:
    desk = ScriptedDesk(plain(notional_per_trade="10 %", **values))
    desk.trade(100.0)
    return desk


def last_states(desk: ScriptedDesk) -> dict[str, int]:
    """The state that the last order of each type is in."""
    return {ORDER_TYPES[row["order_type"]]: int(row["state"]) for row in desk.made(ORDERS)}


def prices(desk: ScriptedDesk) -> list[float]:
    return [float(p) / ONE for p in desk.fills["price"]]


def test_an_order_waits_for_its_latency() -> None:
    desk = trader(latency="2 s")
    desk.signal("enter_long")
    desk.trade(101.0, after=2 * SECOND - 1)
    assert not len(desk.fills)
    desk.trade(102.0, after=1)
    assert prices(desk) == [102.0]


def test_a_print_on_the_row_of_the_decision_fills_nothing() -> None:
    desk = trader()
    desk.signal("enter_long")
    assert not len(desk.fills)


def test_partial_fills_take_their_share_of_each_print_in_lots() -> None:
    desk = trader(participation="25 %", lot="1", impact="100 bps", slippage="10 bps")
    desk.signal("enter_long")
    desk.trade(100.0, size=10.0)
    assert desk.held() == 2.0
    slip = 0.001 + 0.01 * (2 / 10) ** 0.5
    assert prices(desk) == [pytest.approx(100 * (1 + slip), abs=1e-6)]
    desk.trade(100.0, size=3.0)  # less than a lot
    assert desk.held() == 2.0
    desk.trade(100.0, size=1000.0)
    assert desk.held() == 100.0
    assert last_states(desk)["market"] == FILLED


def test_one_cancels_the_other() -> None:
    desk = trader()
    desk.buy(stop=95.0, target=105.0)
    desk.trade(105.0)  # a touch is not a fill
    assert desk.held() > 0
    desk.trade(105.01)
    assert desk.held() == 0 and prices(desk)[-1] == 105.0 and desk.fills[-1]["maker"] == 1
    assert last_states(desk) == {"market": FILLED, "stop": CANCELLED, "take_profit": FILLED}
    desk.trade(90.0)
    desk.trade(90.0)
    assert len(desk.fills) == 2


def test_a_stop_is_touched_by_one_tick_and_fills_on_the_next_where_the_market_then_is() -> None:
    desk = trader()
    desk.buy(stop=95.0, target=105.0)
    desk.trade(95.0)
    assert desk.held() > 0
    desk.trade(80.0)  # a gap
    assert prices(desk)[-1] == 80.0
    assert last_states(desk) == {"market": FILLED, "stop": FILLED, "take_profit": CANCELLED}


def test_a_short_is_stopped_from_below_and_taken_from_above() -> None:
    for path, price in (((105.0, 106.0), 106.0), ((95.0, 94.99), 95.0)):
        desk = trader()
        desk.signal("enter_short", stop=105.0, target=95.0)
        for step in (100.0, *path):
            desk.trade(step)
        assert prices(desk) == [100.0, price] and desk.held() == 0


def test_a_trailing_stop_follows_and_never_steps_back() -> None:
    desk = trader()
    desk.buy(trail=2.0)
    for price in (101.0, 104.0, 103.0, 102.5):
        desk.trade(price)
    assert desk.held() > 0
    desk.trade(102.0)
    desk.trade(101.5)
    assert prices(desk)[-1] == 101.5
    assert last_states(desk)["trailing_stop"] == FILLED


def test_a_trailing_stop_of_a_short_follows_down() -> None:
    desk = trader()
    desk.signal("enter_short", trail=2.0)
    for price in (100.0, 97.0, 98.9):
        desk.trade(price)
    assert desk.held() < 0
    desk.trade(99.0)
    desk.trade(99.0)
    assert desk.held() == 0


def test_a_stop_that_is_hit_while_the_entry_still_fills_ends_the_entry_too() -> None:
    desk = trader(participation="50 %")
    desk.signal("enter_long", stop=99.0)
    desk.trade(100.0, size=20.0)
    assert desk.held() == 10.0
    desk.trade(98.0, size=20.0)  # the entry takes ten more, and the stop is touched
    assert desk.held() == 20.0
    desk.trade(98.0, size=60.0)  # the entry takes thirty, and the stop as many as it may
    desk.trade(98.0, size=1e6)
    for _ in range(3):
        desk.trade(100.0)
    rows = desk.made(ORDERS)
    new = rows[rows["state"] == NEW]
    assert desk.held() == 0 and len(new) == len(set(new["order_id"].tolist()))
    assert rows["state"][-1] in (FILLED, CANCELLED)


def test_the_rest_of_an_entry_is_cancelled_where_its_position_is_closed() -> None:
    desk = trader(participation="50 %")
    desk.signal("enter_long", target=105.0)
    desk.trade(100.0, size=20.0)
    desk.trade(106.0, size=0.0)  # the entry finds nothing to take, the target neither
    assert desk.held() == 10.0
    state = desk.operator.desk
    entry = int(state.books[0, 0]["entry_pending"])
    state.orders[entry]["ts_active_ns"] = desk.ts + 60 * SECOND  # the venue is slow with the rest
    desk.trade(106.0)
    assert desk.held() == 0.0 and state.account[0]["pending"] == 0 and state.account[0]["pending_notional"] == 0
    assert last_states(desk) == {"market": CANCELLED, "take_profit": FILLED}


def test_a_stop_exits_what_is_held_and_a_target_the_rest() -> None:
    desk = trader(participation="50 %")
    desk.buy(stop=95.0, target=105.0)
    desk.trade(106.0, size=100.0)
    assert desk.held() == 150.0
    desk.trade(95.0)
    desk.trade(95.0)
    assert desk.held() == 0.0
    assert last_states(desk) == {"market": FILLED, "stop": FILLED, "take_profit": CANCELLED}


def test_an_exit_withdraws_the_rest_of_the_entry() -> None:
    desk = trader(participation="50 %")
    desk.signal("enter_long")
    desk.trade(100.0, size=20.0)
    desk.signal("exit")
    desk.trade(100.0, size=1e6)
    desk.trade(100.0, size=1e6)
    assert desk.held() == 0.0 and [float(q) / ONE for q in desk.fills["quantity"]] == [10.0, 10.0]
    assert [int(r["state"]) for r in desk.made(ORDERS)] == [0, PARTIALLY_FILLED, CANCELLED, 0, FILLED]


# quotes

def test_quotes_alone_fill_at_the_worse_side_and_within_its_size() -> None:
    desk = ScriptedDesk(plain(notional_per_trade="10 %", participation="50 %"))
    desk.quote(99.0, 101.0)
    desk.signal("enter_long")
    desk.quote(99.0, 101.0, size=40.0)
    assert prices(desk) == [101.0] and desk.held() == 20.0
    desk.quote(99.0, 101.0, size=1e6)
    desk.signal("exit")
    desk.quote(99.0, 101.0)
    assert prices(desk)[-1] == 99.0 and desk.held() == 0


def test_a_one_sided_quote_moves_nothing() -> None:
    desk = ScriptedDesk(plain())
    desk.quote(99.0, 101.0)
    desk.signal("enter_long")
    desk.quote(0.0, 90.0)
    assert not len(desk.fills) and desk.operator.desk.symbols[0]["last"] == 100 * ONE


def test_with_trades_a_taker_pays_the_worse_of_print_and_quote() -> None:
    desk = trader()
    desk.quote(99.0, 101.5)
    desk.signal("enter_long")
    desk.trade(100.0)
    assert prices(desk) == [101.5]
    desk.signal("exit")
    desk.trade(98.0)
    assert prices(desk)[-1] == 98.0


# bars alone

def barred(**values: str) -> ScriptedDesk:
    desk = ScriptedDesk(plain(notional_per_trade="10 %", **values))
    desk.bar(100, 100, 100, 100)
    return desk


def test_from_bars_an_entry_fills_at_the_next_open_with_slippage() -> None:
    desk = barred(slippage="10 bps")
    desk.signal("enter_long")
    assert not len(desk.fills)
    desk.bar(101, 104, 100, 103)
    assert prices(desk) == [pytest.approx(101 * 1.001)]
    assert desk.fills[0]["reference"] == 101 * ONE


def test_from_bars_an_order_with_a_long_latency_waits_for_a_later_bar() -> None:
    desk = barred(latency="90 s")
    desk.signal("enter_long")
    desk.bar(101, 101, 101, 101)
    assert not len(desk.fills)
    desk.bar(102, 102, 102, 102)
    assert prices(desk) == [102.0]


def test_from_bars_a_stop_comes_before_a_target() -> None:
    desk = barred()
    desk.signal("enter_long", stop=95.0, target=105.0)
    desk.bar(100, 101, 99, 100)
    desk.bar(100, 110, 90, 100)
    assert prices(desk) == [100.0, 95.0] and desk.fills[-1]["cause"] == 2


def test_from_bars_a_gap_through_the_stop_fills_at_the_open() -> None:
    desk = barred()
    desk.signal("enter_long", stop=95.0)
    desk.bar(100, 101, 99, 100)
    desk.bar(90, 99, 89, 98)
    assert prices(desk)[-1] == 90.0


@pytest.mark.parametrize(("high", "low", "expected"), [(110.0, 99.0, [100.0]), (110.0, 94.0, [100.0, 95.0])])
def test_from_bars_a_bracket_placed_in_a_bar_can_only_be_stopped_in_it(high: float, low: float, expected: list[float]) -> None:
    desk = barred()
    desk.signal("enter_long", stop=95.0, target=105.0)
    desk.bar(100, high, low, 100)
    assert prices(desk) == expected


def test_from_bars_a_target_needs_a_high_beyond_it_in_a_later_bar() -> None:
    desk = barred()
    desk.signal("enter_long", target=105.0)
    desk.bar(100, 110, 99, 100)
    desk.bar(100, 105, 99, 100)
    assert desk.held() > 0
    desk.bar(100, 105.01, 99, 100)
    assert prices(desk)[-1] == 105.0


def test_from_bars_a_trailing_stop_starts_at_the_entry_and_follows_the_highs_of_later_bars() -> None:
    desk = barred()
    desk.signal("enter_long", trail=3.0)
    desk.bar(90, 95, 88, 94)  # the trail hangs under the open of 90, not under the close of 100 before
    assert desk.held() > 0
    desk.bar(94, 99, 92, 98)
    desk.bar(98, 98, 95, 97)
    assert prices(desk)[-1] == 96.0


def test_from_bars_a_fill_is_valued_at_its_bar_not_at_the_close_before() -> None:
    desk = barred(equity_interval="1 s")
    desk.signal("enter_long")
    desk.bar(50, 50, 50, 50)
    assert desk.account["equity"] == desk.account["peak"] == 100_000 * ONE


def test_from_bars_a_bar_without_volume_fills_nothing() -> None:
    desk = barred()
    desk.signal("enter_long")
    desk.bar(100, 101, 99, 100, volume=0.0)
    assert not len(desk.fills)


def test_where_ticks_are_there_the_bars_made_of_them_fill_nothing() -> None:
    desk = trader()
    desk.signal("enter_long")
    desk.bar(100, 200, 50, 100)
    assert not len(desk.fills) and desk.ts % MINUTE == SECOND


def test_bracket_orders_carry_their_entry_as_parent() -> None:
    desk = trader()
    decision = desk.buy(stop=95.0, target=105.0, trail=4.0)
    rows = desk.made(ORDERS)
    children = rows[rows["parent_id"] == decision["order_id"]]
    assert set(children["order_type"].tolist()) == {STOP, TAKE_PROFIT, TRAILING_STOP}
    assert len(set(rows["order_id"].tolist())) == 4
