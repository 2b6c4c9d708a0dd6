"""Whole topics, read once up to where they end now: what a command reads, as opposed to what a flow follows."""

from collections.abc import Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from brokers.client import Noted, client_settings, explained, opened
from brokers.partitions import partitions_of
from schemas.config_live import KafkaConfig
from schemas.messages import RUN, header_text
from sources.kafka_batch import BEGINNING, END, BatchReader, Polled, Position

POLL_MESSAGES = 50_000
OFFSETS_S_MAX = 30.0


def polls_of(kafka: KafkaConfig, tables: Sequence[str]) -> Iterator[Polled]:
    """Everything that the topics of these tables hold now."""
    reader = BatchReader(kafka, [Position(t, p, BEGINNING) for t in tables for p in range(partitions_of(kafka, t))])
    try:
        end = {(p.table, p.partition): reader.watermarks(p.table, p.partition)[1] for p in reader.positions()}
        while any(p.offset < end[p.table, p.partition] for p in reader.positions()):
            polled = reader.poll(POLL_MESSAGES, 0.5)
            if len(polled):
                yield polled
    finally:
        reader.close()


def of_run(polled: Polled, run: str) -> list[int]:
    """Which messages are of a run."""
    mine = [header_text(found, RUN) == run for found in polled.header_sets]
    return [i for i, k in enumerate(polled.headers.tolist()) if mine[k]]


def payloads_of(kafka: KafkaConfig, table: str, run: str) -> list[bytes]:
    """The payloads of a run on a topic, in the order of each partition."""
    return [polled.payload(i) for polled in polls_of(kafka, [table]) for i in of_run(polled, run)]


def offsets_at(kafka: KafkaConfig, keys: Sequence[tuple[str, int]], ts_ns: int) -> dict[tuple[str, int], int]:
    """Per table and partition the first message that was written at or after a time; where there is none yet, the end."""
    noted = Noted()
    consumer: Any = opened(Consumer, kafka, client_settings(kafka, noted, {"group.id": "penstock-offsets", "enable.auto.commit": False}))
    try:
        asked = [TopicPartition(kafka.prefix + table, p, ts_ns // 1_000_000) for table, p in keys]
        try:
            found = consumer.offsets_for_times(asked, timeout=OFFSETS_S_MAX)
        except KafkaException as error:
            raise explained(kafka, error, noted) from None
        names = {kafka.prefix + table: table for table, _ in keys}
        return {(names[t.topic], t.partition): t.offset if t.offset >= 0 else END for t in found}
    finally:
        consumer.close()
