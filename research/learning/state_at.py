"""Learners as they were at a place on the tape: a run's input is gone over again up to there, through the same operators.

Nothing is read from a snapshot: the state is what the rows before that place make of a new learner, to the bit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from operators.assembly import Plan, account_chain, market_chain
from operators.learners.operator import Learners
from operators.protocol import Chain
from schemas.errors import UserError
from schemas.frame import Frame


@dataclass(frozen=True)
class Place:
    """Up to and with this tape position, or event time in ns."""

    seq: int | None = None
    ts_ns: int | None = None

    def before(self, frame: Frame) -> Frame:
        """The rows of a frame that are not beyond it."""
        column, last = ("seq", self.seq) if self.seq is not None else ("ts_event_ns", self.ts_ns)
        assert last is not None
        tables = {name: rows[:int(np.searchsorted(rows[column], last, side="right"))] for name, rows in frame.tables.items()}
        return replace(frame, tables=tables)

    def passed(self, frame: Frame) -> bool:
        """Whether a frame has rows beyond it."""
        column, last = ("seq", self.seq) if self.seq is not None else ("ts_event_ns", self.ts_ns)
        return any(len(rows) and int(rows[column][-1]) > (last or 0) for rows in frame.tables.values())


def learners_at(made: Plan, frames: Iterable[Frame], place: Place, progress: Callable[[int], None] | None = None) -> Learners:
    """The operator as it was there. UserError where the plan has no models."""
    if not made.models:
        raise UserError("the run has no models; name some under `models:` in its configuration")
    chain = Chain([market_chain(made), account_chain(made)])
    rows = 0
    for frame in frames:
        chain.step(place.before(frame))
        rows += sum(len(each) for each in frame.tables.values())
        if progress is not None:
            progress(rows)
        if place.passed(frame):
            break
    return _found(chain)


def _found(chain: Chain) -> Learners:
    for operator in chain.operators:
        if isinstance(operator, Learners):
            return operator
        if isinstance(operator, Chain) and any(isinstance(o, Learners) for o in operator.operators):
            return _found(operator)
    raise AssertionError("a plan with models has learners")


def states(learners: Learners) -> list[dict[str, Any]]:
    """One entry per learner: model, key, version, how many labels it learned, the digest of its state, and what can be said of it."""
    online = [{"model": model, "key": key, "version": each.version, "learned": each.learned, "digest": each.digest(),
               "state": each.describe()} for model, key, each in learners.learners()]
    registered = [{"model": model, "key": "", "version": active, "shadow": shadow} for model, active, shadow in learners.versions()]
    return [*online, *registered]
