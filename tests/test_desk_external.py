"""Orders at an external venue, one rule a test: what is sent and when, what a report does, and what is done when an exit fails."""

import ast
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from operators.desk.approvals import chain, recorded, verify_next
from operators.desk.orders import bracket_id
from operators.desk.sending import EXIT_FAILURES
from schemas.codec_json import decode_json, encode_json
from schemas.errors import PenstockError
from schemas.ids import fold, name_id, name_ids
from schemas.tables_desk import DECISIONS, FILLS, HALTED, LEDGER, ORDERS
from schemas.tables_live import APPROVED
from sinks.execute_chain import ApprovalChain, approval_rows
from tests.desk_external import ExternalDesk
from tests.desk_tapes import MINUTE, ONE, SECOND, plain, reason
from tests.test_desk_ledger import check_account

HOUR = 60 * MINUTE


def opened(desk: ExternalDesk, stop: float = 90.0, target: float = np.nan, trail: float = np.nan, symbol: int = 0) -> int:
    """A long position of 100 units at 100, and the entry's id."""
    desk.trade(100.0, symbol=symbol)
    desk.signal("enter_long", symbol, stop=stop, target=target, trail=trail)
    entry = desk.last_id()
    desk.report("filled", 100, 100.0)
    assert desk.held(symbol) == 100
    return entry


def books_balance(desk: ExternalDesk) -> None:
    check_account(desk.operator, desk.made(LEDGER), desk.made(FILLS))


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


def test_fills_are_booked_from_totals_to_the_unit() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("accepted")
    desk.report("partially_filled", 33.33333333, notional=333_333_333_337, fee=7)
    desk.report("partially_filled", 66.66666667, notional=666_666_666_699, fee=-5)
    desk.report("filled", 100, notional=1_000_000_000_001, fee=11)
    assert desk.fills["quantity"].tolist() == [3_333_333_333, 3_333_333_334, 3_333_333_333]
    assert desk.fills["fee"].tolist() == [7, -12, 16]
    assert desk.account["cash"] == 100_000 * ONE - 1_000_000_000_001 - 11
    assert desk.operator.desk.books[0, 0]["cost"] == 1_000_000_000_001
    assert desk.life(desk.last_id()) == ["new", "sent", "accepted", "partially_filled", "partially_filled", "filled"]
    books_balance(desk)


def test_totals_that_change_without_a_fill_are_booked_as_a_fill_of_nothing() -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.signal("exit")
    desk.report("partially_filled", 40, notional=4_000 * ONE)
    desk.report("partially_filled", 40, notional=4_001 * ONE, fee=3 * ONE)
    assert [(r["quantity"], r["fee"], r["realised"], r["closed"]) for r in desk.fills[-2:]] == [(40 * ONE, 0, 0, 0), (0, 3 * ONE, ONE, 0)]
    desk.report("filled", 100, notional=10_001 * ONE, fee=3 * ONE)
    assert desk.account["cash"] == (100_000 + 1 - 3) * ONE and desk.fills[-1]["trade_pnl"] == -2 * ONE
    books_balance(desk)


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


@pytest.mark.parametrize("end", ["rejected", "expired", "cancelled"])
def test_an_entry_that_ended_without_a_fill_frees_its_reservation(end: str) -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    assert desk.account["pending_notional"] == 10_000 * ONE and desk.account["pending"] == 1
    desk.report("sent")
    desk.report(end)
    assert desk.account["pending_notional"] == desk.account["pending_heat"] == desk.account["pending"] == 0
    assert desk.life(desk.last_id()) == ["new", "sent", end] and len(desk.approved) == 1
    assert reason(desk.signal("enter_long", stop=90.0, slot=1)) == "approved"


def test_an_entry_that_was_partly_filled_keeps_its_bracket() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("partially_filled", 30)
    desk.report("cancelled", 30)
    assert desk.account["pending_notional"] == 0 and desk.held() == 30
    assert desk.sent(desk.trade(89.0)) == ["place market sell 30 only reducing"]


def test_a_stop_that_was_sent_for_a_part_is_sent_again_for_what_came_in_after() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    entry = desk.last_id()
    desk.report("partially_filled", 40)
    desk.trade(90.0)
    stop = desk.last_id()
    desk.report("partially_filled", 75, order_id=entry)
    frame = desk.report("filled", 40, 90.0, order_id=stop)
    assert desk.sent(frame) == ["place market sell 35 only reducing"]
    again = desk.last_id()
    assert again == fold(stop, 1) != stop
    frame = desk.report("filled", 35, 90.0)
    assert desk.sent(frame) == ["cancel market buy 0"]  # flat: what is left of the entry is withdrawn …
    frame = desk.report("filled", 100, order_id=entry)
    assert desk.held() == 25 and desk.sent(frame) == ["place market sell 25 only reducing"]  # … and what still comes of it is left
    desk.report("filled", 25, 90.0)
    assert desk.held() == 0 and (desk.operator.desk.orders["used"] == 0).all()
    books_balance(desk)


