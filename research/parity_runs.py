"""Parity of one run: its plan, its journal and its records from wherever it keeps them, and the verdict as one object."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operators.assembly import Plan
from research.learning.resolving import planned
from research.parity import Again, Input, compare, fed_by, rerun
from research.parity_records import KafkaRecorded, Recorded, WarehouseRecorded
from research.recording import config_of
from research.running import HELD_FRAMES, STOPPED
from research.stored import StoredRun
from schemas.config_live import KafkaConfig
from schemas.errors import UserError, unknown
from schemas.frame import Arrival
from schemas.tables import Rows
from schemas.tables_desk import RUNS
from sources.journal import Entry, read_journal
from sources.kafka_input import KafkaInput, Taken
from sources.local_log import LocalLog


def plan_of(record: Mapping[str, Any]) -> Plan:
    """The plan that a row of `runs` recorded."""
    return planned(config_of(str(record["config"])), json.loads(record["strategies"]))


@dataclass(frozen=True)
class Recording:
    """What a run was given, to be formed again. records: its rows of `runs`, the first one its plan's. source: a new reader each time."""

    records: list[dict[str, Any]]
    source: Callable[[], Input]

    @property
    def plan(self) -> Plan:
        return plan_of(self.records[0])


def kafka_recording(kafka: KafkaConfig, run: str) -> Recording:
    """The input of a run on a broker's topics; UserError where there is no such run."""
    from schemas.codec_json import decode_json_records
    from schemas.messages import RUN, header_text
    from sources.kafka_topics import payloads_of, polls_of
    records = decode_json_records(RUNS, payloads_of(kafka, RUNS.name, run))
    if not records:
        known = sorted({header_text(h, RUN) for p in polls_of(kafka, [RUNS.name]) for h in p.header_sets} - {""})
        raise unknown("run", run, known) if known else UserError(f'unknown run "{run}"; the topic {kafka.prefix}runs holds none')
    journal, _ = read_journal(kafka, run)
    entries = journal.after(0)
    if not entries:
        raise UserError(f"run {run} has no frames in the topic {kafka.prefix}journal")
    from_start = json.loads(records[0]["data"])["from"] == "earliest"

    def source() -> Input:
        feed = KafkaInput(kafka, journal.first_offsets())
        return Input(run, entries, lambda entry: feed.exactly(entry.ranges), lambda: feed.names, from_start)

    return Recording(records, source)


def local_recording(log: LocalLog, run: str) -> Recording:
    """The input of a run without a broker; UserError where it never started."""
    record = json.loads(log.fact("run") or "{}")
    if not record:
        raise UserError(f"{log.folder}: the run never started")

    def take(entry: Entry) -> Taken:
        return Taken(tuple(Arrival(r.table, 0, log.read(r)) for r in entry.ranges if r.offset_to > r.offset_from), entry.ranges)

    return Recording([record], lambda: Input(run, log.entries(), take, lambda: tuple(log.names), True))


def kafka_parity(kafka: KafkaConfig, run: str, ts_from: int | None = None, ts_to: int | None = None) -> dict[str, Any]:
    """Parity of a run on a broker's topics."""
    given = kafka_recording(kafka, run)
    stopped, external = given.records[-1]["state"] == STOPPED, bool(json.loads(given.records[0]["data"])["external"])
    return verdict(run, given.plan, given.source(), given.source, KafkaRecorded(kafka, run), stopped, external, ts_from, ts_to,
                   2 * HELD_FRAMES)


def local_parity(folder: Path, url: str, run: str, ts_from: int | None = None, ts_to: int | None = None) -> dict[str, Any]:
    """Parity of a run without a broker: its input is in its folder, what it made is in the warehouse."""
    log = LocalLog(folder, create=False)
    given = local_recording(log, run)
    stored = StoredRun(url, run)
    try:
        stopped = given.records[0]["state"] == STOPPED
        return verdict(run, given.plan, given.source(), given.source, WarehouseRecorded(stored), stopped, False, ts_from, ts_to)
    finally:
        stored.client.close()
        log.close()


def verdict(run: str, made: Plan, source: Input, second: Callable[[], Input], recorded: Recorded, stopped: bool, external: bool,
            ts_from: int | None, ts_to: int | None, held: int = 0) -> dict[str, Any]:
    """Replay and compare. held: so many frames before the newest row may be on the topics in part."""
    from research.replaying import warm_up
    warm_up(made)
    again = Again()
    rerun(made, source.frames(), external, again)
    horizon, unpublished = (None, 0) if stopped else published(recorded, again, made, source.entries, held)

    def keep(rows: Rows) -> Rows:
        mask = np.ones(len(rows), bool)
        if horizon is not None:
            mask &= rows["seq"] < horizon
        if ts_from is not None:
            mask &= rows["ts_event_ns"] >= ts_from
        if ts_to is not None:
            mask &= rows["ts_event_ns"] < ts_to
        return rows if mask.all() else rows[mask]

    counts, difference = compare(recorded, again, made.names, keep)
    result: dict[str, Any] = {
        "run_id": run, "ok": difference is None, "frames": len(source.entries), "rows_in": sum(e.rows for e in source.entries),
        "compared": counts, "unpublished_frames": unpublished, "difference": None,
    }
    if difference is not None:
        result["difference"] = {**asdict(difference), "fed_by": fed_by(made, second(), external, difference)}
    return result


def published(recorded: Recorded, again: Again, made: Plan, entries: list[Entry], held: int) -> tuple[int, int]:
    """The tape position up to which a run that did not stop has surely published, and how many frames of its journal lie beyond.

    The frame of the last row that is there may be there in part, so it does not count; nor do frames before it that the run may have held
    back when it ended, see `research.running.KafkaOutlet`: those of the group that waited and of the one that was on its way.
    """
    from research.parity import STAGES
    symbols = recorded.symbols(again.symbols)
    last = -1
    for _, specs in STAGES:
        for spec in specs:
            rows = recorded.rows(spec, symbols, made.names)
            last = max(last, int(rows["seq"].max()) if len(rows) else -1)
    at = next((k for k, e in enumerate(entries) if e.first_seq <= last < e.first_seq + e.rows), 0)
    horizon = entries[max(0, at - held)].first_seq if entries else 0
    return horizon, sum(1 for e in entries if e.rows and e.first_seq >= horizon)
