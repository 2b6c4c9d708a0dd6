"""Cancelling: what is open of an order is cancelled, one that was not sent never is, and one that was filled stays filled."""

import asyncio
from collections.abc import Iterator

import pytest

from schemas.config_live import KafkaConfig
from sinks.execute import Outcome
from tests.execute_running import execute, executor_of, until
from tests.execute_setup import Desk, Exchange, last_reports, make_topics, read_topic, totals
from tests.kafka_broker import kafka, servers  # noqa: F401

ONE = f"{1:016x}"


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    yield made
    made.stop()


@pytest.fixture
def desk(kafka: KafkaConfig) -> Desk:  # noqa: F811
    make_topics(kafka)
    return Desk(kafka)


def cancel(desk: Desk, order_id: int = 1) -> bytes:
    return desk.approve(order_id, quantity="0", request="cancel")


def test_a_resting_order_is_cancelled_at_once(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1, order_type="limit", limit_price="40000"))

    async def rest_then_cancel() -> Outcome:
        executor = executor_of(desk, exchange)
        running = asyncio.create_task(executor.run())
        await until(lambda: exchange.books.orders.keys() == {ONE} and executor.counts.reports == 2)
        await asyncio.to_thread(desk.write, cancel(desk))
        await until(lambda: executor.counts.cancelled == 1)
        executor.stop()
        return await running

    outcome = asyncio.run(rest_then_cancel())
    assert (outcome.orders_open, outcome.counts.cancels) == (0, 1)
    assert exchange.books.orders[ONE].status == "CANCELED"
    assert [r["state"] for r in read_topic(desk.kafka, "reports", "paper")][-2:] == ["accepted", "cancelled"]
    # read again from the beginning, it is still cancelled once
    assert execute(desk, exchange).counts.reports == 0


def test_an_order_that_was_not_sent_yet_never_is(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1), cancel(desk), desk.approve(2))
    outcome = execute(desk, exchange)
    assert (outcome.counts.sent, outcome.counts.cancelled, outcome.counts.filled) == (1, 1, 1)
    assert list(exchange.books.orders) == [f"{2:016x}"]
    assert last_reports(desk.kafka, "paper")[ONE]["state"] == "cancelled"


@pytest.mark.parametrize(("trouble", "held"), [("order:drop_before", False), ("order:drop_after", True)])
def test_an_order_in_doubt_is_settled_first(trouble: str, held: bool, desk: Desk, exchange: Exchange) -> None:
    exchange.cues.add([trouble])
    desk.write(desk.approve(1, order_type="limit", limit_price="40000"))

    async def doubt_then_cancel() -> Outcome:
        executor = executor_of(desk, exchange)
        running = asyncio.create_task(executor.run())
        await until(lambda: executor.counts.doubted == 1)
        await asyncio.to_thread(desk.write, cancel(desk))
        await until(lambda: executor.counts.cancelled == 1)
        executor.stop()
        return await running

    assert asyncio.run(doubt_then_cancel()).orders_open == 0
    assert [o.status for o in exchange.books.orders.values()] == ["CANCELED"] * held
    assert len([r for r in exchange.served.requests if r[0] == "order"]) == 1


def test_a_part_that_was_filled_stays_filled(desk: Desk, exchange: Exchange) -> None:
    exchange.cues.add(["order:parts:500"])
    desk.write(desk.approve(1, quantity="1"))

    async def part_then_cancel() -> Outcome:
        executor = executor_of(desk, exchange)
        running = asyncio.create_task(executor.run())
        await until(lambda: executor.counts.reports >= 2)
        exchange.cues.add(["cancel:status_before:503"])
        await asyncio.to_thread(desk.write, cancel(desk))
        await until(lambda: executor.counts.cancelled == 1)
        executor.stop()
        return await running

    asyncio.run(part_then_cancel())
    row = last_reports(desk.kafka, "paper")[ONE]
    assert row["state"] == "cancelled" and 0 < float(row["filled"]) < 1
    assert (row["filled"], row["notional"], row["fee"]) == totals(exchange.books, ONE)


def test_cancelling_what_is_filled_or_was_never_there_does_nothing(desk: Desk, exchange: Exchange) -> None:
    desk.write(desk.approve(1))
    execute(desk, exchange)
    desk.write(cancel(desk), cancel(desk, 99))
    outcome = execute(desk, exchange)
    assert (outcome.counts.cancels, outcome.counts.reports, outcome.broken) == (2, 0, "")
    assert exchange.books.orders[ONE].status == "FILLED"
