"""The one file that knows Bytewax's stateful logic: an operator as a step of a dataflow, with its state in the recovery store."""

from collections.abc import Callable
from typing import Any

from bytewax.operators import StatefulBatchLogic

from operators.market.shards import Align
from operators.protocol import Operator
from schemas.frame import Frame


class Lifted(StatefulBatchLogic[Frame, Frame, Any]):
    """An operator per key: frames in, frames out, one for one."""

    def __init__(self, operator: Operator, state: Any | None) -> None:
        self.operator = operator
        if state is not None:
            operator.restore(state)

    def on_batch(self, values: list[Frame]) -> tuple[list[Frame], bool]:
        return [self.operator.step(frame) for frame in values], False

    def snapshot(self) -> Any:
        return self.operator.snapshot()


class Aligned(StatefulBatchLogic[Frame, Frame, Any]):
    """Parts in, whole frames in order, each through an operator; the state is both."""

    def __init__(self, operator: Operator, state: Any | None) -> None:
        self.align = Align()
        self.operator = operator
        if state is not None:
            self.align.restore(state["align"])
            operator.restore(state["operator"])

    def on_batch(self, values: list[Frame]) -> tuple[list[Frame], bool]:
        return [self.operator.step(whole) for part in values for whole in self.align.add(part)], False

    def snapshot(self) -> Any:
        return {"align": self.align.snapshot(), "operator": self.operator.snapshot()}


def lift(make: Callable[[], Operator]) -> Callable[[Any | None], Lifted]:
    """A builder of `Lifted` for Bytewax."""
    return lambda state: Lifted(make(), state)


def lift_aligned(make: Callable[[], Operator]) -> Callable[[Any | None], Aligned]:
    """A builder of `Aligned` for Bytewax."""
    return lambda state: Aligned(make(), state)
