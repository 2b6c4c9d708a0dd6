"""What the tests of the execute flow share: approvals as a desk would write them, a fake exchange in a thread, children to kill.

The chain of digests is computed here a second time, from its definition alone.
"""

import asyncio
import base64
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.codec_json import money_text
from schemas.config_live import KafkaConfig
from schemas.ids import id_text, name_id
from schemas.messages import headers
from schemas.tables_desk import ORDER_TYPES
from schemas.tables_live import APPROVED, REQUESTS
from sinks.fake_books import Books
from sinks.fake_cues import Cues
from sinks.fake_exchange import FakeExchange
from sinks.kafka import partition_of

TABLES = ("approved", "reports", "beats", "dead_letter")
PRICES = {"BTC/USDT": "50000", "ETH/USDT": "2500"}
DAY_2021_NS = 1_617_400_000_000_000_000


def make_topics(kafka: KafkaConfig, partitions: int = 2) -> None:
    """The topics on a real broker; the mock cluster makes them on use, with four partitions."""
    if not os.environ.get("PENSTOCK_TEST_KAFKA"):
        return
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    wanted = [NewTopic(kafka.prefix + t, 1 if t in ("approved", "dead_letter") else partitions, 1) for t in TABLES]
    for future in admin.create_topics(wanted).values():
        future.result(20)


@dataclass
class Desk:
    """Writes approvals. Time is the machine's, unless `ts_ns` is given."""

    kafka: KafkaConfig
    account: str = "paper"
    run: str = "r1"
    digest: bytes = bytes(32)
    number: int = 0
    producer: Any = None
    written: list[dict[str, Any]] = field(default_factory=list)

    def approve(self, order_id: int, symbol: str = "BTC/USDT", side: str = "buy", quantity: str = "0.01", order_type: str = "market",
                limit_price: str = "0", ts_ns: int | None = None, reference: str = "50000", wrong: bool = False,
                request: str = "place") -> bytes:
        """The next approval, not yet written; `wrong` damages its quantity after the digest was made."""
        self.number += 1
        units = [int(float(v) * 1e8 + 0.5) for v in (quantity, limit_price, reference)]
        when = time.time_ns() if ts_ns is None else ts_ns
        side_code = {"buy": 1, "sell": 2}[side]
        strategy = "momentum"
        record = struct.pack(
            "<qqQQqqQqqqqqqq", when, self.number, name_id(symbol), name_id(strategy), self.number, self.number, order_id,
            REQUESTS.index(request), ORDER_TYPES.index(order_type), side_code, 0, *units)
        self.digest = blake3(self.digest + record).digest()
        row = {
            "ts_event_ns": when, "seq": self.number, "symbol": symbol, "strategy": strategy, "approval_no": self.number,
            "decision_no": self.number, "order_id": id_text(order_id), "request": request, "order_type": order_type, "side": side,
            "reduce_only": False,
            "quantity": money_text(units[0] + (1 if wrong else 0)), "limit_price": money_text(units[1]), "reference": money_text(units[2]),
            **{f"digest_{k}": id_text(int.from_bytes(self.digest[8 * k : 8 * k + 8], "little")) for k in range(4)},
        }
        self.written.append(row)
        return json.dumps(row).encode()

    def write(self, *payloads: bytes, run: str | None = None, written_ms: int = 0) -> None:
        """Put messages on the approved topic, now or as of another time."""
        if self.producer is None:
            self.producer = Producer({"bootstrap.servers": self.kafka.servers, "linger.ms": 0})
        for payload in payloads:
            self.producer.produce(self.kafka.prefix + "approved", payload, self.account, 0,
                                  headers=headers(APPROVED, "json", self.run if run is None else run), timestamp=written_ms)
        assert self.producer.flush(20) == 0

    def beat(self, ts_ns: int) -> None:
        """One heartbeat for all symbols."""
        assert self.producer is not None
        row = {"ts_event_ns": ts_ns, "seq": -1, "symbol": ""}
        self.producer.produce(self.kafka.prefix + "beats", json.dumps(row).encode(), partition=0)
        assert self.producer.flush(20) == 0


def read_topic(kafka: KafkaConfig, table: str, account: str | None = None) -> list[dict[str, Any]]:
    """All rows of a JSON topic, of one account, each with its writer."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": "reader", "enable.partition.eof": True})
    found: list[dict[str, Any]] = []
    try:
        parts = consumer.list_topics(kafka.prefix + table, timeout=10).topics[kafka.prefix + table].partitions
        chosen = [partition_of(account, len(parts))] if account and table == "reports" else sorted(parts)
        consumer.assign([TopicPartition(kafka.prefix + table, p, 0) for p in chosen])
        left = set(chosen)
        while left:
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                left.discard(message.partition())
            elif account is None or (message.key() or b"").decode() == account:
                found.append({**json.loads(message.value()), "writer_": dict(message.headers() or []).get("writer", b"").decode()})
    finally:
        consumer.close()
    return found


def last_reports(kafka: KafkaConfig, account: str) -> dict[str, dict[str, Any]]:
    """Each order's last report; its reports are numbered 1, 2, 3, … and its totals never fall."""
    last: dict[str, dict[str, Any]] = {}
    for row in read_topic(kafka, "reports", account):
        before = last.get(row["order_id"])
        number = 0 if before is None else before["report_no"]
        assert row["report_no"] in (number, number + 1), (before, row)
        assert before is None or float(row["filled"]) >= float(before["filled"])
        last[row["order_id"]] = row
    return last


class Exchange:
    """A fake exchange in a thread of its own."""

    def __init__(self, path: Path | None = None, hook: Callable[[str, str], None] = lambda label, order: None, port: int = 0) -> None:
        self.books = Books(PRICES, path)
        self.cues = Cues()
        self.loop = asyncio.new_event_loop()
        self.served = FakeExchange(self.books, self.cues, hook=hook)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self.served.start(port=port), self.loop).result(10)

    def stop(self) -> None:
        async def end() -> None:
            await self.served.stop()
            left = asyncio.all_tasks() - {asyncio.current_task()}  # requests that are never answered
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.books.close()


def totals(books: Books, client_id: str) -> tuple[str, str, str]:
    """Filled, notional and fee of an order in the books, as reports write them."""
    order = books.orders[client_id]
    return tuple(money_text(int(v * 100_000_000)) for v in (order.filled, order.quote, order.fee))  # type: ignore[return-value]


class Nursery:
    """A process that has imported everything and forks an executor on demand: a child in some ten milliseconds, to be killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.execute_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        cwd=Path(__file__).parents[1])
        self.pid = 0

    def begin(self, **given: Any) -> int:
        """Start a child; its process id."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(json.dumps(given).encode()).decode() + "\n")
        self.process.stdin.flush()
        self.pid = int(self.process.stdout.readline())
        return self.pid

    def end(self) -> int:
        """Wait for it; its exit code, negative for a signal."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        """kill -9, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()  # what it waits for
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
