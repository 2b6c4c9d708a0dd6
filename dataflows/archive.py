"""The archive: topics → rows → warehouse, and the place in the log is moved only when the warehouse has what came before it.

Killed anywhere, the next one reads again what was not acknowledged, and since every row has a natural key a row that is
stored twice is one. A plain loop and not a dataflow of the engine: there is no state between messages but the offsets,
and those the broker keeps, so that another machine goes on where this one died.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.config_live import KafkaConfig
from schemas.ddl import DATABASE
from schemas.errors import PenstockError, UserError
from schemas.ids import name_id
from schemas.tables_live import DEAD_LETTER
from schemas.topics import TOPICS
from sinks.clickhouse import ClickHouseSink
from sinks.kafka import KafkaSink
from sinks.kafka_admin import KafkaAdmin, TopicState
from sinks.kafka_offsets import GroupOffsets, Place
from sources.kafka_batch import BEGINNING, BatchReader, Position
from sources.kafka_unpack import Unpacker
from telemetry import logs, metrics

MESSAGES_MAX = 50_000
"""Of one poll: the bytes of a poll are bounded by what librdkafka fetches ahead."""
POLL_S = 0.1
GATHER_S, GATHER_BELOW = 0.25, 10_000
"""After a poll that brought fewer messages it lets some gather: it is never in a hurry, and what runs beside it may be."""
FLUSH_S, FLUSH_BEHIND_S = 1.0, 5.0
"""Live, rows are in the warehouse after a second; behind, inserts are larger."""
ATTEMPTS = 90
"""Of an insert, some minutes in all: a warehouse that restarts is waited for."""
SAID_S = 30.0
log = logs.get("archive")


@dataclass
class Done:
    """What an archive has done. rows: that the warehouse acknowledged, by table. lag: messages that are not read yet."""

    rows: dict[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    lag: int = 0
    commits: int = 0

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class Reader(Protocol):
    """What the loop needs of `BatchReader`."""

    def poll(self, rows_max: int = ..., timeout_s: float = ...) -> Any: ...

    def positions(self) -> list[Position]: ...

    def lag(self) -> dict[Place, int]: ...


def starts(states: Sequence[TopicState], committed: Mapping[Place, int], accept_loss: bool) -> list[Position]:
    """Where to read on: behind what is done, else at the beginning.

    PenstockError where messages that were not archived are gone, with their offsets, unless that is accepted; UserError where a
    topic is shorter than what was read of it.
    """
    made: list[Position] = []
    gone: list[str] = []
    for state in states:
        table = state.topic.table.name
        for p in state.partitions:
            at = committed.get((table, p.partition), BEGINNING)
            if at > p.end:
                raise UserError(f"{state.name} partition {p.partition} ends at offset {p.end} and was archived up to {at}: the topic was "
                                "made anew; --rewind reads all topics from their beginning")
            if 0 <= at < p.first:
                gone.append(f"{state.name} partition {p.partition} offsets {at} to {p.first - 1}")
                at = p.first
            made.append(Position(table, p.partition, at))
    if gone and not accept_loss:
        raise PenstockError(f"messages that were not archived are gone, retention has passed them: {', '.join(gone)}; "
                            "--accept-loss goes on with what is left")
    for said in gone:
        log.warning("not archived and gone", what=said)
    return made


def topics_of(admin: KafkaAdmin, tables: Sequence[str]) -> list[TopicState]:
    """The topics of these tables on the broker; UserError that names those that are missing."""
    states = admin.states(tables, settings=False)
    missing = [s.name for s in states if not s.exists]
    if missing:
        named = f"{'topics' if len(missing) > 1 else 'topic'} {', '.join(missing)}"
        raise UserError(f"the Kafka broker at {admin.kafka.servers} has no {named}; "
                        "make them with `penstock topics create`, or name those to archive with --table")
    return states


class Archive:
    """The loop. Each part may be another in a test. ends: where to stop; None goes on for ever."""

    def __init__(self, reader: Reader, unpacker: Unpacker, warehouse: ClickHouseSink, letters: KafkaSink, offsets: GroupOffsets,
                 ends: Mapping[Place, int] | None = None, progress: Callable[[Done], None] = lambda done: None) -> None:
        self.done = Done()
        self._reader, self._unpacker, self._warehouse, self._letters, self._offsets = reader, unpacker, warehouse, letters, offsets
        self._ends = dict(ends) if ends is not None else None
        self._progress = progress
        self._waiting: dict[str, int] = {}
        self._moved = False

    def run(self, stopping: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic) -> Done:
        """Until the ends, or until it is asked to stop; what was read is stored and committed then."""
        settled = said = clock()
        while not stopping() and not self._at_the_ends():
            taken = self.take()
            if self._ends is None and 0 < taken < GATHER_BELOW:
                time.sleep(GATHER_S)
            now = clock()
            if self._moved and now - settled >= (FLUSH_BEHIND_S if taken == MESSAGES_MAX else FLUSH_S):
                self.settle()
                settled = clock()
            elif not self._moved:
                settled = now  # the first message after a quiet time waits a second, and not none
                metrics.progressed()
            if now - said >= SAID_S:
                log.info("archiving", rows=self.done.total, lag=self.done.lag, dead_letters=self.done.dead_letters)
                said = now
        self.settle()
        return self.done

    def take(self) -> int:
        """Give the warehouse what one poll brings; how many messages it was."""
        polled = self._reader.poll(MESSAGES_MAX, POLL_S)
        if not len(polled):
            return 0
        made, dead = self._unpacker.unpack(polled)
        for part in made:
            self._warehouse.write(part.spec, part.rows, part.symbols, part.strategies, part.run_id)
            self._waiting[part.spec.name] = self._waiting.get(part.spec.name, 0) + part.count
        if dead:
            self._letters.write(DEAD_LETTER, dead)
            self.done.dead_letters += len(dead)
            for letter in dead:
                metrics.DEAD_LETTERS.labels(topic=letter["topic"]).inc()
            log.warning("messages that cannot be read", count=len(dead), first=dead[0]["error"])
        self._moved = True
        return len(polled)

    def settle(self) -> None:
        """Return when the warehouse has all rows, the log all dead letters, and the broker where we are: in this order."""
        if not self._moved:
            return
        began = time.perf_counter()
        self._warehouse.flush()
        self._letters.flush()
        self._offsets.commit({(p.table, p.partition): p.offset for p in self._reader.positions()})
        metrics.ARCHIVE_SECONDS.observe(time.perf_counter() - began)
        for table, rows in self._waiting.items():
            self.done.rows[table] = self.done.rows.get(table, 0) + rows
            metrics.ARCHIVE_ROWS.labels(table=table).inc(rows)
        self._waiting, self._moved = {}, False
        self.done.commits += 1
        lag = self._reader.lag()
        self.done.lag = sum(lag.values())
        for (table, partition), messages in lag.items():
            metrics.LAG_MESSAGES.labels(topic=self._letters.kafka.prefix + table, partition=str(partition)).set(messages)
        metrics.progressed()
        self._progress(self.done)

    def _at_the_ends(self) -> bool:
        return self._ends is not None and all(p.offset >= self._ends.get((p.table, p.partition), 0) for p in self._reader.positions())


def run_archive(kafka: KafkaConfig, warehouse: str, *, tables: Sequence[str] = (), group: str = "", once: bool = False,
                rewind: bool = False, accept_loss: bool = False, share: tuple[int, int] = (0, 1), database: str = DATABASE,
                stopping: Callable[[], bool] = lambda: False, progress: Callable[[Done], None] = lambda done: None,
                begun: Callable[[int], None] = lambda messages: None) -> Done:
    """Archive topics until stopped; with `once` up to where they end now.

    tables: which, all where empty. group: under which name the broker keeps the place. share: (i, n), process i of n, each with
    partitions of its own. begun: is told how many messages there are to read.
    """
    states = topics_of(KafkaAdmin(kafka), tables or tuple(TOPICS))
    offsets = GroupOffsets(kafka, group or f"{kafka.prefix}archive")
    reader = None
    try:
        places = [(s.topic.table.name, p.partition) for s in states for p in s.partitions
                  if (name_id(s.topic.table.name) + p.partition) % share[1] == share[0]]
        known = {} if rewind else offsets.committed(places)
        where = [p for p in starts(states, known, accept_loss) if (p.table, p.partition) in set(places)]
        ends = {(s.topic.table.name, p.partition): p.end for s in states for p in s.partitions}
        reader = BatchReader(kafka, where, patient=True)
        begun(sum(max(0, ends[p.table, p.partition] - p.offset) for p in reader.positions()))
        with ClickHouseSink(warehouse, "", database=database, attempts=ATTEMPTS) as sink, KafkaSink(kafka, "", "archive") as letters:
            return Archive(reader, Unpacker(), sink, letters, offsets, ends if once else None, progress).run(stopping)
    finally:
        if reader is not None:
            reader.close()
        offsets.close()