def test_unknown_assumes_nothing() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("unknown")
    assert desk.account["pending_notional"] == 10_000 * ONE
    for _ in range(5):
        desk.trade(100.0, after=HOUR)
    assert reason(desk.signal("enter_long", stop=90.0, slot=1)) == "position_state" and len(desk.approved) == 1
    desk.report("filled", 100)
    desk.trade(89.0)
    desk.report("unknown")
    for _ in range(5):
        desk.trade(80.0, after=HOUR)
        desk.beat(HOUR)
    assert len(desk.approved) == 2  # an exit that may be at the venue is not sent a second time
    assert reason(desk.signal("exit")) == "approved" and len(desk.approved) == 2
    frame = desk.report("rejected")
    assert desk.sent(frame) == ["place market sell 100 only reducing"]


@pytest.mark.parametrize("end", ["rejected", "expired", "cancelled"])
def test_an_exit_that_failed_is_sent_again_at_once_and_then_after_longer_and_longer_waits(end: str) -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.trade(90.0)
    first = desk.last_id()
    ids, waits = [first], []
    for failure in range(1, EXIT_FAILURES):
        desk.report(end)
        began = desk.ts
        while len(desk.approved) == failure + 1:
            desk.beat(SECOND // 2)  # nothing trades: time alone is enough
        waits.append((desk.ts - began) // SECOND)
        ids.append(desk.last_id())
    assert waits == [0, 1, 2, 4, 8, 16, 32]
    assert ids[1:] == [fold(first, k) for k in range(1, EXIT_FAILURES)]
    assert desk.account["trading_state"] != HALTED
    desk.report("filled", 100, 90.0)
    assert desk.held() == 0
    books_balance(desk)


@pytest.mark.parametrize("row", ["trade", "quote", "bar", "beat"])
def test_any_row_past_the_wait_sends_an_exit_again_though_its_own_symbol_is_quiet(row: str) -> None:
    desk = ExternalDesk(plain())
    desk.bar(50, 51, 49, 50, symbol=1)
    desk.trade(50.0, symbol=2)
    opened(desk)
    desk.trade(90.0)
    desk.report("rejected")
    desk.report("rejected")
    assert len(desk.approved) == 3
    rows = {"trade": lambda: desk.trade(50.0, symbol=2, after=2 * SECOND), "quote": lambda: desk.quote(50.0, 50.1, symbol=2, after=2 * SECOND),
            "bar": lambda: desk.bar(50, 51, 49, 50, symbol=1), "beat": lambda: desk.beat(2 * SECOND)}
    assert not len(desk.trade(50.0, symbol=2, after=SECOND // 2).rows(APPROVED))
    assert desk.sent(rows[row]()) == ["place market sell 100 only reducing"]


def test_an_exit_that_failed_too_often_halts_trading_and_flattens_and_that_too_is_bounded() -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.trade(90.0)
    for _ in range(EXIT_FAILURES):
        desk.trade(90.0, after=HOUR)
        desk.report("rejected")
    assert desk.account["trading_state"] == HALTED and desk.account["exits_failed"] == 1
    flatten = desk.made(DECISIONS)[-1]
    assert DECISIONS.field("cause").labels[flatten["cause"]] == "flatten" and flatten["approved"] == 1
    assert desk.last_id() == flatten["order_id"]
    for _ in range(EXIT_FAILURES):
        desk.trade(90.0, after=HOUR)
        desk.report("rejected")
    sent = len(desk.approved)
    assert desk.account["exits_failed"] == 2
    for _ in range(3):
        desk.trade(90.0, after=HOUR)
    assert len(desk.approved) == sent == 1 + 2 * EXIT_FAILURES
    desk.control("halt")  # somebody mends it and asks again
    assert desk.sent(desk.frames[-1]) == ["place market sell 100 only reducing"]


def test_a_fill_in_part_is_progress_and_starts_the_count_of_failures_again() -> None:
    desk = ExternalDesk(plain())
    opened(desk)
    desk.trade(90.0)
    for k in range(3 * EXIT_FAILURES):
        desk.trade(90.0, after=HOUR)
        desk.report("cancelled", 1 if k % (EXIT_FAILURES - 1) == EXIT_FAILURES - 2 else 0, 90.0)
    assert desk.account["trading_state"] != HALTED
    assert desk.held() == 97 and desk.sent()[-1] == "place market sell 97 only reducing"
    placed = desk.approved["order_id"].tolist()
    assert len(set(placed)) == len(placed)


def test_more_than_was_ordered_is_booked_and_trading_halts() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    frame = desk.report("filled", 101)
    assert desk.held() == 101 and desk.account["trading_state"] == HALTED
    assert desk.sent(frame) == ["place market sell 101 only reducing"]
    frame = desk.report("filled", 103, 100.0)  # the exit too: two more than there were
    assert desk.held() == -2 and [int(f["quantity"]) // ONE for f in frame.rows(FILLS)] == [101, 2]
    assert desk.sent(frame) == ["place market buy 2 only reducing"]
    desk.report("filled", 2)
    assert desk.held() == 0
    books_balance(desk)


def test_a_late_fill_of_an_order_that_had_ended_is_booked_and_protected() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("cancelled")
    desk.report("cancelled", 20, 100.0)
    assert desk.held() == 20 and desk.life(desk.last_id()) == ["new", "sent", "cancelled", "cancelled"]
    assert desk.account["trading_state"] != HALTED and desk.account["pending"] == 0
    assert desk.sent(desk.trade(89.0)) == ["place market sell 20 only reducing"]
    books_balance(desk)


def test_a_late_fill_of_an_entry_whose_position_is_gone_is_protected_under_new_ids() -> None:
    desk = ExternalDesk(plain())
    entry = opened(desk)
    desk.trade(90.0)
    desk.report("filled", 100, 90.0)
    desk.report("filled", 105, order_id=entry, notional=10_450 * ONE)  # more than was ordered, and after the end
    assert desk.held() == 5 and desk.account["trading_state"] == HALTED
    assert desk.sent()[-1] == "place market sell 5 only reducing"
    stops = [int(r["order_id"]) for r in desk.made(ORDERS) if r["order_type"] == 2 and r["state"] == 0]
    assert len(stops) == 2 and len(set(stops)) == 2
    desk.report("filled", 5, 90.0)
    assert desk.held() == 0
    books_balance(desk)


def test_reports_of_orders_that_were_never_sent_are_counted_and_nothing_else() -> None:
    desk = ExternalDesk(plain(entry_stop="1 %"))
    desk.trade(100.0)
    waiting = desk.signal("enter_long", stop=90.0)
    before = desk.operator.desk.orders.tobytes(), desk.operator.desk.books.tobytes()
    for order_id in (12345, int(waiting["order_id"])):
        frame = desk.report("filled", 50, order_id=order_id)
        assert not len(frame.rows(FILLS)) and not len(frame.rows(ORDERS))
    assert desk.account["reports_unknown"] == 2
    assert (desk.operator.desk.orders.tobytes(), desk.operator.desk.books.tobytes()) == before


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_reports_in_any_order_give_the_same_books(order: tuple[int, ...]) -> None:
    said = [("accepted", 0, 0, 0), ("partially_filled", 30, 3_001 * ONE, 5), ("unknown", 30, 3_001 * ONE, 6), ("cancelled", 70, 7_003 * ONE, 9)]
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    entry = desk.last_id()
    for k in order:
        state, filled, notional, fee = said[k]
        desk.report(state, filled, notional=notional, fee=fee, no=k + 1, order_id=entry)
    book = desk.operator.desk.books[0, 0]
    assert (book["quantity"], book["cost"], book["fees"]) == (70 * ONE, 7_003 * ONE, 9)
    assert desk.account["cash"] == (100_000 - 7_003) * ONE - 9 and desk.account["pending"] == 0
    assert desk.life(entry)[-1] == "cancelled"
    assert desk.sent(desk.trade(90.0)) == ["place market sell 70 only reducing"]
    exit_id = desk.last_id()
    ends = [("partially_filled", 20, 1_800 * ONE, 1), ("partially_filled", 50, 4_500 * ONE, 2), ("unknown", 50, 4_500 * ONE, 2),
            ("rejected", 50, 4_500 * ONE, 3)]
    for k in order:
        state, filled, notional, fee = ends[k]
        desk.report(state, filled, notional=notional, fee=fee, no=k + 1, order_id=exit_id)
    assert desk.held() == 20 and desk.sent()[1:] == ["place market sell 70 only reducing", "place market sell 20 only reducing"]
    assert desk.account["cash"] == (100_000 - 7_003 + 4_500) * ONE - 9 - 3
    books_balance(desk)


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


def test_dust_below_the_lot_is_not_chased() -> None:
    desk = ExternalDesk(plain(lot="1"))
    opened(desk)
    desk.trade(90.0)
    frame = desk.report("cancelled", 99.5, 90.0)
    assert desk.sent(frame) == [] and desk.held() == 0.5 and desk.account["trading_state"] != HALTED


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
    found = []
    for path in sorted((root / "operators").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "approved" and ast.unparse(node.value) == "out":
                found.append((path.relative_to(root).as_posix(), isinstance(node.ctx, ast.Load)))
    assert {name for name, _ in found} == {"operators/desk/approvals.py", "operators/desk/reducer.py"}
    assert "ask_venue" in (root / "operators/desk/approvals.py").read_text(encoding="utf-8")


def test_the_paper_desk_approves_nothing_and_has_no_use_for_reports() -> None:
    from tests.desk_tapes import ScriptedDesk
    desk = ScriptedDesk(plain())
    desk.trade(100.0)
    desk.buy(stop=90.0)
    desk.trade(89.0)
    desk.trade(89.0)
    assert desk.held() == 0 and not len(desk.made(APPROVED))
    assert {"sent", "unknown"}.isdisjoint({ORDERS.field("state").labels[s] for s in desk.made(ORDERS)["state"]})
