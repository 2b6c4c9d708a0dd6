"""Entries as the policy has them: market, limit, stop and stop-limit orders, through the gate and the paper venue."""

import numpy as np
import pytest

from schemas.tables_desk import FILLS, ORDER_STATES, ORDER_TYPES, ORDERS
from tests.desk_tapes import ONE, ScriptedDesk, concat, plain


def entered(**policy: str) -> ScriptedDesk:
    desk = ScriptedDesk(plain(**policy))
    desk.trade(100.0)
    assert desk.signal("enter_long", stop=90.0)["approved"]
    return desk


def states(desk: ScriptedDesk, order_type: str) -> list[str]:
    rows = desk.made(ORDERS)
    return [ORDER_STATES[r["state"]] for r in rows if ORDER_TYPES[r["order_type"]] == order_type and r["parent_id"] == 0]


def test_a_limit_entry_rests_and_fills_only_when_the_price_goes_through_it() -> None:
    desk = entered(entry_limit="100 bps")  # at 99
    for price in (100.0, 99.5, 99.0):
        desk.trade(price)
        assert desk.held() == 0
    desk.trade(98.9)
    fill = desk.made(FILLS)[0]
    assert desk.held() > 0 and fill["price"] == 99 * ONE and fill["maker"] == 1
    assert states(desk, "limit")[:2] == ["new", "accepted"]


def test_a_stop_entry_waits_for_its_price_and_takes_from_the_next_tick() -> None:
    desk = entered(entry_stop="100 bps")  # at 101
    for price in (100.5, 100.9):
        desk.trade(price)
    desk.trade(101.2)
    assert desk.held() == 0 and states(desk, "stop") == ["new", "accepted", "triggered"]
    desk.trade(101.4)
    assert desk.held() > 0 and desk.made(FILLS)[0]["reference"] == round(101.4 * ONE)


def test_a_stop_limit_entry_does_not_chase() -> None:
    desk = entered(entry_stop="100 bps", entry_limit="50 bps")  # stop 101, limit 101.5
    desk.trade(102.0)
    for price in (102.5, 101.5):
        desk.trade(price)
        assert desk.held() == 0
    desk.trade(101.4)
    assert desk.held() > 0 and desk.made(FILLS)[0]["price"] == round(101.5 * ONE)


@pytest.mark.parametrize("policy", [{"entry_limit": "100 bps"}, {"entry_stop": "100 bps"}, {"entry_stop": "100 bps", "entry_limit": "50 bps"}])
def test_an_exit_withdraws_an_entry_that_still_waits(policy: dict[str, str]) -> None:
    desk = entered(**policy)
    desk.trade(100.0)
    desk.signal("exit")
    for price in (98.0, 103.0, 101.0, 98.0):
        desk.trade(price)
    assert desk.held() == 0 and len(desk.made(FILLS)) == 0
    assert int(desk.account["pending_notional"]) == 0 and int(desk.account["open_orders"]) == 0


def test_from_bars_a_limit_entry_fills_within_the_range_and_not_at_its_edge() -> None:
    desk = ScriptedDesk(plain(entry_limit="100 bps"))
    desk.bar(100.0, 100.0, 100.0, 100.0)
    assert desk.signal("enter_short")["approved"]  # at 101
    desk.bar(100.0, 101.0, 99.0, 100.0)
    assert desk.held() == 0
    desk.bar(100.0, 101.5, 99.0, 100.0)
    assert desk.held() < 0 and desk.made(FILLS)[0]["price"] == 101 * ONE
    assert np.all(concat(FILLS, desk.frames)["maker"] == 1)
