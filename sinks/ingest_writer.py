"""The writer of an ingest: market rows onto the input topics, each with the writer's own number, none lost and none twice.

Numbers are 0, 1, 2, … without gaps over all tables and partitions; a reader that has one number knows which come before it.
After a crash at any moment an exact writer (a tape, which gives the same rows again) writes what each partition lacks; a live
one goes on behind its highest number and fills the numbers that never reached the log with beats, so that no reader waits
for them. Only one process may write under a name at a time.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from brokers.client import Noted, client_settings, connected, explained, opened
from brokers.partitions import partition_count
from brokers.writing import FirstAlone, offset_of, producer_settings
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError
from schemas.frame import Frame
from schemas.ids import name_id
from schemas.messages import encode, headers
from schemas.tables import ALL_SYMBOLS, BEATS, Rows, TableSpec
from schemas.topics import TABLES, TOPICS
from sinks.ingest_tails import COUNTER_BITS, Tails, Topics, metadata_text, read_tails
from sinks.kafka import partition_of
from telemetry import logs, metrics

Codec = Literal["arrow", "json"]
WRITERS = (1 << 15) - 1
IN_FLIGHT = 100_000
"""Numbers that may be unacknowledged: what a crash can leave in disorder."""
CHECKPOINT_S = 2.0
MESSAGE_ROWS = 4_096
"""Rows of an Arrow message: below 512 KiB for every input table."""
LIVE = "live"
log = logs.get("ingest")


def writer_id(name: str) -> int:
    """1 to 32767; two names share one with a probability of 1 in 32767."""
    return 1 + name_id(name) % WRITERS


class _Part:
    """One partition: numbers on their way, and what was acknowledged since the last checkpoint."""

    def __init__(self, topic: str, number: int, highest: int, end: int) -> None:
        self.topic, self.number = topic, number
        self.highest = highest
        """The writer's highest number that was there when it started."""
        self.in_flight: deque[int] = deque()
        self.acked: deque[tuple[int, int]] = deque()
        self.checkpoint = (end, highest)


