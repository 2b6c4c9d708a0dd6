"""The money law: after any sequence of rows the ledger, the account, the books and the symbols say the same, to the unit."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.desk.desk import DeskOperator
from schemas.tables import Rows
from schemas.tables_desk import CASH, EQUITY, FEES, FUNDING, POSITION, REALISED
from tests.desk_tapes import MINUTE, ONE, SYMBOLS, ScriptedDesk, cut, plain, random_operator, random_tape, run

SEED = st.integers(0, 10_000)
LAW = settings(max_examples=30)


def balances(ledger: Rows) -> list[int]:
    """Each account's debits less its credits, in Python integers."""
    out = [0] * 6
    for row in ledger:
        assert row["amount"] > 0
        out[row["debit"]] += int(row["amount"])
        out[row["credit"]] -= int(row["amount"])
    return out


def check_account(operator: DeskOperator, ledger: Rows, fills: Rows) -> None:
    """What must hold between any two rows."""
    d = operator.desk
    a, capital = d.account[0], int(d.policy["capital"][0])
    balance = balances(ledger)
    cash = capital + balance[CASH]
    assert cash == a["cash"]
    assert balance[POSITION] == d.books["cost"].sum()
    assert balance[FEES] == a["fees"] == d.books["fees"].sum() == fills["fee"].sum()
    assert balance[FUNDING] == a["funding"]
    assert -balance[REALISED] == a["realised"] == d.books["realised"].sum() == fills["realised"].sum()
    assert capital == cash + balance[POSITION] + balance[FEES] + balance[FUNDING] + balance[REALISED]
    signed = np.where(fills["side"] == 1, fills["quantity"], -fills["quantity"])
    for s in range(d.books.shape[0]):
        for k in range(len(operator.symbols)):
            assert signed[(fills["strategy"] == s) & (fills["symbol"] == k)].sum() == d.books[s, k]["quantity"]
    values = [int(s["last"]) * int(s["net"]) // ONE for s in d.symbols]
    assert list(d.symbols["net"]) == list(d.books["quantity"].sum(axis=0))
    assert list(d.symbols["value"]) == values
    assert a["equity"] == a["cash"] + sum(values) == operator.equity_units
    assert a["exposure"] == sum(map(abs, values))
    check_counters(d)


def check_counters(d: Any) -> None:
    """Sums that the desk keeps as it goes are those of what it holds."""
    a = d.account[0]
    held, live = d.books["quantity"] != 0, d.orders[d.orders["used"] == 1]
    assert a["heat"] == d.books["risk"].sum()
    assert a["positions"] == held.sum()
    assert not d.books["cost"][~held].any()
    assert a["open_orders"] == (d.orders["used"] != 0).sum()
    entries = live[live["reduce_only"] == 0]
    assert a["pending"] == len(entries) == (d.books["entry_pending"] >= 0).sum()
    assert a["pending_notional"] == entries["reserved"].sum() and a["pending_heat"] == entries["reserved_heat"].sum()
    assert (live["filled"] <= live["quantity"]).all()


@LAW
@given(seed=SEED)
def test_money_law_at_every_tenth_place(seed: int) -> None:
    tape = random_tape(seed, 300)
    operator = random_operator(seed)
    made = []
    for frame in cut(tape, SYMBOLS, range(0, 620, 20)):
        made.append(run(operator, [frame]))
        fills, ledger = (np.concatenate([m[k] for m in made]) for k in (2, 3))
        check_account(operator, ledger, fills)


@LAW
@given(seed=SEED)
def test_rows_are_numbered_without_holes_and_equity_samples_add_up(seed: int) -> None:
    operator = random_operator(seed)
    decisions, orders, fills, ledger, positions, equity, _ = run(operator, cut(random_tape(seed, 300), SYMBOLS))
    for rows, number in ((decisions, "decision_no"), (orders, "event_no"), (fills, "fill_no"), (ledger, "entry_no"), (positions, "position_no")):
        assert list(rows[number]) == list(range(1, len(rows) + 1))
        assert (np.diff(rows["seq"]) >= 0).all()
    assert (np.diff(equity["seq"]) > 0).all()
    assert (equity["drawdown"] >= 0).all()
    assert len(positions) == len(fills)
    for fill, position in zip(fills, positions, strict=True):
        assert fill["closed"] == (position["quantity"] == 0)
        assert position["unrealised"] == int(position["mark"]) * int(position["quantity"]) // ONE - position["cost"]


@LAW
@given(seed=SEED)
def test_what_round_trips_made_is_realised_less_fees(seed: int) -> None:
    operator = random_operator(seed)
    fills = run(operator, cut(random_tape(seed, 300), SYMBOLS))[2]
    trips = fills["trade_pnl"][fills["closed"] == 1].sum()
    assert not fills["trade_pnl"][fills["closed"] == 0].any()
    assert trips + operator.desk.books["trip_pnl"].sum() == fills["realised"].sum() - fills["fee"].sum()


def test_a_long_trip_by_hand() -> None:
    desk = ScriptedDesk(plain(fee_taker="10 bps", slippage="1 %", position_notional_max="1000 %"))
    desk.trade(100.0)
    desk.buy(stop=90.0)  # risks 1 % of 100,000 over 10: 100 units
    assert desk.held() == 100.0
    assert desk.account["cash"] == (100_000 - 10_100) * ONE - 1_010 * ONE // 100
    desk.trade(120.0)
    desk.signal("exit")
    desk.trade(120.0)
    fill = desk.fills[-1]
    assert fill["price"] == 118.8 * ONE and fill["reference"] == 120 * ONE
    assert fill["realised"] == (11_880 - 10_100) * ONE
    assert fill["trade_pnl"] == fill["realised"] - 1010 * ONE // 100 - 1188 * ONE // 100
    assert desk.account["equity"] == 100_000 * ONE + fill["trade_pnl"]


def test_a_short_gains_when_the_price_falls() -> None:
    desk = ScriptedDesk(plain())
    desk.trade(100.0)
    desk.signal("enter_short", stop=110.0)
    desk.trade(100.0)
    assert desk.held() == -100.0
    desk.trade(95.0)
    assert desk.account["equity"] == 100_500 * ONE
    desk.signal("exit")
    desk.trade(95.0)
    assert desk.fills[-1]["realised"] == 500 * ONE and desk.account["cash"] == 100_500 * ONE


def test_funding_is_paid_by_longs_to_shorts_at_the_mark_or_the_last_price() -> None:
    desk = ScriptedDesk(plain(), strategies=("alpha", "beta"))
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.signal("enter_short", stop=110.0, strength=0.5, strategy=1)
    desk.trade(100.0)
    assert (desk.held(), desk.held(strategy=1)) == (100.0, -50.0)
    desk.funding(0.001, mark=200.0)
    assert desk.account["funding"] == (20 - 10) * ONE
    desk.funding(-0.001)
    assert desk.account["funding"] == (20 - 10 - 10 + 5) * ONE
    desk.funding(0.5, symbol=1)
    assert desk.account["cash"] == (100_000 - 5_000 - 5) * ONE


def test_a_strategy_does_not_see_another_strategys_book() -> None:
    desk = ScriptedDesk(plain(), strategies=("alpha", "beta"), weights=[0.75, 0.25])
    desk.trade(100.0)
    desk.signal("enter_long", stop=90.0)
    desk.signal("enter_long", stop=90.0, strategy=1)
    desk.trade(100.0)
    assert (desk.held(), desk.held(strategy=1)) == (75.0, 25.0)
    desk.signal("exit", strategy=1)
    desk.trade(101.0)
    assert (desk.held(), desk.held(strategy=1)) == (75.0, 0.0)


def test_equity_is_sampled_once_an_interval_and_a_quiet_market_is_sampled_by_beats() -> None:
    desk = ScriptedDesk(plain(equity_interval="1 min"))
    for _ in range(6):
        desk.trade(100.0, after=MINUTE // 3)
    desk.beat(5 * MINUTE)
    samples = desk.made(EQUITY)
    assert [int(s - samples["ts_event_ns"][0]) // MINUTE for s in samples["ts_event_ns"]] == [0, 1, 2, 7]
