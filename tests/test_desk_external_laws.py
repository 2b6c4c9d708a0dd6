"""The laws of the desk with an external venue, on random tapes with a random venue: batch, resume, prefix, money, door, exits, twice."""

import pickle
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.desk import audit
from operators.desk.approvals import chain, recorded
from operators.desk.desk import DeskOperator
from operators.desk.orders import LATE, LIFE_CYCLE
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.ids import name_ids
from schemas.policy import Policy
from schemas.tables import Rows
from schemas.tables_desk import (
    CASH,
    CAUSE_FLATTEN,
    FILLS,
    HALTED,
    LEDGER,
    NEW,
    ORDER_STATES,
    ORDERS,
    POSITION,
    SENT,
    TRIGGERED,
    UNKNOWN,
)
from schemas.tables_live import CANCEL_REQUEST, PLACE_REQUEST, REPORT_STATES, REPORTS
from tests.desk_external import ALL_MADE, ROOM, external_operator, run_all, totals, traded
from tests.desk_tapes import STRATEGIES, SYMBOLS, Tape, concat, cut, random_policy, random_tape, run, same
from tests.test_desk_ledger import check_account

SEED = st.integers(0, 10_000)
LAW = settings(max_examples=25, deadline=None)
N = 300
END = (2 * N + 20) * ROOM
PLACES = st.integers(0, END)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Audit blocks that fill up within a short tape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "BLOCK", 16)
        yield


def made_by(seed: int) -> tuple[Tape, dict[str, Rows], Any]:
    operator = external_operator(seed)
    tape, frames = traded(seed, N, operator)
    return tape, {spec.name: concat(spec, frames) for spec in ALL_MADE}, operator


def places(tape: Tape) -> list[int]:
    """Every place of the tape at which there is something."""
    return sorted({int(seq) for rows in tape.values() for seq in rows["seq"]})


@LAW
@given(seed=SEED, cuts=st.lists(PLACES, max_size=30))
def test_batch_law_where_reports_share_a_place(seed: int, cuts: list[int]) -> None:
    tape, _, _ = made_by(seed)
    tape["reports"]["seq"] -= tape["reports"]["seq"] % ROOM
    assert same(run_all(external_operator(seed), cut(tape, SYMBOLS)), run_all(external_operator(seed), cut(tape, SYMBOLS, cuts)))


@pytest.mark.parametrize("seed", [2, 5, 14, 15, 16, 18, 20, 22])
def test_batch_law_of_the_paper_desk_with_entries_that_rest(seed: int) -> None:
    tape = random_tape(seed, 400)
    assert same(run(resting_operator(seed), cut(tape, SYMBOLS)), run(resting_operator(seed), cut(tape, SYMBOLS, range(820))))


def resting_operator(seed: int) -> DeskOperator:
    policy = random_policy(np.random.default_rng([seed, 1]))
    entry = [{"entry_limit": "5 bps"}, {"entry_stop": "5 bps"}, {"entry_stop": "5 bps", "entry_limit": "5 bps"}][seed % 3]
    return DeskOperator(Policy({**policy.values, **entry}), STRATEGIES, [0.4, 0.3, 0.3])


@LAW
@given(seed=SEED, cuts=st.lists(PLACES, max_size=30))
def test_batch_law(seed: int, cuts: list[int]) -> None:
    tape, made, live = made_by(seed)
    whole, parts = external_operator(seed), external_operator(seed)
    once = run_all(whole, cut(tape, SYMBOLS))
    assert same(once, run_all(parts, cut(tape, SYMBOLS, cuts)))
    assert same(once, [made[spec.name] for spec in ALL_MADE])  # and as it was when the venue answered
    assert whole.audit.heads() == parts.audit.heads() == live.audit.heads()
    assert whole.approved_head == parts.approved_head == live.approved_head
    assert whole.desk.account.tobytes() == parts.desk.account.tobytes() == live.desk.account.tobytes()


@LAW
@given(seed=SEED, place=PLACES)
def test_resume_law(seed: int, place: int) -> None:
    tape, _, _ = made_by(seed)
    first, rest = cut(tape, SYMBOLS, [place])
    stopped, fresh = external_operator(seed), external_operator(seed)
    run_all(stopped, [first])
    frozen = pickle.dumps(stopped.snapshot())
    expected = run_all(stopped, [rest])
    fresh.restore(pickle.loads(frozen))
    assert same(expected, run_all(fresh, [rest]))
    assert stopped.audit.heads() == fresh.audit.heads()
    assert stopped.approved_head == fresh.approved_head


