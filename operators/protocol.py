"""What an operator is: `step(frame) -> frame`, one out for each one in, and a state that can be saved and put back.

Promised: the rows that come out do not depend on how the input was cut into frames; after `restore(snapshot())`, on a
fresh operator of the same configuration, the rest of the tape gives what it would have given. Not promised: anything
about the order of rows of different tables within a frame; rows carry (`ts_event_ns`, `seq`) for that.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from schemas.frame import Frame


class Operator(Protocol):
    """A state machine over frames."""

    name: str

    def step(self, frame: Frame) -> Frame:
        """Process the frame's rows in order; return the frame with what was made of them."""
        ...

    def snapshot(self) -> Any:
        """The whole state as plain, picklable values that later steps do not change."""
        ...

    def restore(self, state: Any) -> None:
        """Put back what `snapshot` gave."""
        ...


class Chain:
    """Operators one after the other; itself an operator."""

    def __init__(self, operators: Sequence[Operator], name: str = "chain") -> None:
        self.name = name
        self.operators = tuple(operators)

    def step(self, frame: Frame) -> Frame:
        for operator in self.operators:
            frame = operator.step(frame)
        return frame

    def snapshot(self) -> list[Any]:
        return [operator.snapshot() for operator in self.operators]

    def restore(self, state: list[Any]) -> None:
        for operator, saved in zip(self.operators, state, strict=True):
            operator.restore(saved)
