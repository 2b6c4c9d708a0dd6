"""Where a pipeline takes its input from, and the journal of what it took: the same calls with a broker and without.

`take` gives what has come since; `exactly` gives again what a frame was made of; `keep` writes a frame into the journal; `settle`
returns when the journal up to a frame would survive a crash. Nothing that was made of a frame may leave before that.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from brokers.partitions import partitions_of
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.tables_live import DEAD_LETTER, INPUTS, JOURNAL
from sinks.kafka import KafkaSink
from sources.journal import Entry, Journal, Range, journal_rows, read_journal, start_row
from sources.kafka_batch import BEGINNING, END, BatchReader, Position
from sources.kafka_input import KafkaInput, Key, Taken
from sources.kafka_topics import offsets_at
from telemetry import metrics

FIRST = ("control", "promotions")
"""Steering that is on the log when a process starts is read before any other input."""


class Feed(Protocol):
    """An input log with its journal. names: of symbols, by the codes of the arrivals. from_start: whether it is read from its beginning."""

    from_start: bool

    @property
    def names(self) -> tuple[str, ...]: ...
    def open(self, resume: Any | None, number: int) -> list[Entry]: ...
    def take(self, timeout_s: float) -> Taken: ...
    def exactly(self, ranges: Sequence[Range]) -> Taken: ...
    def ended(self) -> bool: ...
    def caught_up(self) -> bool: ...
    def keep(self, entry: Entry) -> None: ...
    def settle(self) -> None: ...
    def pause(self, keys: Sequence[Key]) -> None: ...
    def resume(self, keys: Sequence[Key]) -> None: ...
    def snapshot(self) -> Any: ...
    def close(self) -> None: ...


class KafkaFeed:
    """The input topics of a broker. start: earliest, latest, or a time in ns; it counts for a run's first start alone. once: end at
    the offsets that were the last ones at the start."""

    def __init__(self, kafka: KafkaConfig, run: str, account: str, start: str | int = "earliest", once: bool = False,
                 clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.kafka, self.run, self.start, self.once = kafka, run, start, once
        self.from_start = start == "earliest"
        self.sink = KafkaSink(kafka, run, account)
        self.start_ns = clock_ns()
        self.input: KafkaInput | None = None
        self.partitions: dict[str, int] = {}
        self._end: dict[Key, int] = {}
        self._journal_offset = 0
        self._journal: BatchReader | None = None

    @property
    def _input(self) -> KafkaInput:
        assert self.input is not None
        return self.input

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the symbols by the decoder's codes."""
        return self._input.names

    def open(self, resume: Any | None, number: int) -> list[Entry]:
        """Go on from a snapshot, or begin; gives the frames that the journal has from `number` on, which come first."""
        self.partitions = {table: partitions_of(self.kafka, table) for table in INPUTS}
        if resume is not None:
            self._check_partitions(resume["partitions"])
        self.sink.write(JOURNAL, start_row(self.start_ns))
        self.sink.flush()
        journal, self._journal_offset = read_journal(self.kafka, self.run, offset=None if resume is None else resume["journal_offset"])
        todo = journal.after(number)
        self.input = KafkaInput(self.kafka, self._first(journal) if resume is None else resume["next"],
                                () if resume is None else resume["names"], self._dead)
        self._end = {key: self.input.end(key) for key in self.input.next}
        # so that where they take effect does not hang on which partition answers first
        self.input.first({key: end for key, end in self._end.items() if key[0] in FIRST})
        if not todo and number == 0:
            # where a run begins is in its journal, so that a crash before the first snapshot does not move it
            todo = [Entry(0, tuple(Range(*key, at, at) for key, at in sorted(self.input.next.items())), False, 0, 0, 0)]
            self.keep(todo[0])
        return todo

    def _check_partitions(self, recorded: dict[str, int]) -> None:
        for table, count in recorded.items():
            if self.partitions[table] != count:
                raise UserError(f"topic {self.kafka.prefix}{table} has {self.partitions[table]} partitions, and run {self.run} was "
                                f"recorded with {count}; a symbol would change its place: start a new run, with --run another name")

    def _first(self, journal: Journal) -> dict[Key, int]:
        """Offsets of a run that has no snapshot: where its journal began, else where the user wants to."""
        keys = [(table, p) for table in INPUTS for p in range(self.partitions[table])]
        if journal.entries:
            return {**dict.fromkeys(keys, BEGINNING if self.from_start else END), **journal.first_offsets()}
        if isinstance(self.start, int):
            return offsets_at(self.kafka, keys, self.start)
        return dict.fromkeys(keys, BEGINNING if self.from_start else END)

    def _dead(self, records: Sequence[dict[str, Any]]) -> None:
        self.sink.write(DEAD_LETTER, list(records))
        for record in records:
            metrics.DEAD_LETTERS.labels(topic=record["topic"]).inc()

    def take(self, timeout_s: float) -> Taken:
        """All that is there, waiting for the first message at most so long."""
        return self._input.take(timeout_s)

    def exactly(self, ranges: Sequence[Range]) -> Taken:
        """The messages of these ranges, which begin where the last ones ended; what was read beyond them waits."""
        return self._input.exactly(ranges)

    def caught_up(self) -> bool:
        """Whether everything that was there at the start has been taken."""
        return all(self._input.next[key] >= end for key, end in self._end.items())

    def ended(self) -> bool:
        """Whether nothing more is wanted."""
        return self.once and self.caught_up()

    def keep(self, entry: Entry) -> None:
        """Write what a frame was made of; it is on its way, not yet there."""
        self.sink.write(JOURNAL, journal_rows(entry, self.start_ns))
        metrics.JOURNAL_FRAME.set(entry.number)

    def settle(self) -> None:
        """Return when everything kept is with the broker."""
        if self.sink.pending():
            self.sink.flush()

    def pause(self, keys: Sequence[Key]) -> None:
        """Fetch nothing of these partitions until `resume`."""
        self._input.pause(keys)

    def resume(self, keys: Sequence[Key]) -> None:
        """Fetch them again."""
        self._input.resume(keys)

    def snapshot(self) -> Any:
        """Where to go on. What was read and not taken is read again; what the journal gets from now on is of later frames."""
        self._journal_offset = self._journal_end()
        for (table, partition), lag in self._input.lag().items():
            metrics.LAG_MESSAGES.labels(topic=self.kafka.prefix + table, partition=str(partition)).set(lag)
        return {"next": dict(self._input.next), "names": self._input.names, "partitions": dict(self.partitions),
                "journal_offset": self._journal_offset}

    def _journal_end(self) -> int:
        if self._journal is None:
            self._journal = BatchReader(self.kafka, [Position(JOURNAL.name, 0, END)])
            self._journal.pause([(JOURNAL.name, 0)])  # it is asked for its end alone
        return self._journal.watermarks(JOURNAL.name, 0)[1]

    def close(self) -> None:
        """Everything kept is there; the connections are closed."""
        self.sink.close()
        if self._journal is not None:
            self._journal.close()
        if self.input is not None:
            self.input.close()
