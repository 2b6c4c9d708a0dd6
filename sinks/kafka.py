"""The Kafka sink: the tables of a frame as messages on their topics, and nothing counted as written before the broker has it.

What `flush` returned for is on the log, in the order in which it was given, once per partition: the producer is
idempotent and waits for all replicas. A symbol's rows are always in partition `name_id(symbol) % partitions`. After a
message failed every call raises; nothing is lost silently.
"""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, KafkaException, Producer

from brokers.client import Noted, connected, explained, opened
from brokers.partitions import partition_count
from brokers.writing import FirstAlone, producer_settings
from schemas.codec_features import FEATURES
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError
from schemas.frame import FeatureRows, Frame
from schemas.ids import name_id
from schemas.messages import headers
from schemas.rows import picked
from schemas.tables import Rows, TableSpec
from schemas.topics import TOPICS, Topic
from sinks.batches import Records
from sinks.kafka_payloads import MESSAGE_BYTES, Payloads

QUEUE_MESSAGES = 100_000
QUEUE_KBYTES = 256 * 1024
LINGER_MS = 0.5
"""How long a message waits for company: little, since an order may hang on it; under load batches fill anyway."""
FULL_POLL_S = 0.05
FLUSH_S_MAX = 120.0


@lru_cache(maxsize=65_536)
def partition_of(name: str, partitions: int) -> int:
    """The partition of a symbol, account or run; the empty name (all symbols) has the first."""
    return name_id(name) % partitions if name else 0


