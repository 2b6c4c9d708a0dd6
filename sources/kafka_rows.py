"""`Decoder`: polled messages become rows of their tables, and what cannot be read becomes dead letters.

Every message gives rows or a dead letter, none both and none neither; rows keep the order of their partition. A message is
read by compiled code where that is sure of it, else by `kafka_slow`, and the rows are the same bits.
"""

import base64
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.codec import has_text
from schemas.errors import UserError
from schemas.messages import CODEC, Headers, check_version
from schemas.tables import Rows, TableSpec
from schemas.topics import TABLES
from sources import kafka_arrow, kafka_gather, kafka_objects
from sources.kafka_arrow import ArrowReader
from sources.kafka_names import Interner
from sources.kafka_objects import JsonReader
from sources.kafka_polled import Ints, Polled
from sources.kafka_slow import read_message

__all__ = ["Block", "Decoded", "Decoder", "Interner"]

SLOW, JSON, ARROW, ANY = 0, 1, 2, 3
"""How a message is read; the last: its headers do not say."""
CODES = np.array([SLOW, JSON, ARROW, ANY], np.int8)


@dataclass(frozen=True)
class Block:
    """What one poll gave of one partition: rows in the order of the log.

    offsets: per row the offset of its message (int64, ascending; the rows of an Arrow message share one). offset_from,
    offset_to: the messages taken, dead ones included: first, and one past the last.
    """

    table: str
    partition: int
    rows: Rows
    offsets: Ints
    offset_from: int
    offset_to: int


@dataclass(frozen=True)
class Decoded:
    """blocks: by table in the order of `Polled.tables`, then partition; also where all messages of it were dead. dead: records of
    DEAD_LETTER, in the same order."""

    blocks: tuple[Block, ...]
    dead: tuple[dict[str, Any], ...]


class Decoder:
    """Keeps no state of its own but the names. clock: ns since 1970, for what is said of dead letters alone."""

    def __init__(self, symbols: Interner, strategies: Interner | None = None, clock: Callable[[], int] = time.time_ns) -> None:
        self.symbols = symbols
        self.strategies = Interner() if strategies is None else strategies
        self._clock = clock
        self._tables: dict[str, _Table] = {}

    def decode(self, polled: Polled) -> Decoded:
        """All messages of a poll. Never raises for what a message holds."""
        if len(polled) == 0:
            return Decoded((), ())
        blocks: list[Block] = []
        dead: list[dict[str, Any]] = []
        order = np.empty(len(polled), np.int64)
        groups = np.empty((len(polled), 4), np.int64)
        found = groups[: kafka_gather.grouped(polled.table, polled.partition, order, groups)].tolist()
        for code, of_table in itertools.groupby(found, key=lambda group: int(group[0])):
            mine = list(of_table)
            first = mine[0][2]
            cuts = [0, *(group[3] - first for group in mine)]
            blocks += self._table(polled, code, order[first : mine[-1][3]], cuts, dead)
        return Decoded(tuple(blocks), tuple(dead))

    def _table(self, polled: Polled, code: int, which: Ints, cuts: list[int], dead: list[dict[str, Any]]) -> list[Block]:
        """Blocks of one table: `which` are its messages, partition after partition, `cuts` where each partition begins and the end."""
        table = self._of(polled.tables[code])
        read: dict[int, Rows] = {}
        errors: dict[int, str] = {}

        def slowly(at: int) -> None:
            i = int(which[at])
            try:
                read[at] = read_message(
                    table.spec, polled.payload(i), polled.header_sets[polled.headers[i]], self.symbols, self.strategies
                )
            except Exception as error:  # whatever it holds, the message is kept, with what is wrong with it
                read[at] = table.spec.empty(0)
                errors[at] = str(error) if isinstance(error, UserError) else f"it cannot be read: {type(error).__name__}: {error}"

        rows, easy, ways = table.easy(polled, which, slowly)
        offsets = polled.offset[which]
        bounds = cuts
        if np.count_nonzero(easy) < len(easy):
            rows, counts = table.together(polled, which, rows, easy, ways, read, slowly)
            offsets = np.repeat(offsets, counts)
            bounds = np.concatenate(([0], np.cumsum(counts)))[cuts].tolist()
            dead += [dead_letter(polled, int(which[at]), errors[at], self._clock) for at in sorted(errors)]
        return [
            Block(
                table.spec.name, int(polled.partition[which[a]]), rows[first:last], offsets[first:last],
                int(polled.offset[which[a]]), int(polled.offset[which[b - 1]]) + 1,
            )
            for a, b, first, last in zip(cuts[:-1], cuts[1:], bounds[:-1], bounds[1:], strict=True)
        ]  # fmt: skip

    def _of(self, name: str) -> "_Table":
        if name not in self._tables:
            self._tables[name] = _Table(TABLES[name], self.symbols)
        return self._tables[name]


