"""Where a writer stopped: its rows at the ends of the input topics, found again after a crash at any moment.

A writer's checkpoint is a committed offset per partition, whose metadata say what stands before it: `floor` (every number
below it is on the log), `highest` (the writer's highest number before the offset, -1 for none) and the fingerprint of
what is written. So only what was written after the last checkpoint is read; without one, the whole partition.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from brokers.client import CONNECT_S_MAX, patiently
from schemas.codec import from_arrow, names_in
from schemas.errors import PenstockError, UserError
from schemas.messages import codec_of, decode_arrow
from schemas.tables import TableSpec

COUNTER_BITS = 48
COUNTER_MASK = (1 << COUNTER_BITS) - 1
_CONSUME = 5_000
_STILL_S = 0.2
"""What a killed writer had on the wire is on the log after that long."""
_ROUNDS_MAX = 20
_PROGRESS_S_MAX = 30.0
_SOON = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
         KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)
Ints = npt.NDArray[np.int64]
Place = tuple[str, int]
"""A table's name and a partition of its topic."""
Topics = Mapping[str, tuple[TableSpec, str, int]]
"""Table → its declaration, its topic's name, and the number of partitions."""


@dataclass
class Tail:
    """What a partition holds of the writer: its highest number, the end offset, the numbers found since the checkpoint."""

    highest: int = -1
    end: int = 0
    found: set[int] = field(default_factory=set)
    known: bool = False


@dataclass
class Tails:
    """All partitions; floor: every number below it is on the log. ts_ns: (number, event time) of the highest row found, if any."""

    partitions: dict[Place, Tail]
    floor: int = 0
    newest: tuple[int, int] | None = None

    @property
    def next(self) -> int:
        """One past the highest number on the log."""
        return max([self.floor, *(t.highest + 1 for t in self.partitions.values())])

    def missing(self, window: int) -> Ints:
        """Numbers below the highest that are on no partition; `window` bounds how far back one can be."""
        low = max(self.floor, self.next - window)
        there = np.zeros(self.next - low, np.bool_)
        for tail in self.partitions.values():
            inside = np.array([n for n in tail.found if n >= low], np.int64)
            there[inside - low] = True
        return np.flatnonzero(~there) + low


def metadata_text(floor: int, highest: int, fingerprint: str) -> str:
    """What a checkpoint says beside its offset."""
    return f"{floor} {highest} {fingerprint}"


class _Seq(msgspec.Struct):
    seq: int = -1
    ts_event_ns: int = 0


_seq = msgspec.json.Decoder(_Seq)


def read_tails(consumer: Any, topics: Topics, writer: int, name: str, fingerprint: str,
               told: Callable[[int], None] = lambda messages: None) -> Tails:
    """The tails of a writer. `told` is given the number of messages to read.

    UserError where the checkpoint is of other data or of other partitions, or where another process writes under the name.
    """
    tails, starts = _checkpoint(consumer, topics, name, fingerprint)
    specs = {topic: spec for spec, topic, _ in topics.values()}
    for round_no in range(_ROUNDS_MAX):
        ends = {place: patiently(partial(consumer.get_watermark_offsets, TopicPartition(topics[place[0]][1], place[1]),
                                         timeout=CONNECT_S_MAX, cached=False)) for place in tails.partitions}
        spans: dict[Place, tuple[int, int]] = {}
        for place, (low, high) in ends.items():
            start = starts[place]
            if start > high:  # the topic was made anew
                start, tails.partitions[place].highest = low, -1
            spans[place] = (max(start, low), high)
            tails.partitions[place].end = starts[place] = high
        waiting = sum(high - start for start, high in spans.values())
        if round_no == 0:
            told(waiting)
        if not _scan(consumer, topics, specs, spans, writer, tails) and round_no:
            return tails
        time.sleep(_STILL_S)
    raise UserError(f'another process is writing as "{name}"; stop it, or give this one another --writer')