class KafkaSink:
    """Rows to topics. Not for several writers at once.

    run_id: goes into the header `run`; empty for market input. account: the key of the money side's topics. PenstockError
    where the broker does not answer, UserError where a topic is missing.
    """

    def __init__(self, kafka: KafkaConfig, run_id: str, account: str, *, linger_ms: float = LINGER_MS) -> None:
        self.kafka = kafka
        self.run_id = run_id
        self.account = account
        self.rows_written = 0
        self.messages_written = 0
        self._noted = Noted()
        self._failed: PenstockError | None = None
        self._lost = 0
        self._partitions: dict[str, int] = {}
        self._payloads = Payloads()
        self._first_alone = FirstAlone(self.flush)
        self._lookup: dict[int, tuple[Sequence[str], npt.NDArray[np.int64]]] = {}
        self._closed = False
        given = producer_settings(kafka, self._noted, defaults={
            "linger.ms": linger_ms, "compression.type": "lz4", "message.max.bytes": 8 * MESSAGE_BYTES,
            "queue.buffering.max.messages": QUEUE_MESSAGES, "queue.buffering.max.kbytes": QUEUE_KBYTES,
        })  # fmt: skip
        self._producer: Any = opened(Producer, kafka, {**given, "delivery.report.only.error": True, "on_delivery": self._undelivered})
        connected(self._producer, kafka, self._noted)

    def write_frame(self, frame: Frame, strategies: Sequence[str], tables: Sequence[TableSpec]) -> None:
        """Take these tables of a frame; its feature sets where `tables` has FEATURES."""
        for spec in tables:
            if spec.name == FEATURES.name:
                for features in frame.features:
                    self.write_features(features, frame.symbols)
            else:
                rows = frame.tables.get(spec.name)
                if rows is not None and len(rows):
                    self.write(spec, rows, frame.symbols, strategies)

    def write(self, spec: TableSpec, rows: Rows | Records, symbols: Sequence[str] = (), strategies: Sequence[str] = ()) -> None:
        """Take rows (records, for a table with text columns); waits while the producer's queue is full."""
        topic = TOPICS[spec.name]
        if topic.key != "symbol" or not isinstance(rows, np.ndarray):
            name = self.run_id if topic.key == "run" else self.account
            count = self._count(topic)  # which also sees to it that the topic is there
            partition = 0 if topic.partitions == 1 else partition_of(name, count)
            for payload, _, n in self._payloads.of(topic, rows, symbols, strategies):
                self._produce(topic, partition, name, payload, n)
        else:
            for partition, part in self._split(topic, rows, rows["symbol"], symbols):
                for payload, symbol, n in self._payloads.of(topic, part, symbols, strategies):
                    self._produce(topic, partition, symbol, payload, n)
        self.poll()

    def write_features(self, features: FeatureRows, symbols: Sequence[str]) -> None:
        """Take the feature values of closed bars, as the topic `features`."""
        topic = TOPICS[FEATURES.name]
        codes = features.bars["symbol"]
        for partition, chosen in self._split(topic, np.arange(len(codes)), codes, symbols):
            mine = FeatureRows(features.interval_ns, features.names, features.bars[chosen], features.values[chosen])
            for payload, symbol, n in self._payloads.features(mine, symbols):
                self._produce(topic, partition, symbol, payload, n)
        self.poll()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Hear what the broker said meanwhile; PenstockError where a message failed."""
        self._producer.poll(timeout_s)
        self._check()

    def pending(self) -> int:
        """Messages that the broker has not acknowledged yet."""
        return len(self._producer)

    def acknowledged(self) -> bool:
        """Whether the broker has everything that was given; PenstockError where a message failed."""
        self.poll()
        return self.pending() == 0

    def flush(self, timeout_s: float = FLUSH_S_MAX) -> None:
        """Return when every message is acknowledged; PenstockError with the broker's reason where one was not."""
        deadline = time.monotonic() + timeout_s
        self._check()
        while self._producer.flush(0.5):
            self._check()
            if time.monotonic() > deadline:
                told = self._noted.latest.get("_TRANSPORT") or "no reason given"
                raise PenstockError(
                    f"the Kafka broker at {self.kafka.servers} has not acknowledged {self.pending()} messages within "
                    f"{timeout_s:.0f} s: {told}"
                )
        self._check()
        self._noted.healthy()

    def close(self) -> None:
        """Flush, then take nothing more; harmless when called twice."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            self._producer.purge()  # after a failure: what is left was counted and raised
            self._producer.poll(0)

    def abandon(self) -> None:
        """Drop what is not acknowledged yet, for a process that is going down on an error of its own."""
        self._closed = True
        self._producer.purge()
        self._producer.poll(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _split(self, topic: Topic, rows: Any, codes: Any, symbols: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """The rows by partition, in their order."""
        if not len(rows):
            return
        of_code = self._partition_of_code(symbols, self._count(topic))
        if len(rows) == 1:
            yield int(of_code[codes[0]]), rows
            return
        parts = of_code[codes]
        found = np.flatnonzero(np.bincount(parts))
        for partition in found.tolist():
            yield partition, rows if len(found) == 1 else picked(rows, parts == partition)

    def _partition_of_code(self, symbols: Sequence[str], partitions: int) -> npt.NDArray[np.int64]:
        """Partitions by symbol code; the last entry is that of code -1, all symbols."""
        known = self._lookup.get(partitions)
        if known is None or known[0] != symbols:
            table = np.array([*(partition_of(s, partitions) for s in symbols), 0], np.int64)
            known = self._lookup[partitions] = (symbols, table)
        return known[1]

    def _count(self, topic: Topic) -> int:
        count = self._partitions.get(topic.table.name)
        if count is None:
            count = partition_count(self._producer, topic.named(self.kafka.prefix), self.kafka, self._noted)
            self._partitions[topic.table.name] = count
        return count

    def _produce(self, topic: Topic, partition: int, key: str, payload: bytes, rows: int) -> None:
        if self._closed:
            raise PenstockError("the Kafka sink is closed")
        made, name = headers(topic.table, topic.codec, self.run_id), topic.named(self.kafka.prefix)
        while True:
            try:
                self._producer.produce(name, payload, key or None, partition, headers=made)
            except BufferError:
                self.poll(FULL_POLL_S)  # the queue is full: the broker is slower than we are, so we wait
                continue
            except KafkaException as error:
                self._lost += 1
                self._failed = PenstockError(
                    f"a message of {len(payload)} bytes for {name} was refused: {error.args[0].str()}"
                )
                self._check()
            self.rows_written += rows
            self.messages_written += 1
            self._first_alone(name, partition)
            return

    def _undelivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None or self._closed:
            return
        self._lost += 1
        if self._failed is None:
            self._failed = explained(self.kafka, error, self._noted)
            kind = type(self._failed)
            self._failed = kind(f"{self._failed} (writing {message.topic()} partition {message.partition()})")

    def _check(self) -> None:
        if self._failed is not None:
            raise type(self._failed)(f"{self._failed} ({self._lost + self.pending()} messages were not written)")
        if self._noted.fatal is not None:
            raise PenstockError(f"the Kafka producer stopped: {self._noted.fatal.str()} ({self.pending()} messages were not written)")
