"""Messages onto topics for tests of readers, byte for byte and partition by partition, on the mock cluster and on a broker."""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.config_live import KafkaConfig
from schemas.messages import Headers
from sources.kafka_polled import FIRST_SETS, PADDING, Polled

PARTITIONS = 4
"""What the mock cluster makes."""


def make_topic(kafka: KafkaConfig, table: str) -> str:
    """The topic of a table, made where it is not made by using it."""
    topic = kafka.prefix + table
    if "PENSTOCK_TEST_KAFKA" in os.environ:
        admin = AdminClient({"bootstrap.servers": kafka.servers})
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(20)
        deadline = time.monotonic() + 20
        while topic not in admin.list_topics(timeout=10).topics:  # what was made is known a moment later
            assert time.monotonic() < deadline, topic
            time.sleep(0.02)
    else:
        Producer({"bootstrap.servers": kafka.servers, "log_level": 3}).list_topics(topic, timeout=10)
    return topic


def send(kafka: KafkaConfig, table: str, messages: Iterable[tuple[int, bytes | None, Headers | None]], **settings: Any) -> None:
    """(partition, payload, headers) in this order; fails where one is not taken."""
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 3, "linger.ms": 5, **settings})
    for partition, payload, headers in messages:
        producer.produce(
            kafka.prefix + table, payload, partition=partition, headers=headers,
            on_delivery=lambda error, message: failed.append(error) if error else None,
        )  # fmt: skip
        producer.poll(0)
    assert producer.flush(30) == 0 and failed == []


def as_polled(
    payloads: Sequence[bytes], table: str = "trades", headers: Sequence[Headers] | None = None, partitions: Sequence[int] | None = None
) -> Polled:
    """Messages as a poll gives them, without a broker; offsets count up in each partition from 100."""
    n = len(payloads)
    sets: list[Headers] = list(FIRST_SETS)
    codes = np.zeros(n, np.int64)
    for i, given in enumerate(headers or []):
        if given not in sets:
            sets.append(given)
        codes[i] = sets.index(given)
    starts = np.zeros(n + 1, np.int64)
    np.cumsum([len(p) for p in payloads], out=starts[1:])
    where = np.array(partitions if partitions is not None else [0] * n, np.int64)
    offset = np.array([100 + int((where[:i] == where[i]).sum()) for i in range(n)], np.int64)
    data = np.frombuffer(bytearray(b"".join(payloads) + bytes(PADDING)), np.uint8)
    zeros = np.zeros(n, np.int64)
    return Polled((table,), (f"penstock.{table}",), zeros, where, offset, zeros.copy(), codes, tuple(sets), data, starts)
