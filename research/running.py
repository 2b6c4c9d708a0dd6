"""A live or paper run: what it is made of, what it remembers of itself, and what a second start has to have in common with the first.

With a broker the run is its topics; without one it is a folder and the warehouse. Either way a run has one plan: a start with
another one is refused, since what follows could not be told apart from what was before.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflows.feeds import Feed, KafkaFeed
from dataflows.live import Wiring, run_live
from dataflows.local_feed import LocalFeed
from operators.assembly import Plan
from operators.strategies.documents import to_data
from research.learning.resolving import as_recorded, registered
from research.recording import RECORDED_TABLES, RUNNING
from schemas.codec_features import FEATURES
from schemas.config import Config, config_document, parse_config
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame, together
from schemas.tables import BARS, BEATS, LATE, REJECTED, SIGNALS, TableSpec
from schemas.tables_desk import AUDIT, DECISIONS, EQUITY, FILLS, FUNDING_RATES, LEDGER, NEW, ORDERS, POSITIONS, RUNS
from schemas.tables_live import APPROVED, REPORTS
from schemas.tables_models import MODEL_TABLES
from sinks.clickhouse import ClickHouseSink
from sinks.kafka import KafkaSink
from sources.local_log import LocalLog

AT_ONCE: tuple[TableSpec, ...] = (APPROVED, ORDERS)
"""What somebody waits for."""
MADE: tuple[TableSpec, ...] = (
    FILLS, DECISIONS, LEDGER, POSITIONS, EQUITY, SIGNALS, BARS, *MODEL_TABLES, FEATURES, REJECTED, LATE, AUDIT,
)
"""What else a run publishes."""
HELD_FRAMES, HELD_ROWS, HELD_S = 8, 4_000, 0.05
"""So many frames, rows or seconds at most wait to be published together."""
STOPPED = "stopped"
Settle = Callable[[], None]
Frames = Callable[[int, Callable[[], bool]], Iterator[Frame]]


class KafkaOutlet:
    """The tables of every frame to their topics. Approvals and orders leave as soon as there is a new one; the rest of a few frames leaves
    together, since a message costs about the same whether it carries one row or fifty. A group is begun when the one before it is with
    the broker."""

    def __init__(self, kafka: KafkaConfig, run: str, made: Plan, settle: Settle) -> None:
        self.sink = KafkaSink(kafka, run, made.config.account)
        self.names = made.names
        self.features = made.config.live.record_features
        self._settle = settle
        self._orders: list[Frame] = []
        """Frames whose orders have not left: none of them has a new one."""
        self._held: list[Frame] = []
        self._held_rows = 0
        self._held_since = 0.0

    def write(self, frame: Frame) -> None:
        bare = frame.without_features()
        self._orders.append(bare)
        if len(frame.rows(APPROVED)) or (frame.rows(ORDERS)["state"] == NEW).any():
            self._order()
        if not self._held:
            self._held_since = time.monotonic()
        self._held.append(frame if self.features else bare)
        self._held_rows += sum(len(rows) for rows in frame.tables.values())
        if len(self._held) >= HELD_FRAMES or self._held_rows >= HELD_ROWS or time.monotonic() - self._held_since >= HELD_S:
            self._publish()

    def _order(self) -> None:
        self._settle()
        self.sink.write_frame(together(self._orders, AT_ONCE), self.names, AT_ONCE)
        self._orders = []

    def _publish(self) -> None:
        if not self._held:
            return
        self._settle()
        if not self.sink.acknowledged():
            self.sink.flush()
        if self._orders:
            self._order()
        self.sink.write_frame(together(self._held, MADE), self.names, MADE)
        self._held, self._held_rows = [], 0

    def flush(self) -> None:
        self._publish()
        self.sink.flush()

    def close(self) -> None:
        self._publish()
        self.sink.close()


class WarehouseOutlet:
    """The tables of every frame, input too, to the warehouse."""

    def __init__(self, url: str, run: str, made: Plan, settle: Settle) -> None:
        self.sink = ClickHouseSink(url, run)
        self._settle = settle
        self.names = made.names
        self.features = made.config.live.record_features
        self.tables = (*RECORDED_TABLES, BEATS, FUNDING_RATES, REPORTS, APPROVED)

    def write(self, frame: Frame) -> None:
        self._settle()
        for spec in self.tables:
            rows = frame.rows(spec)
            if len(rows):
                self.sink.write(spec, rows, frame.symbols, self.names)
        for features in frame.features:
            if self.features and len(features.bars):
                self.sink.write_features(features, frame.symbols)

    def flush(self) -> None:
        self.sink.flush()

    def close(self) -> None:
        self.sink.close()


@dataclass
class Running:
    """A run that is about to start. start: where a new run begins to read (earliest, latest, a time in ns). once: end where the
    topics end now. url: the warehouse, for a run without a broker. frames: its source."""

    plan: Plan
    run: str
    external: bool = False
    start: str | int = "earliest"
    once: bool = False
    workers: int = 1
    process: int = 0
    peers: tuple[str, ...] = ()
    url: str = ""
    frames: Frames | None = None
    command: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    seen: Callable[[Frame], None] | None = None
    symbols: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the run keeps its recovery store and, without a broker, its input."""
        return Path(self.plan.config.live.state_dir) / self.run

    def go(self) -> None:
        """Run until stopped or at the end. PenstockError and UserError come out as they were raised in the workers."""
        kafka = self.plan.config.kafka
        shards = self._shards()
        if kafka is not None:
            feed: Callable[[], Feed] = lambda: KafkaFeed(kafka, self.run, self.plan.config.account, self.start, self.once)  # noqa: E731
            outlet: Callable[[Settle], Any] = lambda settle: KafkaOutlet(kafka, self.run, self.plan, settle)  # noqa: E731
        else:
            assert self.frames is not None
            frames = self.frames
            feed = lambda: LocalFeed(LocalLog(self.folder), frames, self.stop)  # noqa: E731
            outlet = lambda settle: WarehouseOutlet(self.url, self.run, self.plan, settle)  # noqa: E731
        def seen(frame: Frame) -> None:
            self.symbols = frame.symbols
            if self.seen is not None:
                self.seen(frame)

        wiring = Wiring(self.plan, self.run, feed, outlet, shards, self.external, self.plan.config.live.hold_s,
                        self.plan.config.live.held_rows_max, len(self.peers) > 1, self.stop, seen=seen)
        if self.process == 0:
            self.say(RUNNING, first=True)
        with raised_as_it_was(), one_process(self.folder, self.process):
            run_live(wiring, self.folder / "recovery", self.plan.config.live.snapshot_s, self.workers, self.process, self.peers)
        if self.process == 0:
            self.say(STOPPED)

    def _shards(self) -> int:
        """The number of shards, which a run keeps: a symbol's state lives under its shard's name."""
        path = self.folder / "shards"
        if path.exists():
            return int(path.read_text())
        shards = max(self.plan.config.live.shards, self.workers * max(1, len(self.peers)))
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(str(shards))
        return shards

    def record(self, state: str) -> dict[str, Any]:
        """The row of `runs`."""
        made = self.plan
        return {
            "ts_started_ns": time.time_ns(), "state": state, "command": self.command, "config": json.dumps(config_document(made.config)),
            "policy": made.config.policy.to_yaml(), "strategies": json.dumps([to_data(spec) for spec in made.specs]),
            "feature_names": json.dumps({str(ns): list(names) for ns, names in made.features.items()}),
            "data": json.dumps({"from": self.start, "kafka": made.config.kafka is not None, "external": self.external,
                                "shards": self._shards(), "symbols": list(self.symbols)}), "summary": "{}",
        }

    def say(self, state: str, first: bool = False) -> None:
        """Record how the run stands; at a start, see that it is the run that it was."""
        record = self.record(state)
        kafka = self.plan.config.kafka
        if first:
            before = recorded_run(kafka, self.run) if kafka is not None else local_run(self.folder)
            if before is not None:
                check_same(self.run, before, record)
        if kafka is not None:
            with KafkaSink(kafka, self.run, self.plan.config.account) as sink:
                sink.write(RUNS, [record])
            return
        log = LocalLog(self.folder)
        log.note("run", json.dumps(record))
        log.close()
        with contextlib.closing(ClickHouseSink(self.url, self.run)) as warehouse:
            warehouse.write(RUNS, [record])


