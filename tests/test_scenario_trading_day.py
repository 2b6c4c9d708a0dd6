"""A trading day, from the opening to the halt; read it from top to bottom."""

from schemas.policy import Policy
from schemas.tables_desk import DECISIONS, EQUITY, FILLS, HALTED, LEDGER, ORDER_STATES, ORDER_TYPES, ORDERS
from tests.desk_tapes import DAY, MINUTE, ONE, SECOND, STRATEGIES, ScriptedDesk, measured, reason
from tests.test_desk_ledger import check_account

AAA, BBB, CCC = 0, 1, 2
POLICY = Policy({
    "capital": "100000", "risk_per_trade": "1 %", "position_notional_max": "60 %", "participation": "25 %", "latency": "50 ms",
    "cooldown_after_loss": "15 min", "daily_loss_max": "2 %", "lot": "1",
})


def story(desk: ScriptedDesk) -> list[str]:
    """The orders' states as a person would tell them."""
    return [f"{ORDER_TYPES[r['order_type']]} {ORDER_STATES[r['state']]} {r['filled'] // ONE}/{r['quantity'] // ONE}" for r in desk.made(ORDERS)]


def test_a_trading_day() -> None:
    desk = ScriptedDesk(POLICY, STRATEGIES[:1], enabled=False)

    # 00:00 The market opens. Nobody has enabled trading, so the first signal is refused.
    for symbol, price in ((AAA, 100.0), (BBB, 50.0), (CCC, 10.0)):
        desk.trade(price, symbol=symbol)
    assert reason(desk.signal("enter_long", AAA, stop=98.0, target=106.0)) == "trading_state"
    assert story(desk) == []

    # Trading is enabled. The same idea, a bar later, is approved: 1 % of 100,000 over a stop 2 away is 500 units.
    desk.control("enable", after=MINUTE)
    desk.trade(100.0, symbol=AAA)
    entry = desk.signal("enter_long", AAA, stop=98.0, target=106.0)
    assert reason(entry) == "approved" and entry["quantity"] == 500 * ONE
    assert measured(entry, "position_risk")[1:] == (1_000 * ONE, 2_000 * ONE)

    # A print within the latency passes it by; the next two fill it in parts, each no more than a quarter of the print.
    desk.trade(100.0, size=4_000, symbol=AAA, after=SECOND // 100)
    assert desk.held(AAA) == 0
    desk.trade(100.0, size=800, symbol=AAA)
    assert desk.held(AAA) == 200
    desk.trade(100.0, size=4_000, symbol=AAA)
    assert desk.held(AAA) == 500

    # Its stop and its target were placed with the first part, as children of the entry.
    assert story(desk) == [
        "market new 0/500", "market partially_filled 200/500", "stop new 0/500", "take_profit new 0/500", "market filled 500/500",
        "stop accepted 0/500", "take_profit accepted 0/500",
    ]
    assert set(desk.made(ORDERS)["parent_id"].tolist()) == {0, int(entry["order_id"])}

    # A second entry into what is already held is refused.
    assert reason(desk.signal("enter_long", AAA, stop=98.0, slot=1)) == "position_state"

    # 98 trades: the stop is touched, and sells at what comes next. The target goes with it.
    desk.trade(98.0, symbol=AAA)
    assert desk.held(AAA) == 500
    desk.trade(97.9, symbol=AAA)
    assert desk.held(AAA) == 0
    assert story(desk)[-3:] == ["stop triggered 0/500", "stop filled 500/500", "take_profit cancelled 0/500"]
    loss = int(desk.fills[-1]["trade_pnl"])
    assert -1_250 * ONE < loss < -1_050 * ONE
    assert desk.account["cash"] == 100_000 * ONE + loss == desk.account["equity"]

    # The loss cools the symbol down for 15 minutes; others may still trade.
    assert reason(desk.signal("enter_long", AAA, stop=96.0, slot=2)) == "cooldown"
    second = desk.signal("enter_long", BBB, stop=49.0, slot=2)
    assert reason(second) == "approved"
    desk.trade(50.0, symbol=BBB)
    assert desk.held(BBB) == second["quantity"] // ONE > 900

    # It falls too. More than 2 % of the day's first equity is gone: no entry any more today.
    desk.trade(49.1, symbol=BBB)
    refused = desk.signal("enter_long", CCC, stop=9.0)
    verdict, observed, bound = measured(refused, "daily_loss")
    assert reason(refused) == "daily_loss" and verdict == 2 and observed > bound == 2_000 * ONE

    # Somebody pulls the switch: all is sold, through the gate like everything else, and nothing else goes out.
    desk.control("halt")
    flatten = desk.made(DECISIONS)[-1]
    assert DECISIONS.field("cause").labels[flatten["cause"]] == "flatten" and flatten["approved"] == 1
    desk.trade(49.1, symbol=BBB)
    assert desk.held(BBB) == 0 and desk.account["trading_state"] == HALTED
    assert reason(desk.signal("enter_long", CCC, stop=9.0, slot=1)) == "trading_state"
    assert (desk.operator.desk.orders["used"] == 0).all()

    # Midnight: what was lost yesterday no longer counts against the day, but a halt stays until somebody lifts it.
    desk.beat(DAY)
    desk.trade(10.0, symbol=CCC)
    assert reason(desk.signal("enter_long", CCC, stop=9.0, slot=2)) == "trading_state"
    desk.control("enable")
    assert reason(desk.signal("enter_long", CCC, stop=9.0, slot=3)) == "approved"

    # The books are right to the last unit, and every refusal is on record with its reason.
    check_account(desk.operator, desk.made(LEDGER), desk.made(FILLS))
    told = [reason(d) for d in desk.made(DECISIONS)]
    assert told == ["trading_state", "approved", "position_state", "cooldown", "approved", "daily_loss", "approved", "trading_state",
                    "trading_state", "approved"]
    assert desk.made(EQUITY)["trading_state"][-1] == HALTED
