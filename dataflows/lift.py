"""The one file that knows Bytewax's stateful logic: an operator as a step of a dataflow, with its state in the recovery store."""

import time
from collections.abc import Callable
from typing import Any

from bytewax.operators import StatefulBatchLogic

from operators.market.shards import Align
from operators.protocol import Operator
from schemas.frame import Frame
from telemetry import metrics

_SPREAD = (0, 4, 5, 7, 2, 8, 1, 22, 3, 10, 9, 11, 13, 15, 19, 29, 6, 12, 16, 17, 21, 25, 35, 45)
"""Bytewax gives a key to a worker by its hash: with these numbers shards are dealt out evenly to 2, 3, 4 and 8 workers."""


def shard_key(part: int) -> str:
    """The key of a shard, under which its state is kept."""
    return f"shard-{_SPREAD[part]}" if part < len(_SPREAD) else f"shard-more-{part}"


class Lifted(StatefulBatchLogic[Frame, Frame, Any]):
    """An operator per key: frames in, frames out, one for one. stage: its name in the metrics, none where it has none."""

    def __init__(self, operator: Operator, state: Any | None, stage: str | None = None) -> None:
        self.operator = operator
        self.seconds = None if stage is None else metrics.FRAME_SECONDS.labels(stage=stage)
        if state is not None:
            operator.restore(state)

    def step(self, frame: Frame) -> Frame:
        """One frame through the operator, timed."""
        if self.seconds is None:
            return self.operator.step(frame)
        began = time.perf_counter()
        made = self.operator.step(frame)
        self.seconds.observe(time.perf_counter() - began)
        return made

    def on_batch(self, values: list[Frame]) -> tuple[list[Frame], bool]:
        return [self.step(frame) for frame in values], False

    def snapshot(self) -> Any:
        began = time.perf_counter()
        state = self.operator.snapshot()
        if self.seconds is not None:
            metrics.SNAPSHOT_SECONDS.observe(time.perf_counter() - began)
            metrics.SNAPSHOT_TIMESTAMP.set_to_current_time()
        return state


class Aligned(Lifted):
    """Parts in, whole frames in order, each through an operator; the state is both."""

    def __init__(self, operator: Operator, state: Any | None, stage: str | None = None) -> None:
        super().__init__(operator, None if state is None else state["operator"], stage)
        self.align = Align()
        if state is not None:
            self.align.restore(state["align"])

    def on_batch(self, values: list[Frame]) -> tuple[list[Frame], bool]:
        return [self.step(whole) for part in values for whole in self.align.add(part)], False

    def snapshot(self) -> Any:
        return {"align": self.align.snapshot(), "operator": super().snapshot()}


def lift(make: Callable[[], Operator], stage: str | None = None) -> Callable[[Any | None], Lifted]:
    """A builder of `Lifted` for Bytewax."""
    return lambda state: Lifted(make(), state, stage)


def lift_aligned(make: Callable[[], Operator], stage: str | None = None) -> Callable[[Any | None], Aligned]:
    """A builder of `Aligned` for Bytewax."""
    return lambda state: Aligned(make(), state, stage)