def check_same(run: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError where a run would go on with another plan than it began with."""
    for name in ("config", "strategies", "policy"):
        if before[name] != now[name]:
            a, b = (json.loads(x[name]) if name != "policy" else x[name] for x in (before, now))
            where = name
            if isinstance(a, dict) and isinstance(b, dict):
                where = next((f"{name} {key}" for key in {**a, **b} if a.get(key) != b.get(key)), name)
            raise UserError(f'run "{run}" began with another {where}; start a new run with --run another name')


def as_begun(config: Config, run: str) -> Config:
    """The configuration with the versions of registered models that the run began with, where it began before."""
    if not registered(config.models):
        return config
    before = recorded_run(config.kafka, run) if config.kafka is not None else local_run(Path(config.live.state_dir) / run)
    return config if before is None else as_recorded(config, parse_config(json.loads(before["config"]), f"run {run}"))


def local_run(folder: Path) -> dict[str, Any] | None:
    """What a run without a broker remembers of itself."""
    if not (folder / "input.sqlite3").exists():
        return None
    log = LocalLog(folder, create=False)
    text = log.fact("run")
    log.close()
    return None if text is None else dict(json.loads(text))


def recorded_run(kafka: KafkaConfig, run: str) -> dict[str, Any] | None:
    """The first row of `runs` of a run, None where the topic has none."""
    from schemas.codec_json import decode_json_records
    from sources.kafka_topics import payloads_of
    found = payloads_of(kafka, RUNS.name, run)
    records = decode_json_records(RUNS, found)
    return records[0] if records else None


@contextlib.contextmanager
def one_process(folder: Path, process: int) -> Iterator[None]:
    """Nobody else runs this run from this folder meanwhile."""
    import fcntl
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"lock-{process}").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"run {folder.name} is running already, as process {file.read() or '?'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def raised_as_it_was() -> Iterator[None]:
    """An error of ours that Bytewax carried out of a worker, without what was wrapped around it."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, PenstockError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise
