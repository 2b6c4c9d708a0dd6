"""The pipeline as a Bytewax dataflow, from topics to topics: feed → sequence → shards → market → align → desk → sink.

The same operators as a backtest's. Killed anywhere, it goes on from its last snapshot, forms the frames that the journal has
after it exactly as they were, and then goes on with what has come since.
"""

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import InconsistentPartitionsError, MissingPartitionsError, NoPartitionsError, RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main, run_main

from dataflows.feeds import Feed
from dataflows.lift import lift, lift_aligned, shard_key
from operators.assembly import Plan, account_chain, market_chain
from operators.market.sequence import Sequencer
from operators.market.shards import split
from schemas.errors import PenstockError
from schemas.frame import Frame
from schemas.tables_desk import NEW, ORDERS
from sources.journal import Entry
from telemetry import metrics
from telemetry.frames import frame_made, frame_read

BUSY_S = 0.004
"""So long after a frame the source is asked again at once; then it waits for messages."""
WAIT_S = 0.0005
FRAMES_INSIDE_MAX = 4096
RecoveryError = (NoPartitionsError, MissingPartitionsError, InconsistentPartitionsError)


class Outlet(Protocol):
    """Where frames leave: `write` takes one, `flush` returns when all that was taken is safe. Before anything leaves it calls the `settle`
    that it was opened with, which returns when the journal up to here is safe."""

    def write(self, frame: Frame) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class Wiring:
    """What a run is made of. feed, outlet: opened by the worker that has them. external: orders go to a venue. settle_at_source:
    the journal is waited for before a frame is handed on, since the outlet is in another process."""

    plan: Plan
    run: str
    feed: Callable[[], Feed]
    outlet: Callable[[Callable[[], None]], Outlet]
    shards: int = 1
    external: bool = False
    hold_s: float = 30.0
    held_rows_max: int = 1_000_000
    settle_at_source: bool = False
    stop: threading.Event | None = None
    settle: Callable[[], None] | None = None
    seen: Callable[[Frame], None] | None = None
    written_ms: dict[int, int] = field(default_factory=dict)
    """When the newest message of a frame was written, until the frame leaves; where source and outlet share a process."""


class LivePartition(StatefulSourcePartition[Frame, Any]):
    """The one source: a feed, put into order by a sequencer, as frames."""

    def __init__(self, wiring: Wiring, resume: Any | None) -> None:
        self.wiring = wiring
        self.feed = wiring.feed()
        self.sequencer = Sequencer(wiring.run, self.feed.from_start)
        if resume is not None:
            self.sequencer.restore(resume["sequencer"])
        self.todo: deque[Entry] = deque(self.feed.open(None if resume is None else resume["feed"], self.sequencer.number))
        self._held_since = 0.0
        self._busy_until = 0.0
        self._paused: tuple[tuple[str, int], ...] = ()
        self._settled_start = self.feed.from_start or resume is not None
        wiring.settle = self.feed.settle

    def next_batch(self) -> list[Frame]:
        """The next frame, or none."""
        if self.todo:
            return [self._again(self.todo.popleft())]
        if self.wiring.stop is not None and self.wiring.stop.is_set():
            raise StopIteration
        now = time.monotonic()
        began = time.perf_counter()
        taken = self.feed.take(0.0 if now < self._busy_until else WAIT_S)
        skip = self._give_up(now)
        if not taken.ranges and not skip:
            if self.feed.ended() and not self._held_since:
                raise StopIteration
            return []
        self._busy_until = now + BUSY_S
        read = time.perf_counter()
        metrics.one(metrics.FRAME_SECONDS, "read").observe(read - began)
        number, first = self.sequencer.number, self.sequencer.position
        made = self.sequencer.step(taken.arrivals, self.feed.names, skip)
        self.feed.keep(Entry(number, taken.ranges, skip, made.frame.frontier_ns, first, self.sequencer.position - first))
        if self.wiring.settle_at_source:
            self.feed.settle()
        if made.held and not self._held_since:
            self._held_since = now
            metrics.SEQUENCE_WAITS.inc()
        elif not made.held:
            self._held_since = 0.0
        self._bound(made.held)
        for _, begin, end in made.holes:
            metrics.SEQUENCE_SKIPPED.inc(end - begin)
        frame_read(made.frame)
        if taken.written_ms and len(self.wiring.written_ms) < FRAMES_INSIDE_MAX:
            self.wiring.written_ms[number] = taken.written_ms
        metrics.one(metrics.FRAME_SECONDS, "sequence").observe(time.perf_counter() - read)
        return [made.frame]

    def _bound(self, held: int) -> None:
        """Read no more of the partitions that are ahead, while too many rows wait for the others."""
        metrics.HELD_ROWS.set(held)
        if held > self.wiring.held_rows_max:
            self._paused = self.sequencer.ahead()
            self.feed.pause(self._paused)
        elif self._paused and 2 * held <= self.wiring.held_rows_max:
            self.feed.resume(self._paused)
            self._paused = ()

    def _give_up(self, now: float) -> bool:
        """Whether to go on without what is missing: it was waited for long enough, or it was before the place that a run began at."""
        if not self._settled_start and self.feed.caught_up():
            self._settled_start = True
            return True
        if self._held_since and now - self._held_since > self.wiring.hold_s:
            self._held_since = 0.0
            return True
        return False

    def _again(self, entry: Entry) -> Frame:
        """A frame that the journal has, made again."""
        taken = self.feed.exactly(entry.ranges)
        first = self.sequencer.position
        made = self.sequencer.step(taken.arrivals, self.feed.names, entry.skip)
        if (first, self.sequencer.position - first) != (entry.first_seq, entry.rows):
            raise PenstockError(
                f"frame {entry.number} of run {self.wiring.run} was rows {entry.first_seq} to {entry.first_seq + entry.rows} and is now "
                f"{first} to {self.sequencer.position}: the log is not the one that the journal was written for"
            )
        return made.frame

    def next_awake(self) -> datetime | None:
        """At once while frames come; otherwise as Bytewax sees fit."""
        return datetime.now(UTC) if self.todo or time.monotonic() < self._busy_until else None

    def snapshot(self) -> Any:
        """The sequencer and where the feed goes on."""
        return {"sequencer": self.sequencer.snapshot(), "feed": self.feed.snapshot()}

    def close(self) -> None:
        """The journal is safe, the connections are closed."""
        self.feed.close()