@LAW
@given(seed=SEED, place=PLACES)
def test_prefix_law(seed: int, place: int) -> None:
    tape, made, _ = made_by(seed)
    known = [made[spec.name][made[spec.name]["seq"] < place] for spec in ALL_MADE]
    assert same(known, run_all(external_operator(seed), cut(tape, SYMBOLS, [place])[:1]))


@LAW
@given(seed=SEED)
def test_money_law_at_every_twentieth_place_and_fills_add_up_to_the_reports(seed: int) -> None:
    tape, made, _ = made_by(seed)
    operator = external_operator(seed)
    frames = []
    for frame in cut(tape, SYMBOLS, range(0, END, 20 * ROOM)):
        frames.append(operator.step(frame))
        check_account(operator, concat(LEDGER, frames), concat(FILLS, frames))
    fills, ledger = made["fills"], made["ledger"]
    moved = ledger[((ledger["debit"] == CASH) & (ledger["credit"] == POSITION)) | ((ledger["debit"] == POSITION) & (ledger["credit"] == CASH))]
    cash: dict[int, int] = defaultdict(int)
    for row in moved:
        cash[int(row["fill_no"])] += int(row["amount"]) * (1 if row["credit"] == CASH else -1)
    for key, last in totals(tape["reports"]).items():
        own = fills[fills["order_id"] == key]
        sign = 1 if len(own) and own["side"][0] == 1 else -1
        assert own["quantity"].sum() == last["filled"]
        assert own["fee"].sum() == last["fee"]
        assert sum(cash[int(n)] for n in own["fill_no"]) == sign * last["notional"]


@LAW
@given(seed=SEED)
def test_the_door(seed: int) -> None:
    tape, made, _ = made_by(seed)
    decisions, orders, approved = made["decisions"], made["orders"], made["approved"]
    own = decisions[decisions["cause"] != CAUSE_FLATTEN]
    assert len(own) == len(tape["signals"])
    assert ((decisions["reason"] == 0) == (decisions["approved"] == 1)).all()
    for row in decisions:
        first = next((k + 1 for k in range(len(row["verdicts"])) if row["verdicts"][k] == 2), 0)
        assert row["reason"] == first
    let_through = {int(d["decision_no"]): int(d["order_id"]) for d in decisions if d["approved"]}
    parents = {int(o["order_id"]): int(o["parent_id"]) for o in orders}
    for row in approved:
        decided = let_through[int(row["decision_no"])]  # a decision that was approved …
        line = [int(row["order_id"])]
        while parents[line[-1]]:
            line.append(parents[line[-1]])
        assert decided in line  # … is the order's, or its parent's
    assert list(approved["approval_no"]) == list(range(1, len(approved) + 1))
    placed = approved["order_id"][approved["request"] == PLACE_REQUEST].tolist()
    assert len(set(placed)) == len(placed)  # an order id is sent once
    assert sorted(placed) == sorted(orders["order_id"][(orders["state"] == SENT) & ~again(orders)].tolist())
    asked = approved["order_id"][approved["request"] == CANCEL_REQUEST].tolist()
    assert len(set(asked)) == len(asked) and set(asked) <= set(placed)
    assert set(made["fills"]["order_id"].tolist()) <= set(placed)


def again(orders: Rows) -> Any:
    """Which rows say that an order is sent after all, which nobody knew for a while."""
    before: dict[int, int] = {}
    out = np.zeros(len(orders), bool)
    for k, row in enumerate(orders):
        out[k] = before.get(int(row["order_id"])) == UNKNOWN
        before[int(row["order_id"])] = int(row["state"])
    return out


@LAW
@given(seed=SEED)
def test_every_change_of_state_is_in_the_life_cycle(seed: int) -> None:
    _, made, _ = made_by(seed)
    lives: dict[int, list[int]] = defaultdict(list)
    for row in made["orders"]:
        lives[int(row["order_id"])].append(int(row["state"]))
    for life in lives.values():
        assert life[0] == NEW
        for before, after in zip(life, life[1:], strict=False):
            assert after in LIFE_CYCLE[before] or after in LATE.get(before, ()), f"{ORDER_STATES[before]} → {ORDER_STATES[after]}"
    for order_id, life in lives.items():
        rows = made["orders"][made["orders"]["order_id"] == order_id]
        assert (np.diff(rows["filled"]) >= 0).all()
        assert rows["filled"][-1] == made["fills"]["quantity"][made["fills"]["order_id"] == order_id].sum()
        assert SENT in life or not rows["filled"].any()


