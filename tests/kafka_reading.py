"""What is on a topic, for tests: every message up to the end offsets of now, in the order of each partition."""

import time
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from schemas.codec import from_arrow, names_in
from schemas.codec_json import decode_json
from schemas.config_live import KafkaConfig
from schemas.messages import codec_of, decode_arrow
from schemas.tables import TableSpec

WAIT_S_MAX = 60.0


def messages(kafka: KafkaConfig, table: str) -> list[Any]:
    """All messages of a table's topic, partition after partition."""
    topic = kafka.prefix + table
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": "reading", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in found}
        out: dict[int, list[Any]] = {p: [] for p in found}
        consumer.assign([TopicPartition(topic, p, 0) for p in found])
        deadline = time.monotonic() + WAIT_S_MAX
        while any(end and (not out[p] or out[p][-1].offset() < end - 1) for p, end in ends.items()):
            for message in consumer.consume(1000, timeout=0.2):
                assert message.error() is None, message.error()
                out[message.partition()].append(message)
            assert time.monotonic() < deadline, f"{topic}: {ends}, read {({p: len(m) for p, m in out.items()})}"
        return [message for p in sorted(out) for message in out[p]]
    finally:
        consumer.close()


def rows_in(spec: TableSpec, found: list[Any], symbols: tuple[str, ...], strategies: tuple[str, ...] = ()) -> list[Any]:
    """The rows of each message."""
    out = []
    for message in found:
        payload = message.value()
        if codec_of(payload, message.headers()) == "json":
            out.append(decode_json(spec, [payload], symbols, strategies))
        else:
            table = decode_arrow(payload)
            assert set(names_in(table)) <= set(symbols) if "symbol" in table.column_names else True
            out.append(from_arrow(spec, table, symbols, strategies))
    return out
