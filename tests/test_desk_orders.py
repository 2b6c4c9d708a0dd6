"""Orders on random tapes: the door, the life cycle, time, quantities and what each state of trading lets happen."""

import ast
from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.desk.gate import approved_orders
from operators.desk.orders import LIFE_CYCLE
from schemas.records import ApprovedOrder
from schemas.tables import Rows
from schemas.tables_desk import (
    CANCELLED,
    CAUSE_FLATTEN,
    DECISIONS,
    EXPIRED,
    FILLED,
    FILLS,
    HALTED,
    LIMITS,
    MARKET,
    NEW,
    ORDER_STATES,
    ORDERS,
    REJECTED_ORDER,
    TAKE_PROFIT,
)
from tests.desk_tapes import ONE, STRATEGIES, SYMBOLS, Tape, cut, random_operator, random_tape, run

SEED = st.integers(0, 10_000)
LAW = settings(max_examples=40)
ROW_BY_ROW = settings(max_examples=12)
N = 400
FINAL = {FILLED, CANCELLED, REJECTED_ORDER, EXPIRED}


def trade(seed: int, tape: Tape | None = None) -> tuple[Rows, Rows, Rows]:
    """Decisions, orders and fills of a random tape."""
    decisions, orders, fills, *_ = run(random_operator(seed), cut(tape or random_tape(seed, N), SYMBOLS))
    return decisions, orders, fills


@LAW
@given(seed=SEED)
def test_every_signal_is_approved_or_refused_and_nothing_else_is_but_a_flattening(seed: int) -> None:
    tape = random_tape(seed, N)
    decisions, _, _ = trade(seed, tape)
    own = decisions[decisions["cause"] != CAUSE_FLATTEN]
    assert len(own) == len(tape["signals"])
    for name in ("ts_event_ns", "seq", "symbol", "strategy", "slot", "action", "cause", "ts_open_ns", "interval_ns"):
        assert list(own[name]) == list(tape["signals"][name])
    assert ((decisions["reason"] == 0) == (decisions["approved"] == 1)).all()
    assert (decisions["action"][decisions["cause"] == CAUSE_FLATTEN] == 2).all()


@LAW
@given(seed=SEED)
def test_a_reason_is_the_first_limit_whose_verdict_refuses(seed: int) -> None:
    decisions, _, _ = trade(seed)
    for row in decisions:
        asked = row["verdicts"] != 0
        refused = row["observed"] > row["bounds"]
        assert list(row["verdicts"]) == [0 if not a else 2 if r else 1 for a, r in zip(asked, refused, strict=True)]
        first = next((k + 1 for k in range(len(LIMITS)) if row["verdicts"][k] == 2), 0)
        assert row["reason"] == first


@LAW
@given(seed=SEED)
def test_every_order_has_an_approved_decision_as_itself_or_as_its_parent(seed: int) -> None:
    decisions, orders, fills = trade(seed)
    approved = {int(i): n for n, i in enumerate(decisions["order_id"]) if decisions["approved"][n]}
    refused = set(decisions["order_id"][decisions["approved"] == 0].tolist()) - set(approved)
    for row in orders:
        assert int(row["parent_id"] or row["order_id"]) in approved
    assert not refused & set(orders["order_id"].tolist())
    assert set(fills["order_id"].tolist()) <= set(orders["order_id"].tolist())


@LAW
@given(seed=SEED)
def test_every_change_of_state_is_in_the_life_cycle(seed: int) -> None:
    _, orders, _ = trade(seed)
    lives: dict[int, list[int]] = defaultdict(list)
    for row in orders:
        lives[int(row["order_id"])].append(int(row["state"]))
    for life in lives.values():
        assert life[0] == NEW
        for before, after in zip(life, life[1:], strict=False):
            assert after in LIFE_CYCLE[before], f"{ORDER_STATES[before]} → {ORDER_STATES[after]}"


def test_the_life_cycle_ends_and_begins_where_it_should() -> None:
    assert set(LIFE_CYCLE) == set(range(len(ORDER_STATES)))
    assert {state for state, after in LIFE_CYCLE.items() if not after} == FINAL
    assert all(NEW not in after for after in LIFE_CYCLE.values())


@LAW
@given(seed=SEED)
def test_quantities_never_exceed_what_was_ordered_and_rows_agree_with_fills(seed: int) -> None:
    _, orders, fills = trade(seed)
    assert (orders["filled"] <= orders["quantity"]).all() and (orders["quantity"] > 0).all()
    assert (fills["quantity"] > 0).all() and (fills["price"] > 0).all()
    last = {int(r["order_id"]): r for r in orders}
    done: dict[int, int] = defaultdict(int)
    for fill in fills:
        order = last[int(fill["order_id"])]
        done[int(fill["order_id"])] += int(fill["quantity"])
        assert (fill["side"], fill["symbol"], fill["strategy"], fill["cause"]) == (order["side"], order["symbol"], order["strategy"], order["cause"])
    for order_id, row in last.items():
        assert done[order_id] == row["filled"]
        if row["state"] == FILLED and row["filled"] < row["quantity"]:
            assert fills[fills["order_id"] == row["order_id"]]["closed"][-1] == 1


@LAW
@given(seed=SEED)
def test_nothing_fills_on_the_row_that_caused_it_nor_before_it_is_at_the_venue(seed: int) -> None:
    _, orders, fills = trade(seed)
    born = {int(r["order_id"]): r for r in orders if r["state"] == NEW}
    for fill in fills:
        order = born[int(fill["order_id"])]
        same_bar = order["parent_id"] != 0 and SYMBOLS[fill["symbol"]] == "BARRED"
        assert fill["seq"] > order["seq"] or (same_bar and fill["seq"] == order["seq"] and fill["cause"] == 2)
        assert fill["ts_event_ns"] >= order["ts_active_ns"]


