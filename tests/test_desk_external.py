"""Orders at an external venue, one rule a test: what is sent and when, what is cancelled there, and the chain of approvals."""

import ast
from pathlib import Path

import pytest

from operators.desk.approvals import chain, recorded, verify_next
from operators.desk.orders import bracket_id
from schemas.codec_json import decode_json, encode_json
from schemas.errors import PenstockError
from schemas.ids import name_id, name_ids
from schemas.tables_desk import DECISIONS, ORDERS
from schemas.tables_live import APPROVED
from sinks.execute_chain import ApprovalChain, approval_rows
from tests.desk_external import ExternalDesk, books_balance, opened
from tests.desk_tapes import MINUTE, ONE, plain, reason


def test_a_market_entry_is_sent_in_the_row_that_approved_it() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    decision = desk.signal("enter_long", stop=90.0)
    frame = desk.frames[-1]
    assert desk.sent(frame) == ["place market buy 100"]
    row = frame.rows(APPROVED)[0]
    assert row["order_id"] == decision["order_id"] and row["decision_no"] == decision["decision_no"] and row["approval_no"] == 1
    assert row["reference"] == 100 * ONE and row["seq"] == decision["seq"] and row["ts_event_ns"] == decision["ts_event_ns"]
    assert desk.life(desk.last_id()) == ["new", "sent"]
    for price in (100.0, 80.0, 120.0):  # no print fills it
        desk.trade(price)
    assert desk.held() == 0 and len(desk.approved) == 1


def test_a_stop_is_watched_by_the_desk_and_sent_when_it_is_touched() -> None:
    desk = ExternalDesk(plain())
    entry = opened(desk)
    assert desk.story()[-1] == "stop new 0/100"
    desk.trade(90.01)
    assert len(desk.approved) == 1
    frame = desk.trade(90.0)
    assert desk.sent(frame) == ["place market sell 100 only reducing"]
    row = frame.rows(APPROVED)[0]
    assert row["order_id"] == bracket_id.py_func(entry, 0) and row["decision_no"] == desk.approved[0]["decision_no"]
    assert [r["parent_id"] for r in frame.rows(ORDERS)] == [entry, entry]
    assert desk.life(desk.last_id()) == ["new", "triggered", "sent"]
    for price in (89.0, 95.0, 80.0):
        assert not len(desk.trade(price).rows(APPROVED))  # it is out; there is no second
    desk.report("filled", 100, 89.5)
    assert desk.held() == 0 and desk.fills[-1]["trade_pnl"] == -1_050 * ONE
    assert (desk.operator.desk.orders["used"] == 0).all()
    books_balance(desk)


def test_a_short_position_is_stopped_from_above() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_short", stop=110.0)
    desk.report("filled", 100)
    assert desk.sent(desk.trade(109.9)) == []
    assert desk.sent(desk.trade(110.0)) == ["place market buy 100 only reducing"]


def test_a_target_is_sent_when_a_print_goes_through_it() -> None:
    desk = ExternalDesk(plain())
    opened(desk, target=110.0)
    assert desk.sent(desk.trade(110.0)) == []
    assert desk.sent(desk.trade(110.1)) == ["place market sell 100 only reducing"]
    frame = desk.report("filled", 100, 110.0)
    assert "stop cancelled 0/100" in desk.story()  # one cancels the other
    assert desk.held() == 0 and not len(frame.rows(APPROVED))


def test_a_trailing_stop_follows_the_price_and_is_sent_when_it_turns() -> None:
    desk = ExternalDesk(plain(position_notional_max="10 %"))
    desk.trade(100.0)
    desk.signal("enter_long", trail=5.0)
    quantity = desk.approved[-1]["quantity"] / ONE
    desk.report("filled", quantity)
    for price in (104.0, 110.0, 105.1):
        assert desk.sent(desk.trade(price)) == []
    assert desk.sent(desk.trade(105.0)) == [f"place market sell {quantity:g} only reducing"]


