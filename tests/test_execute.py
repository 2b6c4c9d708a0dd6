"""The execute flow: what is sent, what is not, and what the reports say of it."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest

from schemas.config_live import KafkaConfig
from sinks.execute import Outcome, Superseded
from sinks.execute_order import Pace
from tests.execute_running import execute, executor_of, until
from tests.execute_setup import DAY_2021_NS, Desk, Exchange, last_reports, make_topics, read_topic, totals
from tests.kafka_broker import kafka, servers  # noqa: F401


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    yield made
    made.stop()


@pytest.fixture
def desk(kafka: KafkaConfig) -> Desk:  # noqa: F811
    make_topics(kafka)
    return Desk(kafka)


def test_an_approval_becomes_one_order_and_its_reports_say_what_the_books_say(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1), desk.approve(2, "ETH/USDT", "sell", "1.5"))
    outcome = execute(desk, exchange)
    assert (outcome.counts.approvals, outcome.counts.sent, outcome.counts.filled, outcome.orders_open) == (2, 2, 2, 0)
    last = last_reports(desk.kafka, desk.account)
    for order_id in ("0000000000000001", "0000000000000002"):
        row = last[order_id]
        assert row["state"] == "filled" and row["seq"] == -1 and row["ts_sent_ns"] > 0
        assert (row["filled"], row["notional"], row["fee"]) == totals(exchange.books, order_id)
    assert last["0000000000000002"]["notional"] == "3750.00000000"

    # a second start finds everything done
    assert execute(desk, exchange).counts.sent == 0
    assert len(exchange.books.orders) == 2 and len(read_topic(desk.kafka, "reports", desk.account)) == 4


@pytest.mark.parametrize(("trouble", "sent", "states"), [
    ("order:hang_after", 1, ["sent", "unknown", "filled"]),
    ("order:drop_after", 1, ["sent", "unknown", "filled"]),
    ("order:status_after:503", 1, ["sent", "unknown", "filled"]),
    ("order:hide:0.05", 1, ["sent", "filled"]),
    ("order:late:0.6", 1, ["sent", "unknown", "filled"]),
    ("order:late:2.5", 2, ["sent", "unknown", "sent", "filled"]),
    ("order:drop_before", 2, ["sent", "unknown", "sent", "filled"]),
    ("order:status_before:500", 2, ["sent", "unknown", "sent", "filled"]),
    ("order:status_before:418", 2, ["sent", "filled"]),
    ("order:reject", 1, ["sent", "rejected"]),
    ("order:parts:3", 1, ["sent", "partially_filled", "filled"]),
])
def test_trouble_at_the_venue(trouble: str, sent: int, states: list[str], desk: Desk, exchange: Exchange) -> None:
    exchange.cues.add([trouble])
    desk.write(desk.approve(7, quantity="0.03"))
    # the late and the hanging request are given up before they are answered
    outcome = execute(desk, exchange, timeout_s=0.3 if "late" in trouble or "hang" in trouble else 5.0)
    rows = read_topic(desk.kafka, "reports", desk.account)
    # a claim whose time was over before its request could be signed is made again: that is no other state
    assert [state for state, _ in groupby(r["state"] for r in rows)] == states
    assert len([r for r in exchange.served.requests if r[0] == "order"]) == sent
    assert not exchange.served.duplicates
    if states[-1] == "filled":
        assert (rows[-1]["filled"], rows[-1]["notional"], rows[-1]["fee"]) == totals(exchange.books, "0000000000000007")
    else:
        assert not exchange.books.orders and outcome.counts.refusals == {"insufficient_funds": 1}


def test_a_rate_limit_is_left_alone_for_as_long_as_it_says(desk: Desk, exchange: Exchange) -> None:
    exchange.cues.add(["order:status_before:429"])
    arrived: list[float] = []
    exchange.served.hook = lambda label, order: arrived.append(time.monotonic()) if label == "arrived" else None
    desk.write(desk.approve(7))
    assert execute(desk, exchange).counts.filled == 1
    assert arrived[1] - arrived[0] >= 1.0  # its Retry-After


def test_a_resting_order_is_followed_and_after_a_restart_too(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(7, order_type="limit", limit_price="49000.129", quantity="0.012345678"))

    async def stopped_while_it_rests() -> Outcome:
        executor = executor_of(desk, exchange)
        running = asyncio.create_task(executor.run())
        await until(lambda: executor.orders != {} and executor.counts.reports == 2)
        executor.stop()
        return await running

    assert asyncio.run(stopped_while_it_rests()).orders_open == 1
    order = exchange.books.orders["0000000000000007"]
    # never more than was approved, never worse than the limit
    assert (str(order.quantity), str(order.price), order.status) == ("0.01234", "49000.12", "NEW")
    exchange.loop.call_soon_threadsafe(exchange.books.move, "BTC/USDT", "49000", exchange.served.now_ms())
    assert execute(desk, exchange).counts.filled == 1
    row = last_reports(desk.kafka, desk.account)["0000000000000007"]
    assert row["state"] == "filled" and row["maker"] and row["filled"] == "0.01234000"
    assert len([r for r in exchange.served.requests if r[0] == "order"]) == 1


def test_what_a_market_forbids_is_refused_with_a_reason(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1, quantity="0.000001"), desk.approve(2, quantity="0.00001"), desk.approve(3, "DOGE/USDT"),
               desk.approve(4, quantity="9000000.5"), desk.approve(5, order_type="stop"))
    outcome = execute(desk, exchange)
    assert outcome.counts.refusals == {"quantity_min": 1, "notional_min": 1, "bad_symbol": 1, "quantity_max": 1, "order_type": 1}
    assert {r["state"] for r in last_reports(desk.kafka, desk.account).values()} == {"rejected"}
    assert not [r for r in exchange.served.requests if r[0] == "order"]


def test_an_old_order_is_not_sent(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1, ts_ns=time.time_ns() - 700 * 10**9), desk.approve(2))
    outcome = execute(desk, exchange)
    assert (outcome.counts.expired, outcome.counts.sent) == (1, 1)
    last = last_reports(desk.kafka, desk.account)
    assert [last[f"{i:016x}"]["state"] for i in (1, 2)] == ["expired", "filled"]
    assert last["0000000000000001"]["ts_sent_ns"] == 0
    assert list(exchange.books.orders) == ["0000000000000002"]


def test_the_time_of_a_recorded_stretch_is_that_of_its_beats(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1, ts_ns=DAY_2021_NS), desk.approve(2, ts_ns=DAY_2021_NS - 700 * 10**9))
    desk.beat(DAY_2021_NS + 10**9)
    outcome = execute(desk, exchange)
    assert (outcome.counts.sent, outcome.counts.expired) == (1, 1)
    row = last_reports(desk.kafka, desk.account)["0000000000000001"]
    assert DAY_2021_NS <= row["ts_event_ns"] < DAY_2021_NS + 600 * 10**9


def test_an_order_that_never_arrived_and_grew_old_meanwhile_is_expired(desk: Desk, exchange: Exchange) -> None:
    exchange.cues.add(["order:drop_before"])
    desk.write(desk.approve(1))
    outcome = execute(desk, exchange, Pace(age_s_max=3.0, guard_s=0.5, recv_window_s=3.0, margin_s=0.1, poll_s_min=0.02, poll_s_max=0.1))
    assert (outcome.counts.doubted, outcome.counts.expired, outcome.counts.resent) == (1, 1, 0)
    assert not exchange.books.orders


def _damaged(desk: Desk, how: str) -> list[bytes]:
    good = [desk.approve(1), desk.approve(2)]
    if how == "quantity":
        return [*good, desk.approve(3, wrong=True), desk.approve(4)]
    if how == "gap":
        desk.approve(3)
        return [*good, desk.approve(4)]
    if how == "twice":
        other = Desk(desk.kafka)
        other.approve(1)
        return [*good, other.approve(9)]
    if how == "begin":
        return [good[1]]
    return [*good, b'{"approval_no": 3}' if how == "columns" else b"hello"]


@pytest.mark.parametrize(("how", "sent", "said"), [
    ("quantity", 2, "approval 3 does not follow from the one before it"),
    ("gap", 2, "approval 4 comes after approval 2: those between are missing"),
    ("twice", 2, "approval 2 is there twice with different contents"),
    ("begin", 0, "begins with approval 2 and not with 1"),
    ("columns", 2, "a record cannot be read: Object missing required field `ts_event_ns`"),
    ("text", 2, "a record cannot be read"),
])
def test_an_approval_that_does_not_follow_stops_everything(how: str, sent: int, said: str, desk: Desk, exchange: Exchange) -> None:
    payloads = _damaged(desk, how)
    good = 0 if how == "begin" else 2
    desk.write(*payloads[:good])
    assert execute(desk, exchange).counts.sent == sent if good else True
    desk.write(*payloads[good:])
    outcome = execute(desk, exchange)
    assert said in outcome.broken and f"offset {good}" in outcome.broken and outcome.counts.sent == 0
    assert len(exchange.books.orders) == good
    dead = read_topic(desk.kafka, "dead_letter")
    assert dead[-1]["topic"] == desk.kafka.prefix + "approved" and dead[-1]["offset"] == good and said in dead[-1]["error"]


def test_a_message_that_someone_looked_at_can_be_left_out(desk: Desk, exchange: Exchange) -> None:
    first, second = desk.approve(1), desk.approve(2)
    desk.write(first, b"noise", second)
    assert execute(desk, exchange).broken
    outcome = execute(desk, exchange, skip=frozenset({1}))
    assert not outcome.broken and outcome.counts.filled == 2


def test_a_record_that_was_written_twice_is_one_order(desk: Desk, exchange: Exchange) -> None:
    payloads = [desk.approve(i) for i in range(1, 5)]
    desk.write(*payloads[:3], *payloads[1:], payloads[0])
    outcome = execute(desk, exchange)
    assert (outcome.counts.approvals, outcome.counts.duplicates, outcome.counts.sent) == (4, 3, 4)
    assert len(exchange.books.orders) == 4


def test_another_run_has_a_chain_of_its_own_and_the_same_intent_is_not_sent_again(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1), desk.approve(2))
    later = Desk(desk.kafka, run="r2")
    later.write(later.approve(2), later.approve(3))
    outcome = execute(desk, exchange)
    assert (outcome.counts.approvals, outcome.counts.sent, outcome.counts.duplicates) == (4, 3, 1)
    # the first run's pipeline is still there: two trade one account
    desk.write(desk.approve(4))
    assert 'run "r1" approves again after run "r2" took over' in execute(desk, exchange).broken
    assert "0000000000000004" not in exchange.books.orders


def test_an_account_takes_its_own_approvals_only(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1))
    other = Desk(desk.kafka, account="other")
    other.write(other.approve(2))
    assert execute(desk, exchange).counts.sent == 1
    assert execute(other, exchange).counts.sent == 1
    assert list(last_reports(desk.kafka, "other")) == ["0000000000000002"]


@pytest.mark.parametrize("seed", range(3))
def test_two_processes_at_once_send_each_order_once_and_the_older_steps_down(seed: int, desk: Desk, exchange: Exchange) -> None:
    chance = random.Random(seed)
    exchange.cues.add([chance.choice(("order:slow:0.05", "order:drop_after", "ok", "order:late:0.5")) for _ in range(6)])

    async def both() -> list[Any]:
        older, newer = executor_of(desk, exchange), executor_of(desk, exchange)
        first = asyncio.create_task(older.run())
        await until(lambda: older.writer != (0, ""))
        second = asyncio.create_task(newer.run())
        if chance.random() < 0.5:
            await until(lambda: newer.writer != (0, ""))
        for k in range(1, 7):
            await asyncio.to_thread(desk.write, desk.approve(k))
            await asyncio.sleep(chance.random() * 0.05)
        await until(lambda: newer.counts.approvals == 6 and not newer._tasks)
        newer.stop()
        await second
        older.stop()
        return await asyncio.gather(first, return_exceptions=True)

    [ended] = asyncio.run(both())
    assert isinstance(ended, Superseded)
    assert sorted(exchange.books.orders) == [f"{k:016x}" for k in range(1, 7)]
    assert not exchange.served.duplicates


def test_the_exchange_is_killed_and_comes_back_with_its_books(desk: Desk, tmp_path: Any) -> None:
    books = tmp_path / "books.jsonl"
    exchange = Exchange(books)
    port = int(exchange.url.rpartition(":")[2])
    desk.write(*(desk.approve(k, order_type="limit", limit_price="49000") for k in range(1, 4)))

    async def while_it_is_away() -> Outcome:
        executor = executor_of(desk, exchange)
        running = asyncio.create_task(executor.run())
        await until(lambda: executor.counts.reports == 6)
        await asyncio.to_thread(exchange.stop)
        with books.open("ab") as file:
            file.write(b'{"do": "fill", "client')  # the line that the kill cut off
        desk.write(desk.approve(4))
        await asyncio.sleep(0.3)
        again = await asyncio.to_thread(Exchange, books, lambda label, order: None, port)
        try:
            assert len(again.books.orders) == 3
            again.loop.call_soon_threadsafe(again.books.move, "BTC/USDT", "48000", again.served.now_ms())
            await until(lambda: executor.counts.filled == 4)
            executor.stop()
            assert sorted(again.books.orders) == [f"{k:016x}" for k in range(1, 5)] and not again.served.duplicates
            return await running
        finally:
            await asyncio.to_thread(again.stop)

    assert asyncio.run(while_it_is_away()).orders_open == 0


def test_a_dry_run_sends_and_writes_nothing(desk: Desk) -> None:
    desk.write(desk.approve(1), desk.approve(2, ts_ns=time.time_ns() - 700 * 10**9))
    told: list[tuple[int, str]] = []
    outcome = execute(desk, None, told=lambda approval, what: told.append((int(approval.row["order_id"]), what)))
    assert [what.split(":")[0] for _, what in told] == ["would be sent", "too old"]
    assert outcome.counts.sent == 0 and read_topic(desk.kafka, "reports") == []


def test_a_report_that_cannot_be_read_is_a_dead_letter_and_stops_nothing(desk: Desk, exchange: Exchange) -> None:
    from confluent_kafka import Producer

    from sinks.kafka import partition_of
    desk.write(desk.approve(1))
    producer = Producer({"bootstrap.servers": desk.kafka.servers})
    count = len(producer.list_topics(desk.kafka.prefix + "reports", timeout=10).topics[desk.kafka.prefix + "reports"].partitions)
    producer.produce(desk.kafka.prefix + "reports", json.dumps({"state": "filled"}).encode(), desk.account, partition_of(desk.account, count or 4))
    assert producer.flush(20) == 0
    assert execute(desk, exchange).counts.filled == 1
    assert [r["topic"] for r in read_topic(desk.kafka, "dead_letter")] == [desk.kafka.prefix + "reports"]