@LAW
@given(seed=SEED)
def test_a_book_has_one_exit_at_the_venue_and_never_asks_for_more_than_it_holds(seed: int) -> None:
    tape, _, _ = made_by(seed)
    operator = external_operator(seed)
    held: dict[tuple[int, int], int] = defaultdict(int)
    out: dict[tuple[int, int], int] = {}
    exits: set[int] = set()
    final = {state for state, after in LIFE_CYCLE.items() if not after}
    for frame in cut(tape, SYMBOLS, places(tape)):
        made = operator.step(frame)
        # what one row did, in its order: fills first, then states, as the desk's counters have it
        for fill in made.rows(FILLS):
            held[int(fill["strategy"]), int(fill["symbol"])] += int(fill["quantity"]) * (1 if fill["side"] == 1 else -1)
        for row in made.rows(ORDERS):
            book, key = (int(row["strategy"]), int(row["symbol"])), int(row["order_id"])
            if row["state"] == NEW and row["cause"] != 0:
                exits.add(key)
            if key in exits and row["state"] == SENT and out.get(book) != key:
                assert book not in out
                assert 0 < row["quantity"] <= abs(held[book])
                assert (row["side"] == 2) == (held[book] > 0)
                out[book] = key
            elif row["state"] in final and out.get(book) == key:
                del out[book]
        books = operator.desk.books
        for (strategy, symbol), key in out.items():
            slot = books[strategy, symbol]["exit_sent"]
            assert slot >= 0 and operator.desk.orders[slot]["order_id"] == key
        assert (books["exit_sent"] >= 0).sum() == len(out)


@LAW
@given(seed=SEED)
def test_no_position_is_left_alone_by_a_failed_exit(seed: int) -> None:
    """An exit that was triggered or decided is sent, waits to be sent, or was given up with trading halted."""
    tape, _, _ = made_by(seed)
    operator = external_operator(seed)
    wanted: dict[tuple[int, int], bool] = {}
    given_up = 0
    for frame in cut(tape, SYMBOLS, places(tape)):
        made = operator.step(frame)
        for row in made.rows(ORDERS):
            book = int(row["strategy"]), int(row["symbol"])
            if row["cause"] != 0 and row["state"] in (TRIGGERED, SENT):
                wanted[book] = True
        d = operator.desk
        if d.account["exits_failed"][0] > given_up:
            given_up = int(d.account["exits_failed"][0])
            assert d.account["trading_state"][0] == HALTED
        for (strategy, symbol), due in list(wanted.items()):
            book = d.books[strategy, symbol]
            if book["quantity"] == 0:
                wanted[strategy, symbol] = False
            elif due:
                mine = d.orders[(d.orders["used"] == 1) & (d.orders["strategy"] == strategy) & (d.orders["symbol"] == symbol)]
                waiting = ((mine["reduce_only"] == 1) & (mine["due"] == 1)).any()
                dust = abs(book["quantity"]) < d.policy["lot"][0]
                assert waiting or dust or given_up


@LAW
@given(seed=SEED, data=st.data())
def test_reports_that_come_again_change_nothing(seed: int, data: st.DataObject) -> None:
    tape, made, operator = made_by(seed)
    reports = tape["reports"]
    if not len(reports):
        return
    again = []
    for k, row in enumerate(reports):
        again.append(row)
        for old in data.draw(st.lists(st.integers(0, k), max_size=2), label="again"):
            repeated = reports[old].copy()
            repeated["seq"], repeated["ts_event_ns"] = row["seq"], row["ts_event_ns"]
            again.append(repeated)
    repeating = external_operator(seed)
    frames = [repeating.step(frame) for frame in cut({**tape, "reports": np.array(again, REPORTS.dtype)}, SYMBOLS)]
    for spec in ALL_MADE:
        if spec.name != "audit":
            assert made[spec.name].tobytes() == concat(spec, frames).tobytes()
    assert repeating.approved_head == operator.approved_head
    ignored = repeating.desk.account["reports_ignored"][0] - operator.desk.account["reports_ignored"][0]
    assert ignored == len(again) - len(reports)
    assert repeating.desk.account["reports_unknown"][0] == 0