def dead_letter(polled: Polled, i: int, error: str, clock: Callable[[], int] = time.time_ns) -> dict[str, Any]:
    """The record of DEAD_LETTER for message i, of which `error` says what is wrong."""
    topic, partition, offset = polled.topics[int(polled.table[i])], int(polled.partition[i]), int(polled.offset[i])
    return {
        "ts_seen_ns": clock(), "topic": topic, "partition": partition, "offset": offset,
        "error": f"{topic} partition {partition} offset {offset}: {error}",
        "payload": base64.b64encode(polled.payload(i)).decode(),
    }  # fmt: skip


class _Table:
    """The quick readers of one table, where it has them, and which of them a message is for."""

    def __init__(self, spec: TableSpec, symbols: Interner) -> None:
        if has_text(spec):
            raise ValueError(f"{spec.name} has text columns: its messages are records, not rows")
        self.spec = spec
        self.json = JsonReader(spec, symbols) if kafka_objects.quick(spec) else None
        self.arrow = ArrowReader(spec, symbols) if kafka_arrow.quick(spec) else None
        self._judged: tuple[Headers, ...] = ()
        self._verdicts = np.zeros(0, np.int8)

    def easy(self, polled: Polled, which: Ints, stopped: Callable[[int], None]) -> tuple[Rows, npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The rows that the compiled parser made, which of them it did, and for each message how it is to be read."""
        if polled.header_sets is not self._judged:
            self._judged = polled.header_sets
            self._verdicts = np.array([self._verdict(kept) for kept in polled.header_sets], np.int8)
        ways = np.empty(len(which), np.int8)
        n_json = kafka_gather.sniffed(polled.data, polled.starts, polled.headers, which, self._verdicts, ways, CODES)
        if self.json is None or n_json == 0:
            return self.spec.empty(0), np.zeros(len(which), np.int8), ways
        rows, easy = self.json.rows(polled, which, stopped)
        if n_json < len(which):
            easy[ways != JSON] = 0
        return rows, easy, ways

    def together(
        self, polled: Polled, which: Ints, easy_rows: Rows, easy: npt.NDArray[np.int8], ways: npt.NDArray[np.int8], read: dict[int, Rows],
        slowly: Callable[[int], None],
    ) -> tuple[Rows, Ints]:  # fmt: skip
        """Rows in the order of their messages, of those that were easy and of those that were not; and how many each message gave.

        read: rows that the slow way gave, by place in `which`; it is asked for those that no quick way takes.
        """
        hard = np.flatnonzero(easy == 0).tolist()
        counts = np.ones(len(which), np.int64)
        batches: dict[int, list[Any]] = {}
        for at in hard:
            found = None
            if at not in read and ways[at] == ARROW and self.arrow is not None:
                found = self.arrow.batches(polled.data[polled.starts[which[at]] : polled.starts[which[at] + 1]])
            if found is not None:
                batches[at] = found
                counts[at] = sum(batch.num_rows for batch in found)
            else:
                if at not in read:
                    slowly(at)
                counts[at] = len(read[at])
        rows = np.empty(int(counts.sum()), self.spec.dtype)
        opaque = f"V{rows.itemsize}"  # records without fields are copied many times faster
        target, source = rows.view(opaque), easy_rows.view(opaque)
        done, begin = 0, 0
        for at in hard:
            target[done : done + at - begin] = source[begin:at]
            done, begin = done + at - begin, at + 1
            if at in batches and not self._filled(rows[done : done + counts[at]], batches[at]):
                slowly(at)
                counts[at] = len(read[at])
            if at in read:
                target[done : done + counts[at]] = read[at].view(opaque)
            done += int(counts[at])
        target[done : done + len(which) - begin] = source[begin : len(which)]
        return rows[: done + len(which) - begin], counts

    def _filled(self, rows: Rows, batches: list[Any]) -> bool:
        done = 0
        for batch in batches:
            if self.arrow is None or not self.arrow.fill(rows[done : done + batch.num_rows], batch):
                return False
            done += batch.num_rows
        return True

    def _verdict(self, headers: Headers) -> int:
        """How the headers say that a message is to be read; SLOW where they are wrong, which is then told."""
        try:
            check_version(self.spec, headers)
        except UserError:
            return SLOW
        named = [value for name, value in headers if name == CODEC]
        return {b"arrow": ARROW, b"json": JSON}.get(named[0], SLOW) if named else ANY