class Writer:
    """Rows to input topics. fingerprint: of what an exact writer writes; empty for a live one. told: is given the number of
    messages that must be read to find where the writer stopped. PenstockError where the broker does not answer, UserError
    where a topic is missing, or where the name was used for other data."""

    def __init__(self, kafka: KafkaConfig, name: str, tables: Sequence[str], *, codec: Codec = "json", linger_ms: float = 5.0,
                 fingerprint: str = "", told: Callable[[int], None] = lambda messages: None) -> None:
        self.kafka, self.name, self.id, self.codec = kafka, name, writer_id(name), codec
        self.exact = fingerprint != ""
        self.counts: dict[str, int] = dict.fromkeys(sorted({*tables, BEATS.name}), 0)
        self.skipped = self.filled = 0
        self._fingerprint = fingerprint or LIVE
        self._noted = Noted()
        self._failed: PenstockError | None = None
        self._lookup: dict[str, tuple[Sequence[str], npt.NDArray[np.int64]]] = {}
        self._keys: dict[str, bytes] = {}
        self._producer: Any = opened(Producer, kafka, producer_settings(
            kafka, self._noted, fixed={"queue.buffering.max.messages": IN_FLIGHT, "message.timeout.ms": 0},
            defaults={"linger.ms": linger_ms, "compression.type": "lz4", "message.max.bytes": 8 << 20},
        ))  # fmt: skip
        self._first_alone = FirstAlone(self.flush)
        connected(self._producer, kafka, self._noted)
        self._topics: Topics = {
            t: (TABLES[t], topic, partition_count(self._producer, topic, kafka, self._noted))
            for t in self.counts for topic in [TOPICS[t].named(kafka.prefix)]
        }
        self._headers = {t: headers(TABLES[t], codec) for t in self.counts}
        self._consumer: Any = opened(Consumer, kafka, client_settings(
            kafka, self._noted, {"group.id": f"{kafka.prefix}ingest.{name}", "enable.auto.commit": False, "enable.partition.eof": True,
                                 "auto.offset.reset": "earliest"}, {"fetch.queue.backoff.ms": 10},
        ))  # fmt: skip
        self._start(told)

    def _start(self, told: Callable[[int], None]) -> None:
        try:
            tails = read_tails(self._consumer, self._topics, self.id, self.name, self._fingerprint, told)
        except KafkaException as error:
            self._consumer.close()
            raise explained(self.kafka, error, self._noted) from None
        except PenstockError:
            self._consumer.close()
            raise
        self.resumed_from = tails.next
        self._parts = {
            table: [_Part(topic, p, tails.partitions[table, p].highest, tails.partitions[table, p].end) for p in range(n)]
            for table, (_, topic, n) in self._topics.items()
        }
        self._next, self._lowest = (0 if self.exact else tails.next), 0
        if not self.exact:
            self._fill(tails)
        self._checkpoint_at = time.monotonic()
        self.checkpoint(wait=True)

    def _fill(self, tails: Tails) -> None:
        """Beats in the place of numbers that never reached the log, at a time that was known before."""
        gone = tails.missing(IN_FLIGHT)
        if len(gone) == 0:
            return
        rows = BEATS.empty(len(gone))
        rows["symbol"] = ALL_SYMBOLS
        rows["ts_event_ns"] = tails.newest[1] if tails.newest else 0
        rows["seq"] = gone
        self._send(BEATS, rows, ())
        self.flush()
        self._parts[BEATS.name][0].acked.clear()  # their numbers are lower than those before them in the partition
        self.filled = len(gone)
        log.warning("numbers that a crash left out were filled with beats", writer=self.name, numbers=len(gone))

    @property
    def written(self) -> int:
        """Rows written by this process, all tables."""
        return sum(self.counts.values())

    def write_frame(self, frame: Frame) -> None:
        """Exact: take the rows of a frame whose `seq` are their numbers; those that are on the log already are left out."""
        last = self._next
        for table, rows in frame.tables.items():
            if len(rows) == 0:
                continue
            spec = TABLES[table]
            last = max(last, int(rows["seq"][-1]) + 1)
            there = np.array([p.highest for p in self._parts[table]], np.int64)
            fresh = rows["seq"] > there[self._partitions(table, rows, frame.symbols)]
            self.skipped += len(rows) - int(fresh.sum())
            if fresh.any():
                self._send(spec, rows[fresh], frame.symbols)
        self._next = last
        self._tend()

    def write(self, spec: TableSpec, rows: Rows, symbols: Sequence[str]) -> None:
        """Live: take rows and give them the next numbers."""
        numbered = rows.copy()
        numbered["seq"] = np.arange(self._next, self._next + len(rows))
        self._next += len(rows)
        self._send(spec, numbered, symbols)
        self._tend()

    def flush(self) -> None:
        """Return when the broker has everything; it waits for a broker that is away, and says so."""
        while self._producer.flush(1.0):
            self._check()
        self._check()
        self._noted.healthy()

    def poll(self) -> None:
        """Hear what the broker said meanwhile; PenstockError where a message failed."""
        self._producer.poll(0)
        self._check()

    @property
    def pending(self) -> int:
        """Messages that the broker has not acknowledged yet."""
        return len(self._producer)

    def close(self) -> None:
        """Flush and checkpoint."""
        try:
            self.flush()
            self.checkpoint(wait=True)
        finally:
            self._consumer.close()

    def abandon(self) -> None:
        """Drop what is not acknowledged, for a process that is going down: the next start finds out what is missing."""
        self._producer.purge()
        self._producer.poll(0)
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def checkpoint(self, wait: bool = False) -> None:
        """Note on the broker how far each partition is, so that a start reads only what came after."""
        floor = 0 if self.exact else self._lowest_in_flight()
        offsets = []
        for parts in self._parts.values():
            for part in parts:
                before = part.checkpoint
                while part.acked and (self.exact or part.acked[0][0] < floor):
                    number, offset = part.acked.popleft()
                    part.checkpoint = (offset + 1, max(number, before[1]))
                if wait or part.checkpoint != before:
                    at, highest = part.checkpoint
                    said = metadata_text(floor, highest, self._fingerprint)
                    offsets.append(TopicPartition(part.topic, part.number, at, said))
        self._checkpoint_at = time.monotonic()
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            # only the next start reads more; what was written is on the log
            log.warning("the checkpoint was not taken", writer=self.name, error=str(explained(self.kafka, error, self._noted)))

    def _send(self, spec: TableSpec, rows: Rows, symbols: Sequence[str]) -> None:
        """Rows whose `seq` are numbers, in their order."""
        where = self._partitions(spec.name, rows, symbols)
        rows = rows.copy()
        numbers = rows["seq"].copy()
        rows["seq"] += self.id << COUNTER_BITS
        if "first_seq" in (rows.dtype.names or ()):
            rows["first_seq"] = rows["last_seq"] = rows["seq"]
        parts = self._parts[spec.name]
        if self.codec == "json":
            codes = rows["symbol"].tolist()
            for payload, number, code, p in zip(encode(spec, rows, "json", symbols), numbers.tolist(), codes, where.tolist(), strict=True):
                self._produce(spec.name, parts[p], payload, symbols[code] if code >= 0 else "", number, number)
        else:
            for p in np.unique(where).tolist():
                mine = np.flatnonzero(where == p)
                for at in range(0, len(mine), MESSAGE_ROWS):
                    chosen = mine[at : at + MESSAGE_ROWS]
                    piece, names = _compacted(rows[chosen], symbols)
                    payload = encode(spec, piece, "arrow", names)[0]
                    self._produce(spec.name, parts[p], payload, names[0] if len(names) == 1 else "", int(numbers[chosen[0]]),
                                  int(numbers[chosen[-1]]))
        self.counts[spec.name] += len(rows)
        metrics.INGEST_ROWS.labels(table=spec.name).inc(len(rows))

    def _produce(self, table: str, part: _Part, payload: bytes, symbol: str, first: int, last: int) -> None:
        key = self._keys.get(symbol)
        if key is None:
            key = self._keys[symbol] = symbol.encode()
        part.in_flight.append(first)
        acked = partial(self._acked, part, last)
        while True:
            try:
                self._producer.produce(part.topic, payload, key or None, partition=part.number, headers=self._headers[table],
                                       on_delivery=acked)
                self._first_alone(part.topic, part.number)
                return
            except BufferError:
                self._producer.poll(0.05)
                self._check()

    def _acked(self, part: _Part, last: int, error: Any, message: Any) -> None:
        if error is not None:
            if self._failed is None:
                self._failed = explained(self.kafka, error, self._noted)
            return
        part.in_flight.popleft()
        offset = offset_of(message)
        if offset is not None:  # else the checkpoint goes on with the next one, and a start reads a message more
            part.acked.append((last, offset))

    def _tend(self) -> None:
        """Hears the broker, waits where too much is on its way, takes the checkpoint when it is time."""
        self.poll()
        while self._next - self._lowest > IN_FLIGHT:
            self._lowest = self._lowest_in_flight()
            if self._next - self._lowest > IN_FLIGHT:
                self._producer.poll(0.05)
                self._check()
        if time.monotonic() - self._checkpoint_at > CHECKPOINT_S:
            self.checkpoint()

    def _lowest_in_flight(self) -> int:
        return min((part.in_flight[0] for parts in self._parts.values() for part in parts if part.in_flight), default=self._next)

    def _partitions(self, table: str, rows: Rows, symbols: Sequence[str]) -> npt.NDArray[np.int64]:
        """The partition of each row."""
        known = self._lookup.get(table)
        if known is None or known[0] != symbols:
            count = len(self._parts[table])
            known = (tuple(symbols), np.array([*(partition_of(s, count) for s in symbols), 0], np.int64))
            self._lookup[table] = known
        of: npt.NDArray[np.int64] = known[1][rows["symbol"]]
        return of

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._noted.fatal is not None:
            raise explained(self.kafka, self._noted.fatal, self._noted)


def _compacted(rows: Rows, symbols: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows with codes into only those names that they use."""
    codes, inverse = np.unique(rows["symbol"], return_inverse=True)
    names = [symbols[c] for c in codes.tolist() if c >= 0]
    out = rows.copy()
    out["symbol"] = inverse - (1 if codes[0] == ALL_SYMBOLS else 0)
    return out, names


def shown(counts: Mapping[str, int]) -> str:
    """Counts of a summary's last line: `12,000 trades, 360 beats`."""
    return ", ".join(f"{n:,} {table}" for table, n in counts.items() if n) or "nothing"
