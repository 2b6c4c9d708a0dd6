"""Input topics for tests: made with several partitions, read back, and what a writer must have left on them checked."""

import os
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.config_live import KafkaConfig
from schemas.tables import TableSpec
from schemas.topics import TABLES
from sinks.ingest_tails import COUNTER_BITS, COUNTER_MASK, _watermarks
from sinks.kafka import partition_of
from tests.kafka_reading import messages, rows_in

INPUT = ("trades", "quotes", "recorded", "beats")
PARTITIONS = 4
"""The mock cluster makes so many."""


def make_topics(kafka: KafkaConfig, tables: tuple[str, ...] = INPUT) -> None:
    """On a broker by asking for them, on the mock by first use."""
    names = [kafka.prefix + t for t in tables]
    if "PENSTOCK_TEST_KAFKA" not in os.environ:
        for name in names:
            Producer({"bootstrap.servers": kafka.servers, "log_level": 3}).list_topics(name, timeout=10)
        return
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    for made in admin.create_topics([NewTopic(n, PARTITIONS, 1) for n in names]).values():
        made.result(20)
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": "made", "log_level": 3})
    for name in names:
        for partition in range(PARTITIONS):
            _watermarks(consumer, name, partition)
    consumer.close()


def messages_on(kafka: KafkaConfig, *tables: str) -> int:
    """How many messages topics have, without reading them."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": "counting", "log_level": 3})
    try:
        return sum(_watermarks(consumer, kafka.prefix + t, p)[1] for t in tables for p in range(PARTITIONS))
    finally:
        consumer.close()


def on_topics(kafka: KafkaConfig, writer: int, symbols: tuple[str, ...], tables: tuple[str, ...] = INPUT) -> dict[int, tuple[Any, ...]]:
    """Number → (table, time, symbol, all other columns) of what a writer left; fails on a number twice or a row in a wrong place."""
    found: dict[int, tuple[Any, ...]] = {}
    for table in tables:
        spec = TABLES[table]
        for message in messages(kafka, table):
            for row in rows_in(spec, [message], symbols)[0]:
                if int(row["seq"]) >> COUNTER_BITS != writer:
                    continue
                number = int(row["seq"]) & COUNTER_MASK
                assert number not in found, (number, found[number], row)
                name = symbols[row["symbol"]] if row["symbol"] >= 0 else ""
                assert message.partition() == partition_of(name, PARTITIONS)
                assert abs(message.timestamp()[1] - 1e3 * time.time()) < 3_600_000
                found[number] = content(spec, row, name)
    return found


def content(spec: TableSpec, row: Any, name: str) -> tuple[Any, ...]:
    """A row without its number, to be compared."""
    left = [f.name for f in spec.fields if f.name not in ("seq", "first_seq", "last_seq", "symbol")]
    return (spec.name, name, *(repr(row[f].item()) for f in left))


def expected(frames: Any) -> dict[int, tuple[Any, ...]]:
    """Number → content of what frames give."""
    out = {}
    for frame in frames:
        for table, rows in frame.tables.items():
            for row in rows:
                name = frame.symbols[row["symbol"]] if row["symbol"] >= 0 else ""
                out[int(row["seq"])] = content(TABLES[table], row, name)
    assert sorted(out) == list(np.arange(len(out)))
    return out
