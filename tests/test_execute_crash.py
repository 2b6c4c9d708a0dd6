"""kill -9 at every step of the order path: exactly one order at the venue per intent, none lost, reports equal to its books.

By default a few seeds a step; `PENSTOCK_CRASH_SEEDS=50 python -m pytest -q tests/test_execute_crash.py` runs fifty.
"""

import os
import queue
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.config_live import KafkaConfig
from tests.execute_setup import Desk, Exchange, Nursery, last_reports, make_topics, totals
from tests.kafka_broker import servers  # noqa: F401

SEEDS = int(os.environ.get("PENSTOCK_CRASH_SEEDS", "2"))
AT_ONCE = 8
OWN_STEPS = ("read", "verified", "asked", "claim_given", "claimed", "before_send", "answered", "report_given", "reported", "followed",
             "passed")
"""Steps at which the executor kills itself."""
VENUE_STEPS = ("arrived", "booked")
"""The request is at the venue and nothing is done yet; the order is booked and the answer not sent: the venue's side kills."""
PACE = {"age_s_max": 600.0, "guard_s": 0.2, "recv_window_s": 0.9, "margin_s": 0.1, "poll_s_min": 0.02, "poll_s_max": 0.1}
CUES = ("ok", "ok", "ok", "order:slow:0.05", "order:late:0.7", "order:late:0.5", "order:late:1.5", "order:hang_before:0.4", "order:hang_after:0.4",
        "order:drop_before", "order:drop_after", "order:status_before:500", "order:status_after:503", "order:hide:0.08", "order:parts:3",
        "order:status_before:502", "ask:drop_before", "ask:status_before:503", "ask:slow:0.1", "order:reject")


@pytest.fixture(scope="module")
def nurseries() -> Iterator[queue.SimpleQueue[Nursery]]:
    """One per case at a time: the cases wait for time to pass more than they work."""
    made = [Nursery() for _ in range(min(AT_ONCE, SEEDS))]
    free: queue.SimpleQueue[Nursery] = queue.SimpleQueue()
    for one in made:
        free.put(one)
    yield free
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared(servers: str) -> KafkaConfig:  # noqa: F811
    kafka = KafkaConfig(servers=servers, prefix=f"crash{os.getpid()}.")
    make_topics(kafka)
    return kafka


@pytest.mark.parametrize("step", [*OWN_STEPS, *VENUE_STEPS])
def test_killed_at_a_step_there_is_exactly_one_order_per_intent(step: str, shared: KafkaConfig,
                                                                nurseries: "queue.SimpleQueue[Nursery]") -> None:
    def case(seed: int) -> bool:
        nursery = nurseries.get()
        try:
            return _one(step, seed, shared, nursery)
        finally:
            nurseries.put(nursery)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        reached = sum(pool.map(case, range(SEEDS)))
    # a seed may have no third claim to be killed at; most do reach their step
    assert reached >= SEEDS / 2


def _one(step: str, seed: int, kafka: KafkaConfig, nursery: Nursery) -> bool:
    """One seed; whether the kill came to be."""
    chance = random.Random(f"{step} {seed}")
    account = f"{step}-{seed}"
    armed = {"at": "", "left": 0}

    def hook(label: str, order: str) -> None:
        if label == armed["at"]:
            armed["left"] -= 1
            if armed["left"] == 0:
                nursery.kill()

    exchange = Exchange(hook=hook)
    desk = Desk(kafka, account)
    try:
        exchange.cues.add([chance.choice(CUES) for _ in range(chance.randint(0, 8))])
        wanted = [chance.getrandbits(63) for _ in range(chance.randint(1, 6))]
        payloads, dropped = [], set()
        for i in wanted:
            size = f"0.{chance.randint(1000, 99999):05d}"
            if chance.random() < 0.2:  # one that rests, and is cancelled
                payloads += [desk.approve(i, quantity=size, order_type="limit", limit_price="40000"),
                             desk.approve(i, quantity="0", request="cancel")]
                dropped.add(f"{i:016x}")
            else:
                payloads.append(desk.approve(i, chance.choice(("BTC/USDT", "ETH/USDT")), chance.choice(("buy", "sell")), size))
        if chance.random() < 0.3:
            payloads.insert(chance.randint(1, len(payloads)), payloads[0])  # a pipeline that was killed writes again what it wrote
        desk.write(*payloads)
        kills = [(step, chance.randint(1, 3) if len(wanted) > 2 else 1)]
        kills += [(chance.choice((*OWN_STEPS, *VENUE_STEPS)), chance.randint(1, 3)) for _ in range(chance.randint(0, 2))]
        codes = []
        for at, nth in [*kills, ("", 0)]:
            armed.update({"at": at if at in VENUE_STEPS else "", "left": nth})
            nursery.begin(servers=kafka.servers, prefix=kafka.prefix, account=account, url=exchange.url, pace=PACE, kill_at=at, kill_nth=nth)
            codes.append(nursery.end())
        assert set(codes) <= {0, -signal.SIGKILL} and codes[-1] == 0, codes
        _agree(kafka, account, exchange, wanted, dropped)
        return codes[0] != 0
    finally:
        exchange.stop()


def _agree(kafka: KafkaConfig, account: str, exchange: Exchange, wanted: list[int], dropped: set[str]) -> None:
    """The venue has each intent once, or refused it, or it was cancelled in time; the reports say what its books say."""
    last = last_reports(kafka, account)
    ids = [f"{i:016x}" for i in wanted]
    assert sorted(last) == sorted(ids)
    refused = {i for i, row in last.items() if row["state"] == "rejected"}
    assert not exchange.served.duplicates
    assert set(ids) - refused - dropped <= set(exchange.books.orders) <= set(ids) - refused
    assert all(last[i]["state"] == "cancelled" for i in dropped - refused)
    for client_id, order in exchange.books.orders.items():
        row = last[client_id]
        assert (row["state"], order.status) in (("filled", "FILLED"), ("cancelled", "CANCELED")), row
        assert (row["filled"], row["notional"], row["fee"]) == totals(exchange.books, client_id)
