"""A trading day with a venue that is not our own, from the opening to the halt; read it from top to bottom."""

from operators.desk.approvals import recorded, verify_next
from schemas.ids import name_id
from schemas.policy import Policy
from schemas.tables_desk import DECISIONS, FILLS, HALTED, LEDGER
from tests.desk_external import ExternalDesk
from tests.desk_tapes import MINUTE, ONE, SECOND, reason
from tests.test_desk_ledger import check_account

AAA, BBB, CCC = 0, 1, 2
POLICY = Policy({
    "capital": "100000", "risk_per_trade": "1 %", "position_notional_max": "60 %", "cooldown_after_loss": "15 min", "daily_loss_max": "5 %",
    "lot": "0.01",
})


def test_a_trading_day_at_a_venue() -> None:
    desk = ExternalDesk(POLICY, enabled=False)

    # 00:00 The market opens. Nobody has enabled trading: the first signal is refused, and the venue hears nothing.
    for symbol, price in ((AAA, 100.0), (BBB, 50.0), (CCC, 10.0)):
        desk.trade(price, symbol=symbol)
    assert reason(desk.signal("enter_long", AAA, stop=98.0, target=106.0)) == "trading_state"
    assert desk.sent() == []

    # Trading is enabled. The idea is approved, and is on its way in the same row: 1 % of 100,000 over a stop 2 away is 500 units.
    desk.control("enable", after=MINUTE)
    desk.trade(100.0, symbol=AAA)
    decision = desk.signal("enter_long", AAA, stop=98.0, target=106.0)
    entry = int(decision["order_id"])
    assert desk.sent() == ["place market buy 500"] and desk.last_id() == entry
    assert desk.account["pending_notional"] == 50_000 * ONE

    # Prints go by; they fill nothing here. The venue takes the order and fills it in two parts, at its own prices and fee.
    desk.trade(100.2, symbol=AAA)
    desk.report("sent", order_id=entry)
    desk.report("accepted", order_id=entry)
    assert desk.held(AAA) == 0
    desk.report("partially_filled", 120, 100.02, fee=3 * ONE, order_id=entry, after=SECOND // 10)
    assert desk.held(AAA) == 120
    desk.report("filled", 500, 100.04, fee=11 * ONE, order_id=entry)
    assert desk.held(AAA) == 500 and desk.account["cash"] == (100_000 - 50_020 - 11) * ONE
    assert desk.life(entry) == ["new", "sent", "accepted", "partially_filled", "filled"]

    # Its stop and its target are watched here: the venue knows nothing of them until one is reached.
    assert desk.story()[3:6] == ["market partially_filled 120/500", "stop new 0/500", "take_profit new 0/500"]
    desk.trade(105.9, symbol=AAA)
    assert len(desk.approved) == 1

    # The last report comes a second time. Nothing happens.
    assert not len(desk.report("filled", 500, 100.04, fee=11 * ONE, order_id=entry, no=desk.numbers[entry]).rows(FILLS))
    assert desk.account["reports_ignored"] == 1 and desk.account["cash"] == (100_000 - 50_020 - 11) * ONE

    # 98 trades. The stop goes out as an order that may only reduce. The venue refuses it; it goes out again at once, under
    # another id, and again a second later, when that one came too late to be sent.
    stop_row = desk.trade(98.0, symbol=AAA)
    assert desk.sent(stop_row) == ["place market sell 500 only reducing"]
    refused = desk.report("rejected")
    assert desk.sent(refused) == ["place market sell 500 only reducing"]
    desk.report("expired")
    assert len(desk.approved) == 3
    desk.beat(SECOND)
    assert len(desk.approved) == 4 and len(set(desk.approved["order_id"].tolist())) == 4

    # This time it is taken; then the connection breaks in the middle, and nobody knows. The price falls on, and nothing else is sent.
    third = desk.last_id()
    desk.report("partially_filled", 200, 97.9, order_id=third)
    desk.report("unknown", 200, 97.9, order_id=third)
    desk.trade(96.0, symbol=AAA)
    assert desk.held(AAA) == 300 and len(desk.approved) == 4
    assert reason(desk.signal("exit", AAA, slot=1)) == "approved"  # it will go if that one fails
    assert len(desk.approved) == 4

    # The venue is asked and says: all of it was filled. Stop, target and exit are done with.
    desk.report("filled", 500, 97.9, fee=10 * ONE, order_id=third)
    assert desk.held(AAA) == 0 and len(desk.approved) == 4
    assert (desk.operator.desk.orders["used"] == 0).all()
    loss = int(desk.fills[-1]["trade_pnl"])
    assert loss == (500 * 9790 - 500 * 10004) // 100 * ONE - 21 * ONE
    assert desk.account["cash"] == 100_000 * ONE + loss == desk.account["equity"]
    assert reason(desk.signal("enter_long", AAA, stop=94.0, slot=2)) == "cooldown"

    # An entry in another symbol; before the venue has answered, the strategy changes its mind. The order is withdrawn there. The
    # venue had filled a part by then: it is sold.
    desk.trade(50.0, symbol=BBB)
    second = int(desk.signal("enter_long", BBB, stop=49.0, slot=2)["order_id"])
    desk.report("accepted", order_id=second)
    desk.signal("exit", BBB, slot=3)
    assert desk.sent()[-1] == "cancel market buy 0" and desk.account["pending"] == 1
    late = desk.report("cancelled", 10, 50.01, order_id=second)
    assert desk.held(BBB) == 10 and desk.sent(late) == ["place market sell 10 only reducing"] and desk.account["pending"] == 0
    desk.report("filled", 10, 49.99)
    assert desk.held(BBB) == 0

    # A third entry is filled. Somebody pulls the switch: the position goes, through the gate like everything else.
    desk.trade(10.0, symbol=CCC)
    desk.signal("enter_short", CCC, stop=10.5, slot=4)
    quantity = int(desk.approved[-1]["quantity"]) / ONE
    desk.report("filled", quantity, 10.0)
    assert desk.held(CCC) == -quantity
    flatten = desk.control("halt")
    assert desk.sent(flatten) == [f"place market buy {quantity:g} only reducing"]
    assert DECISIONS.field("cause").labels[flatten.rows(DECISIONS)["cause"][0]] == "flatten"
    desk.report("filled", quantity, 10.01)
    assert desk.held(CCC) == 0 and desk.account["trading_state"] == HALTED
    assert reason(desk.signal("enter_long", CCC, stop=9.0, slot=5)) == "trading_state"
    assert (desk.operator.desk.orders["used"] == 0).all()

    # The books are right to the last unit; every proposal is on record, and whoever executes can follow the approvals from the first on.
    check_account(desk.operator, desk.made(LEDGER), desk.made(FILLS))
    told = [reason(d) for d in desk.made(DECISIONS)]
    assert told == ["trading_state", "approved", "approved", "cooldown", "approved", "approved", "approved", "approved", "approved", "trading_state"]
    head = bytes(32)
    for row in desk.approved:
        head = verify_next(head, row, name_id(desk.symbols[row["symbol"]]), name_id("alpha"))
        assert head == recorded(row)
    assert head == desk.operator.approved_head and desk.approved["approval_no"].tolist() == list(range(1, 10))