def _checkpoint(consumer: Any, topics: Topics, name: str,
                fingerprint: str) -> tuple[Tails, dict[Place, int]]:
    """What the committed offsets say, and the offsets to read from."""
    places = {(topic, p): (table, p) for table, (_, topic, n) in topics.items() for p in range(n)}
    committed = patiently(lambda: consumer.committed([TopicPartition(t, p) for t, p in places], timeout=CONNECT_S_MAX))
    tails = Tails({place: Tail() for place in places.values()})
    starts = {}
    for found in committed:
        if found.error is not None:
            raise KafkaException(found.error)
        place = places[(found.topic, found.partition)]
        starts[place] = 0
        parts = (found.metadata or "").split(" ", 2)
        if found.offset < 0 or found.offset == OFFSET_INVALID or len(parts) != 3:
            continue
        if parts[2] != fingerprint:
            raise UserError(f'the writer "{name}" has written other data to these topics; give another --writer')
        tails.floor = max(tails.floor, int(parts[0]))
        tails.partitions[place] = Tail(int(parts[1]), found.offset, known=True)
        starts[place] = found.offset
    for table, (_, topic, n) in topics.items():
        known = sum(tails.partitions[table, p].known for p in range(n))
        if known not in (0, n):
            raise UserError(f'topic {topic} has {n} partitions and had {known} when "{name}" wrote to it: a symbol\'s rows would be in two '
                            f"of them; give another --writer and start a new run")
    return tails, starts


def _watermarks(consumer: Any, topic: str, partition: int) -> tuple[int, int]:
    """The first offset and the end; a partition that has just been made may have no leader for a moment."""
    deadline = time.monotonic() + CONNECT_S_MAX
    while True:
        try:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=CONNECT_S_MAX, cached=False)
            return first, end
        except KafkaException as error:
            if error.args[0].code() not in _SOON or time.monotonic() > deadline:
                raise
            time.sleep(_STILL_S)


def _scan(consumer: Any, topics: Topics, specs: Mapping[str, TableSpec],
          spans: Mapping[Place, tuple[int, int]], writer: int, tails: Tails) -> int:
    """Reads the spans and notes the writer's rows; how many there were."""
    left = {(topics[t][1], p): high for (t, p), (start, high) in spans.items() if start < high}
    if not left:
        return 0
    consumer.assign([TopicPartition(topics[t][1], p, start) for (t, p), (start, high) in spans.items() if start < high])
    own, progress_at = 0, time.monotonic()
    while left:
        for message in consumer.consume(_CONSUME, timeout=0.5):
            at = message.topic(), message.partition()
            progress_at = time.monotonic()
            if message.error() is not None:
                if message.error().code() == KafkaError._PARTITION_EOF:
                    left.pop(at, None)
                    continue
                raise KafkaException(message.error())
            if at not in left:
                continue
            spec = specs[at[0]]
            own += _note(spec, message.value(), message.headers(), writer, tails, (spec.name, at[1]))
            if message.offset() + 1 >= left[at]:
                del left[at]
        if time.monotonic() - progress_at > _PROGRESS_S_MAX:
            raise PenstockError(f"the broker gave nothing of {len(left)} partitions for {_PROGRESS_S_MAX:.0f} s; start again later")
    consumer.unassign()
    return own


def _note(spec: TableSpec, payload: bytes | None, headers: Any, writer: int, tails: Tails, place: Place) -> int:
    """Notes the writer's numbers in a message; one that cannot be read is of another writer."""
    try:
        if payload is None:
            return 0
        if codec_of(payload, headers) == "json":
            row = _seq.decode(payload)
            if row.seq < 0 or row.seq >> COUNTER_BITS != writer:
                return 0
            counters, highest, ts_ns = [row.seq & COUNTER_MASK], row.seq & COUNTER_MASK, row.ts_event_ns
        else:
            table = decode_arrow(payload)
            rows = from_arrow(spec, table, names_in(table))
            mine = rows[(rows["seq"] >= 0) & (rows["seq"] >> COUNTER_BITS == writer)]
            if len(mine) == 0:
                return 0
            last = mine[mine["seq"].argmax()]
            counters, highest, ts_ns = (mine["seq"] & COUNTER_MASK).tolist(), int(last["seq"]) & COUNTER_MASK, int(last["ts_event_ns"])
    except (UserError, msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return 0
    tail = tails.partitions[place]
    tail.found.update(counters)
    tail.highest = max(tail.highest, highest)
    if tails.newest is None or highest > tails.newest[0]:
        tails.newest = (highest, ts_ns)
    return len(counters)