def test_quotes_and_bars_trigger_too() -> None:
    quoted = ExternalDesk(plain())
    quoted.quote(99.9, 100.1)
    quoted.signal("enter_long", stop=90.0)
    quoted.report("filled", 100)
    assert quoted.sent(quoted.quote(90.0, 90.1)) == []
    assert quoted.sent(quoted.quote(89.9, 90.1)) == ["place market sell 100 only reducing"]

    barred = ExternalDesk(plain())
    barred.bar(100, 101, 99, 100)
    barred.signal("enter_long", stop=90.0, target=120.0)
    barred.report("filled", 100)
    assert barred.sent(barred.bar(100, 119, 91, 110)) == []
    both = barred.bar(110, 121, 89, 118)  # both were reached: the stop goes first, and only it
    assert barred.sent(both) == ["place market sell 100 only reducing"]
    assert both.rows(APPROVED)[0]["reference"] == 118 * ONE
    assert barred.life(barred.last_id()) == ["new", "triggered", "sent"]


def test_what_waits_behind_an_exit_is_sent_when_that_has_ended_and_for_what_is_left() -> None:
    desk = ExternalDesk(plain())
    opened(desk, target=110.0)
    desk.trade(110.1)
    target = desk.last_id()
    assert reason(desk.signal("exit")) == "approved"  # the gate lets it through; it waits
    assert len(desk.approved) == 2
    desk.report("partially_filled", 70, 110.0, order_id=target)
    assert len(desk.approved) == 2
    frame = desk.report("cancelled", 70, 110.0, order_id=target)
    assert desk.sent(frame) == ["place market sell 30 only reducing"]  # the oldest that is due: the target again, or the exit
    desk.report("filled", 30, 110.0)
    assert desk.held() == 0 and (desk.operator.desk.orders["used"] == 0).all()
    books_balance(desk)


def test_limit_and_stop_limit_and_stop_entries() -> None:
    limit = ExternalDesk(plain(entry_limit="1 %"))
    limit.trade(100.0)
    limit.signal("enter_long", stop=90.0)
    assert limit.sent() == ["place limit buy 100 at 99"]

    stop = ExternalDesk(plain(entry_stop="1 %"))
    stop.trade(100.0)
    stop.signal("enter_long", stop=90.0)
    assert stop.sent() == [] and stop.sent(stop.trade(100.9)) == []
    assert stop.sent(stop.trade(101.0)) == ["place market buy 100"]

    both = ExternalDesk(plain(entry_stop="1 %", entry_limit="1 %"))
    both.trade(100.0)
    both.signal("enter_long", stop=90.0)
    assert both.sent(both.trade(101.0)) == ["place limit buy 100 at 102"]
    both.report("accepted")
    assert both.life(both.last_id()) == ["new", "triggered", "sent", "accepted"]


def test_an_entry_at_the_venue_is_cancelled_there_when_trading_stops() -> None:
    for command in ("disable", "reduce", "halt"):
        desk = ExternalDesk(plain(entry_limit="1 %"))
        desk.trade(100.0)
        desk.signal("enter_long", stop=90.0)
        entry = desk.last_id()
        frame = desk.control(command)
        assert desk.sent(frame) == ["cancel limit buy 0 at 99"] and desk.last_id() == entry
        assert desk.account["pending"] == 1  # until the venue has said what became of it
        assert desk.sent(desk.control(command)) == []
        frame = desk.report("cancelled", 40, 99.0)
        assert desk.account["pending"] == 0 and desk.held() == 40
        # halted, what came in is sold; else it stays with its stop
        assert desk.sent(frame) == (["place market sell 40 only reducing"] if command == "halt" else [])
        assert (desk.sent(desk.trade(89.0)) == []) == (command == "halt")
        books_balance(desk)


def test_an_exit_signal_cancels_the_entry_and_leaves_what_still_came_of_it() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    entry = desk.last_id()
    desk.signal("exit")
    assert desk.sent()[1:] == ["cancel market buy 0"]
    frame = desk.report("filled", 100, order_id=entry)
    assert desk.sent(frame) == ["place market sell 100 only reducing"]
    own = frame.rows(DECISIONS)
    assert len(own) == 1 and own["order_id"][0] == desk.last_id() and DECISIONS.field("cause").labels[own["cause"][0]] == "flatten"
    desk.report("filled", 100)
    assert desk.held() == 0 and desk.operator.desk.books[0, 0]["leave"] == 0