class LiveSource(FixedPartitionedSource[Frame, Any]):
    """The one partition of the pipeline: one order needs one place that makes it."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring

    def list_parts(self) -> list[str]:
        return ["tape"]

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> LivePartition:
        return LivePartition(self.wiring, resume_state)


class _OutPartition(StatefulSinkPartition[Frame, None]):
    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.outlet = wiring.outlet(self._settle)

    def write_batch(self, values: list[Frame]) -> None:
        began = time.perf_counter()
        for frame in values:
            self.outlet.write(frame)
            frame_made(frame, self.wiring.plan.config.account, frame.tables)
            written_ms = self.wiring.written_ms.pop(frame.number, 0)
            if written_ms and (frame.rows(ORDERS)["state"] == NEW).any():
                metrics.ORDER_LATENCY_SECONDS.observe(max(0.0, time.time() - written_ms / 1000))
            if self.wiring.seen is not None:
                self.wiring.seen(frame)
        metrics.one(metrics.FRAME_SECONDS, "sink").observe(time.perf_counter() - began)

    def _settle(self) -> None:
        if self.wiring.settle is not None:
            self.wiring.settle()

    def snapshot(self) -> None:
        self.outlet.flush()

    def close(self) -> None:
        self.outlet.close()


class LiveSink(FixedPartitionedSink[Frame, None]):
    """The one place where frames leave, flushed before a snapshot counts."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring

    def list_parts(self) -> list[str]:
        return ["out"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _OutPartition:
        return _OutPartition(self.wiring)


def live_flow(w: Wiring) -> Dataflow:
    """The dataflow."""
    needed = w.plan.config.live.record_features or not w.plan.in_shards
    flow = Dataflow("live")
    tape = op.input("tape", flow, LiveSource(w))
    parts = op.flat_map("split", tape, lambda frame: [(shard_key(p.part), p) for p in split(frame, w.shards)])
    market = op.stateful_batch("market", parts, lift(lambda: market_chain(w.plan), "market"))
    account = op.map("account", market, lambda keyed: (w.plan.config.account, keyed[1] if needed else keyed[1].without_features()))
    decided = op.stateful_batch("desk", account, lift_aligned(lambda: account_chain(w.plan, w.external), "desk"))
    op.output("out", decided, LiveSink(w))
    return flow


def recovery_at(directory: Path, process: int = 0) -> RecoveryConfig:
    """The recovery store of a run, made where there is none; PenstockError that says what to do where it is damaged.

    The first process of a cluster has the one partition; the others look into a folder that stays empty.
    """
    if process:
        directory = directory.with_name(f"{directory.name}-{process}")
        directory.mkdir(parents=True, exist_ok=True)
        return RecoveryConfig(directory)  # type: ignore[no-untyped-call]
    for path in directory.glob("*.sqlite3"):
        with raising_damage(directory), contextlib.closing(sqlite3.connect(path)) as store:
            found = store.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            store.execute("SELECT count(*) FROM snaps").fetchone()
    if not any(directory.glob("*.sqlite3")):
        directory.mkdir(parents=True, exist_ok=True)
        init_db_dir(directory, 1)  # type: ignore[no-untyped-call]
    return RecoveryConfig(directory)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def raising_damage(directory: Path) -> Iterator[None]:
    """An error of the store's, told with the way out."""
    try:
        yield
    except (sqlite3.DatabaseError, *RecoveryError) as error:
        raise PenstockError(f"the recovery store {directory} cannot be used: {str(error).splitlines()[0]}; move that folder away and start "
                            "again: the run is then formed from its journal, frame by frame, and goes on") from None


def run_live(w: Wiring, state: Path | None, snapshot_s: float, workers: int = 1, process: int = 0, peers: tuple[str, ...] = ()) -> None:
    """Run it until it is stopped or its feed ends. state: the folder of its recovery store; None for a run that is not to be resumed."""
    recovery = None if state is None else recovery_at(state, process)
    if state is not None:
        metrics.RECOVERY_BYTES.set_function(lambda: float(sum(path.stat().st_size for path in state.glob("*.sqlite3*"))))
    every = timedelta(seconds=snapshot_s)
    with raising_damage(state or Path()):
        if workers == 1 and not peers:
            # in this thread: beside a worker's thread the engine's own would ask for the interpreter all the time
            run_main(live_flow(w), epoch_interval=every, recovery_config=recovery)  # type: ignore[no-untyped-call]
            return
        cluster_main(  # type: ignore[no-untyped-call]
            live_flow(w), list(peers), process, epoch_interval=every, recovery_config=recovery, worker_count_per_proc=workers,
        )
