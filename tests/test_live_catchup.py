"""The execute flow comes back after ten minutes: what grew too old meanwhile is reported and counted, and never sent."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from research.parity_records import KafkaRecorded
from research.parity_runs import kafka_parity
from research.replaying import make_plan, warm_up
from research.running import Running
from schemas.config import Config
from schemas.config_live import KafkaConfig, LiveConfig, VenueConfig
from schemas.ids import id_text
from schemas.tables_desk import EXPIRED, FILLED, ORDERS, POSITIONS
from schemas.tables_live import APPROVED, CANCEL_REQUEST
from sinks.execute import Executor, Outcome
from sinks.execute_clock import MarketClock
from sinks.execute_log import KafkaLog
from sinks.execute_order import Pace
from sinks.venue_open import open_venue
from tests.children import COMMAND, ROOT, running
from tests.execute_setup import DAY_2021_NS, Desk, Exchange, last_reports, make_topics
from tests.live_runs import STRATEGIES, command, ingest, ready
from tests.test_live_venue import Renamed, first_prices, held

S = 1_000_000_000
SYMBOLS = 6
AWAY_S = 600
AGE_S_MAX = 240.0
PACE = Pace(age_s_max=AGE_S_MAX, guard_s=0.5, recv_window_s=2.0, margin_s=0.1, poll_s_min=0.02, poll_s_max=0.1)


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    monkeypatch.setattr("tests.execute_setup.PRICES", {**first_prices(Renamed(SYMBOLS)), "BTC/USDT": "50000"})
    made = Exchange(tmp_path / "venue.jsonl")
    yield made
    made.stop()


def expired_total() -> float:
    return REGISTRY.get_sample_value("penstock_orders_expired_total") or 0.0


@pytest.mark.parametrize("time_of", ["wall", "beats"])
def test_approvals_that_piled_up_for_ten_minutes(time_of: str, kafka: KafkaConfig, exchange: Exchange) -> None:
    """By the machine's clock, which is ten minutes on when it comes back; and by the heartbeats of a stretch of 2021."""
    make_topics(kafka)
    desk, ahead_ns = Desk(kafka), [0]
    start_ns = time.time_ns() if time_of == "wall" else DAY_2021_NS

    def run() -> Outcome:
        venue = open_venue(VenueConfig(name="fake", options={"url": exchange.url}, recv_window_s=PACE.recv_window_s), False)
        clock = MarketClock(lambda: time.time_ns() + ahead_ns[0])
        return asyncio.run(Executor(KafkaLog(kafka, "paper"), venue, "paper", clock, PACE).run(drain=True))

    desk.write(desk.approve(1, ts_ns=start_ns), desk.approve(2, ts_ns=start_ns))
    if time_of == "beats":
        desk.beat(start_ns)
    before = run()
    assert (before.counts.sent, before.counts.expired) == (2, 0)

    # it is away, and the desk goes on: an approval every ten seconds, some of which wait for longer than an order may be old
    waited_s = {number: AWAY_S - 10 * (number - 3) for number in range(3, 63) if not 100 < AWAY_S - 10 * (number - 3) < 250}
    for number, age in waited_s.items():
        when_ns = start_ns + (AWAY_S - age) * S
        desk.write(desk.approve(number, ts_ns=when_ns), written_ms=when_ns // 1_000_000 if time_of == "wall" else 0)
    if time_of == "beats":
        desk.beat(start_ns + AWAY_S * S)
    else:
        ahead_ns[0] = AWAY_S * S
    old = [f"{number:016x}" for number, age in waited_s.items() if age > AGE_S_MAX]
    young = [f"{number:016x}" for number, age in waited_s.items() if age <= AGE_S_MAX]
    assert len(old) == 36 and len(young) == 10
    counted = expired_total()
    after = run()
    assert (after.counts.expired, after.counts.sent, after.counts.filled, after.orders_open) == (len(old), len(young), len(young), 0)
    assert expired_total() - counted == len(old)
    last = last_reports(kafka, "paper")
    assert {last[order]["state"] for order in old} == {"expired"} and {last[order]["ts_sent_ns"] for order in old} == {0}
    assert {last[order]["state"] for order in young} == {"filled"}
    assert sorted(exchange.books.orders) == ["0000000000000001", "0000000000000002", *sorted(young)]
    sent = [order for kind, order in exchange.served.requests if kind == "order"]
    assert not set(sent) & set(old) and not exchange.served.duplicates
    assert run().counts.expired == 0  # reported once


def test_a_pipeline_without_its_execute_flow_and_what_the_desk_makes_of_it(kafka: KafkaConfig, exchange: Exchange, tmp_path: Path) -> None:
    """A trading hour whose orders nobody sent; then execute comes, and the pipeline reads what became of them."""
    ready(kafka)
    live = LiveConfig(state_dir=str(tmp_path), snapshot_s=0.5)
    made = make_plan(Config(kafka=kafka, live=live), (*STRATEGIES, "ema_cross"))
    warm_up(made)
    command(kafka)
    source = Renamed(SYMBOLS)
    ingest(kafka, source)
    Running(made, "live", external=True, once=True).go()
    recorded = KafkaRecorded(kafka, "live")
    symbols = recorded.symbols(source.symbols)
    approved = recorded.rows(APPROVED, symbols, made.names)
    taken_back = set(approved["order_id"][approved["request"] == CANCEL_REQUEST].tolist())
    waiting = np.sort(approved[~np.isin(approved["order_id"], list(taken_back))], order="ts_event_ns")
    times = waiting["ts_event_ns"]
    cut = 1 + int(np.argmax(np.diff(times)))  # in the widest gap, so that a slow machine changes nothing
    assert taken_back and times[cut] - times[cut - 1] >= 120 * S
    old, young = ({id_text(int(order)) for order in part["order_id"]} for part in (waiting[:cut], waiting[cut:]))
    latest_ns = max(int(f.frontier_ns) for f in source.frames(100_000))
    age_s = (latest_ns - int(times[cut - 1])) / S - 1  # the old ones are too old already, and can only grow older
    desk = Desk(kafka)
    desk.write()
    desk.beat(latest_ns)

    said = executed(kafka, exchange, tmp_path, age_s)
    assert (said["expired"], said["sent"], said["cancelled"], said["open"]) == (len(old), len(young), len(taken_back), 0)
    last = last_reports(kafka, "paper")
    assert {order for order, row in last.items() if row["state"] == "expired"} == old
    assert {order for kind, order in exchange.served.requests if kind == "order"} == young

    Running(made, "live", external=True, once=True).go()
    recorded = KafkaRecorded(kafka, "live")
    orders, positions = recorded.rows(ORDERS, symbols, made.names), recorded.rows(POSITIONS, symbols, made.names)
    ends = {id_text(int(r["order_id"])): int(r["state"]) for r in orders}
    assert all(ends[order] == EXPIRED for order in old) and all(ends[order] == FILLED for order in young)
    assert len(ends) >= len(old) + len(young) + len(taken_back)
    for code, name in enumerate(symbols):
        mine = sum(int(positions[(positions["symbol"] == code) & (positions["strategy"] == k)]["quantity"][-1:].sum())
                   for k in range(len(made.strategy_names)))
        assert mine == held(exchange, name), name
    assert kafka_parity(kafka, "live")["ok"]


def executed(kafka: KafkaConfig, exchange: Exchange, folder: Path, age_s_max: float) -> Any:
    """What `penstock execute --drain` says of itself."""
    config = folder / "c.yaml"
    config.write_text(json.dumps({
        "kafka": {"servers": kafka.servers, "prefix": kafka.prefix},
        "venue": {"name": "fake", "age_s_max": age_s_max, "recv_window_s": 2, "options": {"url": exchange.url}},
    }))
    words = [*COMMAND, "execute", "--config", str(config), "--drain", "--json"]
    with running(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err[-2000:]
    return json.loads(out)
