"""Kafka → rows → 1-minute bars, one core, against a bare consumer loop, Bytewax's KafkaSource and Quix Streams."""

import contextlib
import os
import random
import statistics
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench._harness import Absent, Result, peer, timed
from brokers.partitions import topic_of
from operators.market.bars import Bars
from schemas.codec import encode_ipc, to_arrow
from schemas.config_live import KafkaConfig
from schemas.frame import Frame
from schemas.messages import headers
from schemas.tables import TRADES, Rows
from sources.kafka_batch import BatchReader, Position
from sources.kafka_rows import Decoder, Interner

ROWS = 500_000
QUIX_ROWS = 50_000
"""Quix Streams reads the first so many of the same messages: it would need a minute for all of them."""
BROKER = "PENSTOCK_TEST_KAFKA"
SYMBOLS = tuple(f"SYM{i}-USD" for i in range(10))
PARTITIONS = 2
START_NS = 1_700_000_040 * 10**9
POLL_MESSAGES = 16_384
ARROW_TIMES, ARROW_ROWS = 4, 4096
"""How many times the rows there are as Arrow, and how many of them a message holds."""


def measure(runs: int, rows: int) -> Result | Absent:
    """JSON, a row a message, and Arrow, many rows a message, from the same broker; every process on the same one core."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("kafka", f"not measured: no broker is started here; name one, such as {BROKER}=127.0.0.1:9092")
    trades = made_trades(rows)
    with topic(servers, "json") as as_json, topic(servers, "arrow") as as_arrow, one_core() as core:
        produce_json(as_json, trades)
        many = np.tile(trades, ARROW_TIMES)
        many["ts_event_ns"] += np.repeat(np.arange(ARROW_TIMES), rows) * (trades["ts_event_ns"][-1] - START_NS + 10**8)
        produce_arrow(as_arrow, many)
        counts: dict[str, int] = {}
        seconds = timed(lambda: None, lambda _: counts.update(json=bars_from(as_json, rows)), runs)
        arrow = timed(lambda: None, lambda _: counts.update(arrow=bars_from(as_arrow, len(many))), runs)
        where = (servers, topic_of(as_json, "trades"))
        peers = {
            "consume_orjson": peer("kafka", "kafka_consume.py", *where, str(rows), processes=runs),
            "bytewax_kafkasource": peer("kafka", "kafka_bytewax.py", *where, str(rows), processes=runs),
            "quixstreams": peer("quix", "kafka_quix.py", *where, str(min(QUIX_ROWS, rows))),
        }
    clock, processor = statistics.median(arrow), statistics.median(arrow.cpu_seconds)
    more = {
        "arrow": {
            "rows": len(many), "rows_a_message": ARROW_ROWS, "seconds": round(clock, 4), "rows_per_second": round(len(many) / clock),
            "rows_per_cpu_second": round(len(many) / processor),
        },
        "bars": counts,
        "core": core,
    }
    return Result(
        "kafka", rows, seconds,
        "connecting, the bounds of the partitions, fetching, decoding, bars; not the loading of the topic, nor compilation",
        peers, more,
    )  # fmt: skip


def bars_from(kafka: KafkaConfig, rows: int) -> int:
    """Read all of a topic; how many bars that makes."""
    reader = BatchReader(kafka, [Position("trades", p) for p in range(PARTITIONS)])
    decoder, bars = Decoder(Interner()), Bars()
    number = count = read = 0
    while read < rows:
        decoded = decoder.decode(reader.poll(POLL_MESSAGES, 1.0))
        if decoded.dead:
            raise SystemExit(decoded.dead[0]["error"])
        for block in decoded.blocks:
            block.rows["seq"] = np.arange(read, read + len(block.rows))
            frame = Frame("kafka", number, int(block.rows["ts_event_ns"][-1]), decoder.symbols.names, {"trades": block.rows})
            count += len(bars.step(frame).tables.get("bars", ()))
            read += len(block.rows)
            number += 1
    reader.close()
    return count


def made_trades(n: int) -> Rows:
    """A trade every 100 ms over all symbols, ascending in time; one price walks."""
    rng = np.random.default_rng(1)
    rows = TRADES.empty(n)
    rows["ts_event_ns"] = START_NS + np.arange(n) * 10**8
    rows["symbol"] = rng.integers(0, len(SYMBOLS), n)
    rows["price"] = np.round(60_000 * np.exp(np.cumsum(rng.normal(0, 2e-5, n))), 2)
    rows["size"] = np.round(rng.random(n) * 0.1 + 0.001, 4)
    rows["trade_id"] = np.arange(n)
    return rows


def produce_json(kafka: KafkaConfig, trades: Rows) -> None:
    """As anyone's producer writes them: five keys, no headers."""
    encode = msgspec.json.encode
    producer = producing(kafka)
    for ts, symbol, price, size, number in zip(*(trades[c].tolist() for c in ("ts_event_ns", "symbol", "price", "size", "trade_id")), strict=True):
        name = SYMBOLS[symbol]
        payload = encode({"symbol": name, "price": price, "size": size, "ts_event_ns": ts, "trade_id": number})
        producer.produce(topic_of(kafka, "trades"), payload, key=name, partition=symbol % PARTITIONS)
        if number & 4095 == 0:
            producer.poll(0)
    producer.flush()


def produce_arrow(kafka: KafkaConfig, trades: Rows) -> None:
    """As the ingest writes them."""
    producer = producing(kafka)
    for partition in range(PARTITIONS):
        mine = trades[trades["symbol"] % PARTITIONS == partition]
        for start in range(0, len(mine), ARROW_ROWS):
            payload = encode_ipc(to_arrow(TRADES, mine[start : start + ARROW_ROWS], SYMBOLS)).to_pybytes()
            producer.produce(topic_of(kafka, "trades"), payload, partition=partition, headers=headers(TRADES, "arrow"))
            producer.poll(0)
    producer.flush()


def producing(kafka: KafkaConfig) -> Any:
    return Producer({"bootstrap.servers": kafka.servers, "linger.ms": 50, "batch.size": 1 << 20, "queue.buffering.max.messages": 2_000_000})


@contextlib.contextmanager
def topic(servers: str, name: str) -> Iterator[KafkaConfig]:
    """A topic of trades that is gone afterwards."""
    kafka = KafkaConfig(servers, f"bench-{os.getpid()}-{random.randrange(1 << 30)}-{name}.")
    admin, named = AdminClient({"bootstrap.servers": servers}), topic_of(kafka, "trades")
    admin.create_topics([NewTopic(named, PARTITIONS, 1, config={"retention.ms": "-1"})])[named].result(30)
    try:
        yield kafka
    finally:
        there = [t for t in admin.list_topics(timeout=10).topics if named in t]  # and what peers made of it
        for gone in admin.delete_topics(there).values():
            gone.result(30)


@contextlib.contextmanager
def one_core() -> Iterator[str]:
    """This process and those it starts on one core, so that the broker has the others; where that can be asked for."""
    if not hasattr(os, "sched_setaffinity"):
        yield "as the system places them"
        return
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield f"{core} of {len(before)}"
    finally:
        os.sched_setaffinity(0, before)
