"""The log as the execute flow has it: approvals and reports from their beginning, the newest beats, and reports written back.

A report counts as written when the broker has acknowledged it. Every report carries its writer in a header, and all reports of an
account are in one partition, so its order says which of two writers was first. Reading is one thread, which hands
messages over in batches of a bounded number.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from brokers.client import Noted, client_settings, connected, explained, opened
from brokers.partitions import partition_count
from brokers.writing import offset_of, producer_settings
from schemas.config_live import KafkaConfig
from schemas.messages import Headers
from schemas.topics import TOPICS
from sinks.kafka import partition_of
from telemetry import metrics

BATCH_MESSAGES = 2_000
BATCHES_WAITING_MAX = 8
POLL_S = 0.1
WATERMARK_S = 10.0


@dataclass(frozen=True)
class Message:
    """One message. table: of approved, reports, beats. ts_ms: Kafka's timestamp, 0 where there is none."""

    table: str
    topic: str
    partition: int
    offset: int
    ts_ms: int
    key: str
    value: bytes
    headers: Headers


class Log(Protocol):
    """What the executor needs of it."""

    async def open(self) -> None: ...

    async def read(self) -> list[Message]:
        """The next messages; empty for once when what was there at the start has all been read, and when time has passed."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there at the start was handed over."""

    async def write(self, table: str, payload: bytes, headers: Headers) -> int:
        """Write and, once it is on the log for good, return its offset, or one behind it that is there too."""

    async def close(self) -> None: ...


