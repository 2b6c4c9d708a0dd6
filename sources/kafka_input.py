"""The input topics as one stream of arrivals: what has come, or exactly the messages that a frame was once made of.

Every message is taken once, in the order of its partition; a dead one counts as taken and is handed to `dead`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError
from schemas.frame import Arrival
from schemas.tables_live import INPUTS
from sources.journal import Range
from sources.kafka_batch import BatchReader, Position
from sources.kafka_rows import Block, Decoder, Interner

POLL_MESSAGES = 16_384
EXACTLY_S_MAX = 30.0
Key = tuple[str, int]
"""A table's topic and a partition."""


@dataclass(frozen=True)
class Taken:
    """What a poll gave, and from where. written_ms: when its newest message was written, 0 where that is not known."""

    arrivals: tuple[Arrival, ...] = ()
    ranges: tuple[Range, ...] = ()
    written_ms: int = 0


class KafkaInput:
    """positions: where to begin, by table and partition. names: symbols that have codes already. dead: takes records of dead letters."""

    def __init__(self, kafka: KafkaConfig, positions: Mapping[Key, int], names: Sequence[str] = (),
                 dead: Callable[[Sequence[dict[str, Any]]], None] = lambda records: None) -> None:
        self.kafka, self._dead = kafka, dead
        self._interner = Interner()
        self._interner.restore(tuple(names))
        self._decoder = Decoder(self._interner)
        self._reader = BatchReader(kafka, [Position(t, p, o) for (t, p), o in sorted(positions.items())])
        self.next: dict[Key, int] = {(p.table, p.partition): p.offset for p in self._reader.positions()}
        self._blocks: dict[Key, list[Block]] = {}
        self._written_ms = 0
        self.poll_messages = POLL_MESSAGES

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the symbols by the decoder's codes."""
        return self._interner.names

    def _poll(self, timeout_s: float) -> int:
        polled = self._reader.poll(self.poll_messages, timeout_s)
        if not len(polled):
            return 0
        self._written_ms = max(self._written_ms, int(polled.timestamp_ms.max()))
        decoded = self._decoder.decode(polled)
        for block in decoded.blocks:
            self._blocks.setdefault((block.table, block.partition), []).append(block)
        if decoded.dead:
            self._dead(decoded.dead)
        return len(polled)

    def first(self, wanted: Mapping[Key, int]) -> None:
        """Read these partitions up to these offsets before anything else; PenstockError where nothing comes."""
        def missing() -> list[Position]:
            return [p for p in self._reader.positions() if p.offset < wanted.get((p.table, p.partition), 0)]

        if not missing():
            return
        others = [key for key in self.next if key not in wanted]
        deadline = time.monotonic() + EXACTLY_S_MAX
        self.pause(others)
        while left := missing():
            if self._poll(0.05):
                deadline = time.monotonic() + EXACTLY_S_MAX
            elif time.monotonic() > deadline:
                where = f"{self.kafka.prefix}{left[0].table} partition {left[0].partition} after offset {left[0].offset}"
                raise PenstockError(f"the broker at {self.kafka.servers} gave nothing for {EXACTLY_S_MAX:.0f} s of {where}")
        self.resume(others)

    def take(self, timeout_s: float) -> Taken:
        """All that is there, waiting for the first message at most so long."""
        if not self._blocks:
            self._poll(timeout_s)
        if not self._blocks:
            return Taken()
        blocks, self._blocks = self._blocks, {}
        ranges, arrivals = [], []
        for key in sorted(blocks, key=lambda k: (INPUTS.index(k[0]), k[1])):
            end = blocks[key][-1].offset_to
            ranges.append(Range(*key, self.next[key], end))
            self.next[key] = end
            arrivals += [Arrival(*key, block.rows) for block in blocks[key] if len(block.rows)]
        return Taken(tuple(arrivals), tuple(ranges), self._written_ms)

    def exactly(self, ranges: Sequence[Range]) -> Taken:
        """The messages of these ranges, which begin where the last ones ended; what was read beyond them waits."""
        deadline = time.monotonic() + EXACTLY_S_MAX
        wanted = {(r.table, r.partition): r for r in ranges if r.offset_to > r.offset_from}
        for key, r in wanted.items():
            if self.next[key] > r.offset_from:
                raise PenstockError(f"the journal goes back: {r} after offset {self.next[key]}")
        while any(self._read_to(key) < r.offset_to for key, r in wanted.items()):
            if self._poll(0.05):
                deadline = time.monotonic() + EXACTLY_S_MAX
            elif time.monotonic() > deadline:
                self._explain(list(wanted.values()))
        arrivals = []
        for key, r in wanted.items():
            arrivals += [Arrival(*key, rows) for rows in self._cut(key, r.offset_to) if len(rows)]
            self.next[key] = r.offset_to
        return Taken(tuple(arrivals), tuple(ranges))

    def _explain(self, wanted: Sequence[Range]) -> None:
        """Why messages that the journal names do not come."""
        for r in wanted:
            end = self.end((r.table, r.partition))
            if end < r.offset_to:
                where = f"{self.kafka.prefix}{r.table} partition {r.partition}"
                raise PenstockError(f"{where} ends at offset {end}, and the journal has read it up to {r.offset_to}: the "
                                    "log is not the one that the journal was written for")
        raise PenstockError(f"the broker at {self.kafka.servers} gave nothing for {EXACTLY_S_MAX:.0f} s of {wanted[0]}, which the journal "
                            "names")

    def _read_to(self, key: Key) -> int:
        blocks = self._blocks.get(key)
        return blocks[-1].offset_to if blocks else self.next[key]

    def _cut(self, key: Key, until: int) -> list[Any]:
        """The rows of a partition before an offset, taken out of what was read."""
        out, left = [], []
        for b in self._blocks.pop(key, []):
            if b.offset_to <= until:
                out.append(b.rows)
            elif b.offset_from >= until:
                left.append(b)
            else:
                at = int(np.searchsorted(b.offsets, until))
                out.append(b.rows[:at])
                left.append(Block(b.table, b.partition, b.rows[at:], b.offsets[at:], until, b.offset_to))
        if left:
            self._blocks[key] = left
        return out

    def pause(self, keys: Sequence[Key]) -> None:
        """Fetch nothing of these until `resume`."""
        self._reader.pause(keys)

    def resume(self, keys: Sequence[Key]) -> None:
        """Fetch them again."""
        self._reader.resume(keys)

    def end(self, key: Key) -> int:
        """One past the last message that is there now."""
        return self._reader.watermarks(*key)[1]

    def lag(self) -> dict[Key, int]:
        """Messages that are there and were not read, as of the last fetch."""
        return self._reader.lag()

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
