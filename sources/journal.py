"""The journal as it is read back: for each frame of a run, which messages of which partitions it was made of.

A process that starts says so in the journal before it reads it. What an older process wrote after that does not count, nor
does a frame whose rows are not all there: it had not been handed on. A frame that was written again is the same frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.config_live import KafkaConfig
from schemas.messages import RUN, header_text
from schemas.tables import Rows
from schemas.tables_live import INPUTS, JOURNAL

START = -1
"""The frame number of the row that says that a process starts."""


@dataclass(frozen=True)
class Range:
    """Messages of one partition: from an offset to one past the last."""

    table: str
    partition: int
    offset_from: int
    offset_to: int


@dataclass(frozen=True)
class Entry:
    """What a frame was made of. skip: missing numbers were given up before it."""

    number: int
    ranges: tuple[Range, ...]
    skip: bool
    ts_event_ns: int
    first_seq: int
    rows: int


class Journal:
    """Takes rows of the journal in the order of the log; `entries` are the frames that count, by number."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.start_ns = 0
        self._open: dict[tuple[int, int], list[Any]] = {}

    def add(self, rows: Rows) -> None:
        """More rows."""
        for row in rows:
            number, start_ns = int(row["frame_no"]), int(row["start_ns"])
            if number == START:
                self.start_ns = max(self.start_ns, start_ns)
                self._open.clear()
            elif start_ns >= self.start_ns:
                group = self._open.setdefault((number, start_ns), [])
                group.append(row)
                if len(group) == int(row["parts"]):
                    del self._open[number, start_ns]
                    self.entries[number] = _entry(group)

    def after(self, number: int) -> list[Entry]:
        """The frames from this number on, without a gap."""
        out = []
        while (found := self.entries.get(number)) is not None:
            out.append(found)
            number += 1
        return out

    def first_offsets(self) -> dict[tuple[str, int], int]:
        """Where each partition was first read."""
        first: dict[tuple[str, int], int] = {}
        for number in sorted(self.entries):
            for r in self.entries[number].ranges:
                first.setdefault((r.table, r.partition), r.offset_from)
        return first


def _entry(group: Sequence[Any]) -> Entry:
    ranges = tuple(Range(INPUTS[int(r["input"])], int(r["partition"]), int(r["offset_from"]), int(r["offset_to"])) for r in group)
    r = group[0]
    return Entry(int(r["frame_no"]), ranges, bool(r["skip"]), int(r["ts_event_ns"]), int(r["first_seq"]), int(r["rows"]))


def journal_rows(entry: Entry, start_ns: int) -> Rows:
    """The rows of the journal that say what a frame was made of; one at least."""
    rows = JOURNAL.empty(max(1, len(entry.ranges)))
    rows["frame_no"], rows["start_ns"], rows["parts"], rows["skip"] = entry.number, start_ns, len(rows), entry.skip
    rows["ts_event_ns"], rows["first_seq"], rows["rows"] = entry.ts_event_ns, entry.first_seq, entry.rows
    for k, r in enumerate(entry.ranges):
        rows["input"][k], rows["partition"][k] = INPUTS.index(r.table), r.partition
        rows["offset_from"][k], rows["offset_to"][k] = r.offset_from, r.offset_to
    return rows


def start_row(start_ns: int) -> Rows:
    """The row with which a process starts."""
    rows = JOURNAL.empty(1)
    rows["frame_no"], rows["start_ns"], rows["parts"] = START, start_ns, 1
    return rows


def read_journal(kafka: KafkaConfig, run: str, account_partition: int = 0, offset: int | None = None) -> tuple[Journal, int]:
    """The journal of a run as the topic holds it now, from an offset on; and the offset up to which it was read."""
    from schemas.codec_json import decode_json
    from sources.kafka_batch import BEGINNING, BatchReader, Position
    reader = BatchReader(kafka, [Position(JOURNAL.name, account_partition, BEGINNING if offset is None else offset)])
    journal = Journal()
    try:
        end = reader.watermarks(JOURNAL.name, account_partition)[1]
        while reader.positions()[0].offset < end:
            polled = reader.poll(100_000, 0.5)
            mine = [header_text(found, RUN) == run for found in polled.header_sets]
            payloads = [polled.payload(i) for i in range(len(polled)) if mine[int(polled.headers[i])]]
            if payloads:
                journal.add(decode_json(JOURNAL, payloads))
    finally:
        reader.close()
    return journal, end