def test_turning_round_waits_for_the_exit() -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.signal("exit")
    exit_id = desk.last_id()
    assert reason(desk.signal("enter_short", stop=110.0, slot=1)) == "approved"
    assert len(desk.approved) == 2  # the entry waits
    desk.report("partially_filled", 60, order_id=exit_id)
    assert len(desk.approved) == 2
    frame = desk.report("filled", 100, order_id=exit_id)
    assert desk.sent(frame) == ["place market sell 100"]


def test_an_entry_that_waited_too_long_is_not_sent() -> None:
    desk = ExternalDesk(plain(price_age_max="1 min"))
    opened(desk)
    desk.signal("exit")
    exit_id = desk.last_id()
    desk.signal("enter_short", stop=110.0, slot=1)
    desk.trade(100.0, after=2 * MINUTE)
    frame = desk.report("filled", 100, order_id=exit_id)
    assert desk.sent(frame) == [] and desk.story()[-1] == "market expired 0/100"
    assert desk.account["pending"] == 0


def test_strategies_on_opposite_sides_do_not_ask_the_venue_to_reduce_what_it_does_not_have() -> None:
    desk = ExternalDesk(plain(), strategies=("alpha", "beta"))
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("filled", 100)
    desk.signal("enter_short", stop=110.0, strategy=1, strength=0.4)
    desk.report("filled", 40)
    assert desk.sent(desk.signal_frame("exit")) == ["place market sell 100"]  # the venue holds 60
    desk.report("filled", 100)
    assert desk.sent(desk.signal_frame("exit", strategy=1)) == ["place market buy 40 only reducing"]


def test_digests_of_approvals_are_a_chain_that_anyone_can_follow() -> None:
    desk = ExternalDesk(plain(), symbols=("AAA", "BBB"))
    opened(desk, target=110.0)
    desk.trade(89.0)
    desk.report("rejected")
    approved = desk.approved
    assert len(approved) == 3
    assert chain(approved, bytes(32), name_ids(desk.symbols), name_ids(("alpha",))) == [recorded(row) for row in approved]
    # from JSON, by a reader that codes names its own way
    names, strategies = ("ZZZ", "AAA"), ("omega", "alpha")
    rows = decode_json(APPROVED, encode_json(APPROVED, approved, desk.symbols, ("alpha",)), names, strategies)
    head = bytes(32)
    for row in rows:
        head = verify_next(head, row, name_id(names[row["symbol"]]), name_id(strategies[row["strategy"]]))
        assert head == recorded(row)
    assert head == desk.operator.approved_head
    for column in APPROVED.dtype.names:
        forged = rows[1:2].copy()
        forged[column] ^= forged[column].dtype.type(1)
        symbol = "AAA" if column != "symbol" else "ZZZ"
        strategy = "alpha" if column != "strategy" else "omega"
        with pytest.raises(PenstockError, match="does not follow"):
            verify_next(recorded(rows[0]), forged[0], name_id(symbol), name_id(strategy))
    with pytest.raises(PenstockError, match="approval 2 does not follow from the one before it"):
        verify_next(bytes(32), rows[1], name_id("AAA"), name_id("alpha"))  # one is left out


def test_the_execute_flow_follows_the_same_chain() -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.trade(89.0)
    desk.control("halt")
    rows = approval_rows([("AAA", "alpha")] * len(desk.approved), desk.approved)
    chained = ApprovalChain()
    assert len(rows) == 2 and all(chained.take(approval, "run") for approval in rows)
    assert chained.head == desk.operator.approved_head


def test_approvals_are_written_in_one_place() -> None:
    root = Path(__file__).parents[1]
    found = [path.relative_to(root).as_posix() for path in sorted((root / "operators").rglob("*.py"))
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "out.approved"]
    assert found == ["operators/desk/approvals.py"]


def test_the_paper_desk_approves_nothing_and_has_no_use_for_reports() -> None:
    from tests.desk_tapes import ScriptedDesk
    desk = ScriptedDesk(plain())
    desk.trade(100.0)
    desk.buy(stop=90.0)
    desk.trade(89.0)
    desk.trade(89.0)
    assert desk.held() == 0 and not len(desk.made(APPROVED))
    assert {"sent", "unknown"}.isdisjoint({ORDERS.field("state").labels[s] for s in desk.made(ORDERS)["state"]})
