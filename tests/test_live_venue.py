"""A trading hour with a venue: ticks → pipeline → approved → execute → exchange → reports → pipeline, and its replay."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.parity_records import KafkaRecorded
from research.parity_runs import kafka_parity
from research.running import Running
from schemas.config import Config
from schemas.config_live import KafkaConfig, LiveConfig
from schemas.frame import Frame
from schemas.tables_desk import FILLS, POSITIONS
from schemas.tables_live import APPROVED
from tests.children import COMMAND, ROOT, running
from tests.execute_setup import Exchange, last_reports
from tests.live_runs import STRATEGIES, command, ingest, market, ready

PACE = 300.0


class Renamed:
    """The simulated market under names that an exchange would use."""

    def __init__(self, symbols: int = 3) -> None:
        self.market = market(symbols)
        self.symbols = tuple(f"{name}/USDT" for name in self.market.symbols)
        self.kinds, self.data_hash, self.rows_total = self.market.kinds, self.market.data_hash + "renamed", self.market.rows_total
        self.ts_range = self.market.ts_range

    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]:
        for frame in self.market.frames(batch_rows, skip_rows):
            yield replace(frame, symbols=self.symbols)


def first_prices(source: Renamed) -> dict[str, str]:
    rows = next(source.frames(2_000)).tables["trades"]
    return {name: f"{float(rows['price'][rows['symbol'] == k][0]):.4f}" for k, name in enumerate(source.symbols)}


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    monkeypatch.setattr("tests.execute_setup.PRICES", first_prices(Renamed()))
    made = Exchange(tmp_path / "venue.jsonl")
    yield made
    made.stop()


def test_an_hour_with_a_venue_is_its_replay_and_the_books_agree(kafka: KafkaConfig, exchange: Exchange, tmp_path: Path) -> None:
    from research.replaying import make_plan, warm_up
    ready(kafka)
    source = Renamed()
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "kafka": {"servers": kafka.servers, "prefix": kafka.prefix},
        "venue": {"name": "fake", "age_s_max": 3600, "recv_window_s": 2, "options": {"url": exchange.url}},
    }))
    live = LiveConfig(state_dir=str(tmp_path), snapshot_s=0.5)
    made = make_plan(Config(kafka=kafka, live=live), STRATEGIES)
    warm_up(made)
    command(kafka)
    stop = threading.Event()

    def feed() -> None:
        ingest(kafka, source, pace=PACE)
        deadline, calm = time.monotonic() + 90, 0
        while calm < 6 and time.monotonic() < deadline:  # the last orders have to be approved, and to come back, before it ends
            time.sleep(0.5)
            states = {k: v["state"] for k, v in last_reports(kafka, "paper").items()}
            asked = KafkaRecorded(kafka, "live").rows(APPROVED, source.symbols, made.strategy_names)
            ended = all(s in ("filled", "cancelled", "rejected", "expired") for s in states.values())
            calm = calm + 1 if states and ended and len(states) == len(np.unique(asked["order_id"])) else 0
        stop.set()

    thread = threading.Thread(target=feed, daemon=True)
    words = [*COMMAND, "execute", "--config", str(config), "--json"]
    with running(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        thread.start()
        Running(made, "live", external=True, stop=stop).go()
        thread.join()
        child.terminate()
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err[-2000:]
    said = json.loads(out)
    recorded = KafkaRecorded(kafka, "live")
    symbols = recorded.symbols(source.symbols)
    approved = recorded.rows(APPROVED, symbols, made.strategy_names)
    fills = recorded.rows(FILLS, symbols, made.strategy_names)
    positions = recorded.rows(POSITIONS, symbols, made.strategy_names)
    assert len(np.unique(approved["order_id"])) > 3 and len(fills) >= 3 and said["sent"] == len(np.unique(approved["order_id"]))
    for code, name in enumerate(symbols):
        mine = sum(int(positions[(positions["symbol"] == code) & (positions["strategy"] == k)]["quantity"][-1:].sum())
                   for k in range(len(made.strategy_names)))
        assert mine == held(exchange, name), name
    result = kafka_parity(kafka, "live")
    assert result["ok"] and result["compared"]["approved"] == len(approved), result["difference"]


def held(exchange: Any, symbol: str) -> int:
    """What the venue's books say was bought less what was sold, in 1e-8."""
    total = Decimal(0)
    for order in exchange.books.orders.values():
        if order.market == symbol.replace("/", ""):
            total += order.filled if order.side.lower() == "buy" else -order.filled
    return int(total * 10**8)


