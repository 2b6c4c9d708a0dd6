"""What a report does, one rule a test: money to the unit, states, and what is done when an exit fails or more comes than was asked for."""

from itertools import permutations

import pytest

from operators.desk.sending import EXIT_FAILURES
from schemas.ids import fold
from schemas.tables_desk import DECISIONS, FILLS, HALTED, ORDERS
from schemas.tables_live import APPROVED
from tests.desk_external import ExternalDesk, books_balance, opened
from tests.desk_tapes import MINUTE, ONE, SECOND, plain, reason

HOUR = 60 * MINUTE


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


def test_a_late_fill_while_trading_is_halted_is_left_again() -> None:
    desk = ExternalDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.report("cancelled")
    assert desk.sent(desk.control("halt")) == []
    assert desk.sent(desk.report("cancelled", 20, 100.0)) == ["place market sell 20 only reducing"]
    desk.report("filled", 20, 100.0)
    assert desk.held() == 0 and desk.account["trading_state"] == HALTED


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


def test_dust_below_the_lot_is_not_chased() -> None:
    desk = ExternalDesk(plain(lot="1"))
    opened(desk)
    desk.trade(90.0)
    frame = desk.report("cancelled", 99.5, 90.0)
    assert desk.sent(frame) == [] and desk.held() == 0.5 and desk.account["trading_state"] != HALTED