@LAW
@given(seed=SEED, data=st.data())
def test_anything_may_be_reported_and_the_books_still_balance(seed: int, data: st.DataObject) -> None:
    """Reports that no venue would give: of orders that never were, going backwards, far too much, negative."""
    tape, made, _ = made_by(seed)
    ids = [*{int(i) for i in made["approved"]["order_id"]}, 7, 2**64 - 1]
    amounts = st.one_of(st.integers(-10, 10), st.integers(0, 10**14), st.integers(-(2**63), 2**63 - 1))
    extra = REPORTS.empty(data.draw(st.integers(1, 25), label="reports"))
    for row in extra:
        row["order_id"] = np.uint64(data.draw(st.sampled_from(ids)))
        row["report_no"] = data.draw(st.integers(-1, 9))
        row["state"] = data.draw(st.integers(0, len(REPORT_STATES) - 1))
        row["filled"], row["notional"], row["fee"] = data.draw(amounts), data.draw(amounts), data.draw(amounts)
        row["filled"], row["notional"] = min(row["filled"], 10**13) if row["filled"] < 2**60 else row["filled"], min(row["notional"], 10**16)
        row["fee"] = row["fee"] if abs(float(row["fee"])) > 2**61 else row["fee"] % 10**12
        row["seq"] = (2 * data.draw(st.integers(0, N)) + 11) * ROOM
        row["ts_event_ns"], row["symbol"] = tape["reports"]["ts_event_ns"][-1] if len(tape["reports"]) else 0, data.draw(st.integers(-1, 4))
    together = np.concatenate([tape["reports"], extra])
    bad = {**tape, "reports": together[np.argsort(together["seq"], kind="stable")]}
    operator = external_operator(seed)
    frames: list[Frame] = []
    for frame in cut(bad, SYMBOLS, range(0, END, 40 * ROOM)):
        frames.append(operator.step(frame))
        check_account(operator, concat(LEDGER, frames), concat(FILLS, frames))
    assert same(run_all(external_operator(seed), cut(bad, SYMBOLS)), [concat(spec, frames) for spec in ALL_MADE])


@LAW
@given(seed=SEED)
def test_approvals_are_a_chain(seed: int) -> None:
    _, made, operator = made_by(seed)
    approved = made["approved"]
    digests = chain(approved, bytes(32), name_ids(SYMBOLS), name_ids(STRATEGIES))
    assert [recorded(row) for row in approved] == digests
    assert operator.approved_head == (digests[-1] if digests else bytes(32))


def test_random_venues_reach_what_these_laws_are_about() -> None:
    """Not a law: the tapes have refusals, partial fills, lost orders, retries, cancels and halts in them."""
    states: set[str] = set()
    seen: dict[str, int] = defaultdict(int)
    for seed in range(40):
        tape, made, operator = made_by(seed)
        states |= {ORDER_STATES[int(s)] for s in made["orders"]["state"]}
        a = operator.desk.account[0]
        approved = made["approved"]
        seen["cancels"] += int((approved["request"] == CANCEL_REQUEST).sum())
        seen["not only reducing"] += int(((approved["reduce_only"] == 0) & np.isin(approved["decision_no"], made["decisions"]["decision_no"][made["decisions"]["action"] == 2])).sum())
        seen["given up"] += int(a["exits_failed"])
        seen["again"] += int((operator.desk.done["attempt"] > 0).sum())
        seen["own"] += int(operator.desk.books["own_exits"].sum())
        seen["limit"] += int((approved["limit_price"] > 0).sum())
        seen["corrections"] += int((made["fills"]["quantity"] == 0).sum())
        last = totals(tape["reports"])
        seen["too much"] += sum(int(last[int(r["order_id"])]["filled"]) > int(r["quantity"]) for r in approved
                                if r["request"] == PLACE_REQUEST and int(r["order_id"]) in last)
        seen["late"] += sum(1 for life in lives(made["orders"]) for a_, b_ in zip(life, life[1:], strict=False) if a_ in LATE and b_ in LATE)
    assert states == {"new", "triggered", "partially_filled", "filled", "cancelled", "rejected", "expired", "sent", "accepted", "unknown"}
    assert all(seen[name] > 0 for name in ("cancels", "not only reducing", "given up", "again", "own", "limit", "corrections", "too much", "late")), dict(seen)


def lives(orders: Rows) -> list[list[int]]:
    out: dict[int, list[int]] = defaultdict(list)
    for row in orders:
        out[int(row["order_id"])].append(int(row["state"]))
    return list(out.values())


def test_a_state_of_the_paper_venue_is_not_taken_for_one_of_an_external_venue() -> None:
    paper, external = DeskOperator(Policy(), ("alpha",)), DeskOperator(Policy(), ("alpha",), external=True)
    with pytest.raises(UserError, match="is of the paper venue, and this run has an external one"):
        external.restore(paper.snapshot())
    with pytest.raises(UserError, match="is of an external venue, and this run has the paper one"):
        paper.restore(external.snapshot())
