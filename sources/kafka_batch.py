"""`BatchReader`: assigned partitions of several topics, polled straight into arrays, with no Python object per message.

Within a partition messages come in the order of their offsets, each once, and none is passed over: an offset that the
broker no longer has is an error that says which messages are gone. It joins no group and commits nothing; where to go on
is its caller's to keep. A broker that is away is waited for.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from brokers.client import CONNECT_S_MAX, meaning, refused, struck
from brokers.partitions import partitions, topic_of
from brokers.reading import reader_settings
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from sources.kafka_native import NativeFeed, library
from sources.kafka_plain import PlainFeed
from sources.kafka_polled import BAD_HEADERS, BEGINNING, END, NO_HEADERS, Failed, Feed, Polled, Position, Trouble, joined

__all__ = ["BAD_HEADERS", "BEGINNING", "END", "NO_HEADERS", "BatchReader", "Polled", "Position"]

POLL_BYTES = 4 << 20
"""About what one poll takes where messages are large, going by how large the last ones were."""
FIRST_BYTES = 16_384
"""How large messages are taken to be before there was one."""
SLICE_MS = 100
"""The longest that one call into librdkafka may take: between calls Python sees to its signals."""
_GONE = ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE")
_PASSING = (
    "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_SSL", "_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED",
    "REQUEST_TIMED_OUT", "NETWORK_EXCEPTION", "LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "BROKER_NOT_AVAILABLE",
    "_WAIT_COORD", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "_DESTROY_BROKER", "_MAX_POLL_EXCEEDED", "_PARTITION_EOF",
)  # fmt: skip
"""What librdkafka gets over by itself."""
_GROUP = ("GROUP_AUTHORIZATION_FAILED", "COORDINATOR_LOAD_IN_PROGRESS")
"""Of the group that a reader has only by name."""
log = logging.getLogger("penstock.kafka")
_Answer = TypeVar("_Answer")


class BatchReader:
    """One consumer without a group. Not for several threads at once.

    Construction asks the broker for the bounds of every partition: PenstockError where an offset is gone (retention has passed it)
    or beyond the end, UserError where a topic or partition is missing. `native`: None takes the compiled way where librdkafka is
    found, False forces confluent_kafka's own, which gives the same. patient: it may wait for many messages at once, which costs the
    broker less.
    """

    def __init__(self, kafka: KafkaConfig, positions: Sequence[Position], native: bool | None = None, patient: bool = False) -> None:
        self.kafka = kafka
        self.tables = tuple(dict.fromkeys(position.table for position in positions))
        self.topics = tuple(topic_of(kafka, table) for table in self.tables)
        self.native = library() is not None if native is None else native
        self._code = {table: code for code, table in enumerate(self.tables)}
        self._told: dict[str, str] = {}
        self._message_bytes = FIRST_BYTES
        self._paused: set[tuple[int, int]] = set()
        self._next: dict[tuple[int, int], int] = {}
        self._high: dict[tuple[int, int], int] = {}
        self._check(positions)
        try:
            kind: Callable[..., Feed] = NativeFeed if self.native else PlainFeed
            self._feed = kind(reader_settings(kafka, patient), self.tables, self.topics)
        except Failed as failed:
            raise refused(kafka, failed.text) from None
        try:
            self._start(positions)
        except BaseException:
            self._feed.close()
            raise

    def poll(self, rows_max: int = 10_000, timeout_s: float = 0.0) -> Polled:
        """At most `rows_max` messages, fewer where they are large (`POLL_BYTES`). With none there it waits up to `timeout_s` for the
        first, then takes what is there at once.

        A broker that is away is a warning, once, and an empty poll; PenstockError where messages are gone or may not be read.
        """
        most = min(rows_max, max(1, POLL_BYTES // self._message_bytes))
        polled = self._take(most, 0)
        if len(polled) or timeout_s <= 0:
            return polled
        deadline = time.monotonic() + timeout_s
        while (left_ms := int(1000 * (deadline - time.monotonic()))) > 0:
            # librdkafka waits until as many are there as were asked for, so one is
            polled = self._take(1, min(left_ms, SLICE_MS))
            if len(polled):
                if most > 1:
                    more = self._take(most - 1, 0)
                    return joined(polled, more) if len(more) else polled
                break
        return polled

    def positions(self) -> list[Position]:
        """The next offset of every partition: one past the last message that `poll` returned, or where it started."""
        return [Position(self.tables[table], partition, offset) for (table, partition), offset in self._next.items()]

    def seek(self, positions: Sequence[Position]) -> None:
        """Go on from other offsets of assigned partitions; what was fetched and not yet polled is dropped."""
        for position in positions:
            self._known(position.table, position.partition)
        self._start(positions)

    def pause(self, partitions: Sequence[tuple[str, int]]) -> None:
        """No messages of these (table, partition) until `resume`; the position stays."""
        wanted = [self._known(table, partition) for table, partition in partitions]
        self._asked(lambda: self._feed.pause(wanted))
        self._paused.update(wanted)

    def resume(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Messages of these again, from where they stopped."""
        wanted = [self._known(table, partition) for table, partition in partitions]
        self._asked(lambda: self._feed.resume(wanted))
        self._paused.difference_update(wanted)

    def watermarks(self, table: str, partition: int) -> tuple[int, int]:
        """(first offset that is there, one past the last), asked of the broker."""
        code, _ = self._known(table, partition)
        return self._bounds(code, partition)

    def lag(self) -> dict[tuple[str, int], int]:
        """Messages between the position and the end, by (table, partition), as of the last fetch; no request is made."""
        found: dict[tuple[str, int], int] = {}
        for (table, partition), offset in self._next.items():
            try:
                high = self._feed.last_bounds(table, partition)[1]
            except Failed:
                high = -1  # nothing was fetched of it yet
            self._high[table, partition] = max(high, self._high[table, partition])
            found[self.tables[table], partition] = max(0, self._high[table, partition] - offset)
        return found

    def close(self) -> None:
        """Let go of the broker. A second time does nothing."""
        self._feed.close()

    def _check(self, positions: Sequence[Position]) -> None:
        """UserError where a topic or partition that is asked for is not there."""
        if not positions:
            raise UserError("kafka: there is no partition to read")
        there = partitions(self.kafka, self.tables)
        for position in positions:
            if not 0 <= position.partition < there[position.table]:
                topic = topic_of(self.kafka, position.table)
                raise UserError(f"{topic} has partitions 0 to {there[position.table] - 1}, and no {position.partition}")

    def _start(self, positions: Sequence[Position]) -> None:
        """Assign, with these partitions at their offsets and the others where they are."""
        starts = dict(self._next)
        highs = {}
        for position in positions:
            where = self._code[position.table], position.partition
            low, highs[where] = self._bounds(*where)
            offset = {BEGINNING: low, END: highs[where]}.get(position.offset, position.offset)
            if not low <= offset <= highs[where]:
                raise self._gone(*where, offset)
            starts[where] = offset
        self._next = starts
        self._high = {**self._high, **highs}
        self._asked(lambda: self._feed.assign([(table, partition, offset) for (table, partition), offset in starts.items()]))
        if self._paused:
            self._asked(lambda: self._feed.pause(sorted(self._paused)))

    def _take(self, messages_max: int, timeout_ms: int) -> Polled:
        try:
            polled, troubles = self._feed.take(messages_max, timeout_ms)
        except Failed as failed:
            raise meaning(self.kafka, failed.name, failed.text, {}) from None
        if len(polled):
            self._message_bytes = 1 + int(polled.starts[-1]) // len(polled)
            if self._told:
                log.info("kafka: %s answers again", self.kafka.servers)
                self._told.clear()
            self._advance(polled)
        for trouble in troubles:
            self._meet(trouble)
        return polled

    def _advance(self, polled: Polled) -> None:
        where = polled.table * (int(polled.partition.max()) + 1) + polled.partition
        # the last message of each stretch of one partition; a later stretch of it overwrites
        for i in [*(where[1:] != where[:-1]).nonzero()[0].tolist(), len(where) - 1]:
            self._next[int(polled.table[i]), int(polled.partition[i])] = int(polled.offset[i]) + 1

    def _meet(self, trouble: Trouble) -> None:
        """Raise what a reader cannot go on after; say the rest once."""
        where = trouble.table, trouble.partition
        if trouble.name in _GONE and where in self._next:
            raise self._gone(*where, self._next[where])
        if trouble.name in _GROUP and not trouble.fatal:
            return
        if trouble.name in _PASSING and not trouble.fatal:
            if not self._told:
                log.warning("kafka: %s; trying again", struck(self.kafka, trouble.text))
            self._told[trouble.name] = trouble.text
            return
        if where in self._next and not trouble.name.endswith("AUTHORIZATION_FAILED"):
            topic, offset = self.topics[trouble.table], self._next[where]
            said = f"{trouble.name.lstrip('_')}: {struck(self.kafka, trouble.text)}"
            if trouble.name in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"):
                said = "it is no longer there"
            raise PenstockError(f"{topic} partition {trouble.partition} cannot be read from offset {offset} on: {said}")
        raise meaning(self.kafka, trouble.name, trouble.text, self._told)

    def _gone(self, table: int, partition: int, offset: int) -> PenstockError:
        low, high = self._bounds(table, partition)
        where = f"{self.topics[table]} partition {partition}"
        if offset < low:
            return PenstockError(
                f"{where}: the messages from offset {offset} to {low - 1} are gone: retention has passed them, the first that is there "
                f"is {low}; go on from it only if what they held is not needed, and keep such a topic with retention.ms=-1"
            )
        return PenstockError(
            f"{where}: offset {offset} is beyond the end, which is {high}; the topic was made anew or is not the one that was read before"
        )

    def _bounds(self, table: int, partition: int) -> tuple[int, int]:
        return self._asked(lambda: self._feed.bounds(table, partition, CONNECT_S_MAX))

    def _known(self, table: str, partition: int) -> tuple[int, int]:
        where = self._code.get(table, -1), partition
        if where not in self._next:
            raise UserError(f"kafka: partition {partition} of {table} is not one that is read")
        return where

    def _asked(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except Failed as failed:
            raise meaning(self.kafka, failed.name, failed.text, self._told) from None
