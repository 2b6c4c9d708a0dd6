"""The backtest as a Bytewax dataflow: frames → shards → market operators → align → desk → collect."""

from collections.abc import Callable, Iterator
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main, run_main

from dataflows.lift import lift, lift_aligned, shard_key
from operators.assembly import Plan, account_chain, market_chain
from operators.market.shards import split
from schemas.frame import Frame


class _TapePartition(StatefulSourcePartition[Frame, int]):
    def __init__(self, frames: Iterator[Frame]) -> None:
        self.frames = frames
        self.count = 0

    def next_batch(self) -> list[Frame]:
        self.count += 1
        return [next(self.frames)]

    def snapshot(self) -> int:
        return self.count


class FrameSource(FixedPartitionedSource[Frame, int]):
    """An iterator of frames as one source partition."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self.frames = frames

    def list_parts(self) -> list[str]:
        return ["tape"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _TapePartition:
        return _TapePartition(self.frames)


class _Collector(StatelessSinkPartition[Any]):
    def __init__(self, collect: Callable[[Frame], None]) -> None:
        self.collect = collect

    def write_batch(self, items: list[tuple[str, Frame]]) -> None:
        for _, frame in items:
            self.collect(frame)


class CallSink(DynamicSink[Any]):
    """Hands every frame to a function; the desk's key lives on one worker, so the order is kept."""

    def __init__(self, collect: Callable[[Frame], None]) -> None:
        self.collect = collect

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collector:
        return _Collector(self.collect)


def backtest_flow(plan: Plan, frames: Iterator[Frame], collect: Callable[[Frame], None], shards: int) -> Dataflow:
    """The dataflow of a backtest."""
    flow = Dataflow("backtest")
    tape = op.input("tape", flow, FrameSource(frames))
    parts = op.flat_map("split", tape, lambda frame: [(shard_key(p.part), p) for p in split(frame, shards)])
    market = op.stateful_batch("market", parts, lift(lambda: market_chain(plan)))
    account = op.map("account", market, lambda keyed: (plan.config.account, keyed[1]))
    decided = op.stateful_batch("desk", account, lift_aligned(lambda: account_chain(plan)))
    op.output("out", decided, CallSink(collect))
    return flow


def run_backtest(plan: Plan, frames: Iterator[Frame], collect: Callable[[Frame], None], workers: int) -> None:
    """Run it to the tape's end, on `workers` threads of this process."""
    flow = backtest_flow(plan, frames, collect, shards=workers)
    if workers == 1:
        run_main(flow)  # type: ignore[no-untyped-call]
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)  # type: ignore[no-untyped-call]