class KafkaLog:
    """One account's log on Kafka. Of beats, the newest of each partition and what comes then."""

    def __init__(self, kafka: KafkaConfig, account: str) -> None:
        self.kafka, self.account = kafka, account
        self._noted = Noted()
        self._topic = {table: TOPICS[table].named(kafka.prefix) for table in ("approved", "reports", "beats", "dead_letter")}
        self._table = {topic: table for table, topic in self._topic.items()}
        self._ends: dict[tuple[str, int], int] = {}
        self._reports_partition = self._dead_partition = 0
        self._closing = threading.Event()
        self._caught_up = False
        self._threads: list[threading.Thread] = []
        self._ends_asked: queue.SimpleQueue[tuple[str, int, asyncio.Future[int]]] = queue.SimpleQueue()

    @property
    def caught_up(self) -> bool:
        return self._caught_up

    async def open(self) -> None:
        """Connect and begin reading; UserError where a topic is missing, PenstockError where no broker answers."""
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[list[Message], bool] | Exception] = asyncio.Queue(BATCHES_WAITING_MAX)
        await asyncio.to_thread(self._connect)
        for target in (self._read_on, self._acknowledge):
            thread = threading.Thread(target=target, name=f"execute {target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _connect(self) -> None:
        # no group and no offset of it: how far we are is in the reports, and a start reads everything
        reading = client_settings(
            self.kafka, self._noted, {"group.id": f"penstock-execute-{self.account}", "enable.auto.commit": False,
                                      "enable.partition.eof": True, "auto.offset.reset": "error"},
            {"fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 10})
        # one request at a time: see `FirstAlone` of brokers/writing.py for what could be lost in silence otherwise; reports are few
        durable = producer_settings(self.kafka, self._noted, fixed={"max.in.flight": 1}, defaults={"linger.ms": 0})
        self._consumer: Any = opened(Consumer, self.kafka, reading)
        self._producer: Any = opened(Producer, self.kafka, durable)
        connected(self._producer, self.kafka, self._noted)
        counts = {table: partition_count(self._producer, topic, self.kafka, self._noted) for table, topic in self._topic.items()}
        self._reports_partition = partition_of(self.account, counts["reports"])
        self._dead_partition = partition_of(self.account, counts["dead_letter"])
        wanted = [("approved", p) for p in range(counts["approved"])] + [("reports", self._reports_partition)]
        wanted += [("beats", p) for p in range(counts["beats"])]
        assigned = []
        for table, partition in wanted:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic[table], partition), timeout=WATERMARK_S)
            first = max(low, high - 1) if table == "beats" else low
            self._ends[table, partition] = high
            assigned.append(TopicPartition(self._topic[table], partition, first))
        self._consumer.assign(assigned)

    def _read_on(self) -> None:
        """The reading thread."""
        behind = set(self._ends)
        told = False
        try:
            while not self._closing.is_set():
                first = self._consumer.poll(POLL_S)
                self._tell_ends()
                found = [] if first is None else [first, *self._consumer.consume(BATCH_MESSAGES - 1, 0)]
                messages = [m for m in (self._message(raw, behind) for raw in found) if m is not None]
                if self._noted.fatal is not None:
                    raise explained(self.kafka, self._noted.fatal, self._noted)
                if messages or not (behind or told):
                    told = not behind
                    self._hand_over(messages, told)
                    self._measure(messages)
        except Exception as error:
            # the edge of a thread: whatever it is ends the process, in the main thread and with these words
            self._hand_over_error(explained(self.kafka, error, self._noted) if isinstance(error, KafkaException) else error)

    def _message(self, raw: Any, behind: set[tuple[str, int]]) -> Message | None:
        table, partition = self._table[raw.topic()], raw.partition()
        error = raw.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    raise explained(self.kafka, error, self._noted)
                return None  # a passing trouble: librdkafka goes on, and the order path waits for acknowledgements
            if raw.offset() >= self._ends[table, partition]:
                behind.discard((table, partition))
            return None
        kind, stamp = raw.timestamp()
        key = raw.key() or b""
        written_ms = 0 if kind == TIMESTAMP_NOT_AVAILABLE else stamp
        return Message(table, raw.topic(), partition, raw.offset(), written_ms, key.decode(errors="replace"), raw.value() or b"",
                       raw.headers() or [])

    def _measure(self, messages: Sequence[Message]) -> None:
        for at in {m.partition: m for m in messages if m.table == "approved"}.values():
            topic = self._topic["approved"]
            high = self._consumer.get_watermark_offsets(TopicPartition(topic, at.partition), cached=True)[1]
            metrics.LAG_MESSAGES.labels(topic=topic, partition=str(at.partition)).set(max(0, high - at.offset - 1))

    def _hand_over(self, messages: list[Message], done: bool) -> None:
        self._wait_for(self._queue.put((messages, done)))

    def _hand_over_error(self, error: Exception) -> None:
        self._wait_for(self._queue.put(error))

    def _wait_for(self, coroutine: Any) -> None:
        try:
            given = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed: nobody reads any more
            coroutine.close()
            return
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                given.result(POLL_S)
                return
        given.cancel()

    async def read(self) -> list[Message]:
        found = await self._queue.get()
        if isinstance(found, Exception):
            raise found
        messages, done = found
        self._caught_up = self._caught_up or done
        return messages

    async def write(self, table: str, payload: bytes, headers: Headers) -> int:
        """Write to the account's partition; once the broker has acknowledged it, its offset, or a later one that is on the log too."""
        acknowledged: asyncio.Future[int | None] = self._loop.create_future()

        def delivered(error: KafkaError | None, message: Any) -> None:
            self._settle(acknowledged, explained(self.kafka, error, self._noted) if error is not None else offset_of(message))

        partition = self._reports_partition if table == "reports" else self._dead_partition
        while True:
            try:
                self._producer.produce(self._topic[table], payload, self.account, partition, headers=headers, on_delivery=delivered)
                break
            except BufferError:
                await asyncio.sleep(0.05)
            except KafkaException as error:
                raise explained(self.kafka, error, self._noted) from None
        offset = await acknowledged
        if offset is None:
            # whoever has read up to the end of now has read what was acknowledged before
            end: asyncio.Future[int] = self._loop.create_future()
            self._ends_asked.put((table, partition, end))
            offset = await end - 1
        return offset

    def _tell_ends(self) -> None:
        """Answer where partitions end. In the reading thread: asked from another one while it polls, librdkafka may never answer."""
        while not self._ends_asked.empty():
            table, partition, answer = self._ends_asked.get()
            try:
                place = TopicPartition(self._topic[table], partition)
                self._settle(answer, self._consumer.get_watermark_offsets(place, timeout=WATERMARK_S)[1])
            except KafkaException as error:
                self._settle(answer, explained(self.kafka, error, self._noted))

    def _settle(self, answer: "asyncio.Future[Any]", found: Any) -> None:
        """Give what a thread found, or the error that it met, to whoever waits for it."""
        def settle() -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle)

    def _acknowledge(self) -> None:
        """The thread in which acknowledgements arrive."""
        while not self._closing.is_set():
            self._producer.poll(POLL_S)

    async def close(self) -> None:
        """Stop reading and writing."""
        if self._closing.is_set():
            return
        self._closing.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self._threads:
            await asyncio.to_thread(self._producer.flush, 5)
            await asyncio.to_thread(self._consumer.close)