@LAW
@given(seed=SEED)
def test_no_order_takes_more_than_its_share_of_a_print(seed: int) -> None:
    tape = random_tape(seed, N)
    operator = random_operator(seed)
    _, _, fills, *_ = run(operator, cut(tape, SYMBOLS))
    share = int(operator.desk.policy["participation"][0])
    sizes = {int(t["seq"]): [round(t["size"] * ONE)] * 2 for t in tape["trades"]}
    sizes |= {int(b["seq"]): [round(b["volume"] * ONE)] * 2 for b in tape["bars"]}
    sizes |= {int(q["seq"]): [round((q["ask_size"] or 1e18) * ONE), round((q["bid_size"] or 1e18) * ONE)] for q in tape["quotes"]}
    taken: dict[tuple[int, int], int] = defaultdict(int)
    for fill in fills:
        taken[int(fill["seq"]), int(fill["order_id"])] += int(fill["quantity"])
        assert taken[int(fill["seq"]), int(fill["order_id"])] * ONE <= sizes[int(fill["seq"])][0 if fill["side"] == 1 else 1] * share


@LAW
@given(seed=SEED)
def test_taking_fills_are_worse_than_their_reference_and_resting_ones_at_it(seed: int) -> None:
    _, orders, fills = trade(seed)
    kinds = {int(r["order_id"]): int(r["order_type"]) for r in orders}
    for fill in fills:
        assert fill["maker"] == (kinds[int(fill["order_id"])] == TAKE_PROFIT)
        sign = 1 if fill["side"] == 1 else -1
        gap = sign * (int(fill["price"]) - int(fill["reference"]))
        assert gap == 0 if fill["maker"] else gap > 0


@ROW_BY_ROW
@given(seed=SEED)
def test_a_flat_book_has_no_exits_left(seed: int) -> None:
    operator = random_operator(seed)
    for frame in cut(random_tape(seed, N), SYMBOLS, range(0, 820, 2)):
        operator.step(frame)
        live = operator.desk.orders[operator.desk.orders["used"] == 1]
        for order in live[live["reduce_only"] == 1]:
            assert operator.desk.books[order["strategy"], order["symbol"]]["quantity"] != 0


@ROW_BY_ROW
@given(seed=SEED)
def test_entries_fill_only_while_trading_is_active(seed: int) -> None:
    operator = random_operator(seed)
    entries: set[int] = set()
    for frame in cut(random_tape(seed, N), SYMBOLS, range(0, 820, 2)):
        state = int(operator.desk.account["trading_state"][0])
        made = operator.step(frame)
        decisions, orders, fills = made.rows(DECISIONS), made.rows(ORDERS), made.rows(FILLS)
        entries |= set(orders["order_id"][(orders["parent_id"] == 0) & (orders["cause"] == 0)].tolist())
        if state != 1 and not len(frame.tables.get("control", ())):
            assert not entries & set(fills["order_id"].tolist())
            assert not decisions["approved"][decisions["action"] != 2].any()


def test_a_desk_that_was_never_enabled_orders_nothing() -> None:
    tape = random_tape(5, N)
    tape["control"] = tape["control"][:0]
    decisions, orders, fills = trade(5, tape)
    assert len(decisions) == len(tape["signals"]) > 50
    assert not len(orders) and not len(fills)
    assert (decisions["reason"] == 1 + LIMITS.index("trading_state")).all()


@LAW
@given(seed=SEED)
def test_order_ids_are_those_of_their_content(seed: int) -> None:
    decisions, orders, _ = trade(seed)
    assert len({r["order_id"] for r in orders if r["state"] == NEW}) == (orders["state"] == NEW).sum()
    later = random_tape(seed, N)
    for rows in later.values():
        rows["seq"] += 1_000_000  # the place on the tape is not part of an intent
    assert list(trade(seed, later)[0]["order_id"]) == list(decisions["order_id"])


def test_what_a_venue_may_take_is_what_was_approved() -> None:
    decisions, orders, _ = trade(11)
    sent = approved_orders(decisions, "paper", SYMBOLS, STRATEGIES)
    own = orders[(orders["state"] == NEW) & (orders["parent_id"] == 0)]
    assert [o.order_id for o in sent] == [int(i) for i in own["order_id"]]
    assert [o.quantity for o in sent] == [int(q) for q in own["quantity"]]
    assert {o.side for o in sent} == {"buy", "sell"}
    assert (own["order_type"] == MARKET).all() and isinstance(sent[0], ApprovedOrder)


def test_approved_orders_are_constructed_in_the_gate_alone() -> None:
    root = Path(__file__).parents[1]
    found = []
    for package in ("schemas", "operators", "sources", "sinks", "dataflows", "research", "control", "dashboards", "cli"):
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "ApprovedOrder":
                    found.append(path.relative_to(root).as_posix())
    assert found == ["operators/desk/gate.py"]


def test_random_tapes_reach_what_these_laws_are_about() -> None:
    """Not a law: the tapes have halts, refusals of many kinds, stops, targets, flattenings and partial fills in them."""
    reasons, causes, states, trading = set(), set(), set(), set()
    for seed in range(25):
        decisions, orders, fills = trade(seed)
        reasons |= set(decisions["reason"].tolist())
        causes |= set(fills["cause"].tolist())
        states |= set(orders["state"].tolist())
        trading |= set(decisions["trading_state"].tolist())
    assert len(reasons) >= 12 and causes >= {0, 1, 2, 3, CAUSE_FLATTEN}
    assert states >= {NEW, 1, 2, 3, FILLED, CANCELLED} and HALTED in trading
