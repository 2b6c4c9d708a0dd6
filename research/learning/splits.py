"""Splits in time, purged and with an embargo: no label of the training rows looks into the rows that are tested.

A row's label spans from `ts_made_ns`, when its bar was known, to `ts_end_ns`, when the label was. A training row whose span touches
that of the test rows is purged; one that is nearer to it than the embargo, on either side, is left out too, since its features share
bars with theirs (Lopez de Prado, Advances in Financial Machine Learning, 2018, chapter 7; the embargo before the test is stricter
than there). Spans are closed: they touch where one ends when the other begins.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import UserError
from schemas.intervals import INTERVAL_UNITS_NS

Ints = npt.NDArray[np.int64]
_DAY_NS = INTERVAL_UNITS_NS["d"]
_UNITS_NS = {**INTERVAL_UNITS_NS, "w": 7 * _DAY_NS, "mo": 30 * _DAY_NS, "y": 365 * _DAY_NS}
FOREVER_NS = np.iinfo(np.int64).max


def parse_duration(text: object, where: str = "duration") -> int:
    """`90m`, `12h`, `30d`, `2w`, `6mo` (of 30 days), `1y` (of 365) to ns; UserError where it is none."""
    match = re.fullmatch(r"(\d{1,6})(s|m|h|d|w|mo|y)", str(text).strip())
    if not match or int(match[1]) * _UNITS_NS[match[2]] >= FOREVER_NS:
        raise UserError(f'{where}: "{text}" is not a duration; write it like 12h, 30d, 2w, 6mo (months of 30 days), 1y')
    return int(match[1]) * _UNITS_NS[match[2]]


def duration_text(duration_ns: int) -> str:
    """ns in the largest unit that divides it."""
    for unit in ("y", "mo", "w", "d", "h", "m", "s"):
        if duration_ns % _UNITS_NS[unit] == 0:
            return f"{duration_ns // _UNITS_NS[unit]}{unit}"
    return f"{duration_ns}ns"


@dataclass(frozen=True)
class Split:
    """Row numbers, ascending. purged: how many rows were left out because of their label's span or the embargo."""

    train: Ints
    test: Ints
    purged: int


@dataclass(frozen=True)
class Window:
    """One step of a walk forward: trained on rows made from `train_from_ns` on, tested on test_from_ns <= made < test_to_ns."""

    train_from_ns: int
    test_from_ns: int
    test_to_ns: int
    split: Split


def purged_split(ts_made: Ints, ts_end: Ints, test_from: int, test_to: int, embargo_ns: int = 0) -> Split:
    """Test rows are those made in [test_from, test_to); training rows those whose label's span keeps away from all of theirs.

    ts_made, ts_end: (rows,) in ns. The span of the test rows begins at `test_from` and ends with their last label.
    """
    if embargo_ns < 0:
        raise UserError(f"embargo: {embargo_ns} ns is negative")
    tested = (ts_made >= test_from) & (ts_made < test_to)
    if not tested.any():
        return Split(np.flatnonzero(~tested), np.flatnonzero(tested), 0)
    last = int(ts_end[tested].max())
    kept = (ts_end < test_from - embargo_ns) | (ts_made > last + embargo_ns)
    return Split(np.flatnonzero(kept), np.flatnonzero(tested), int((~kept & ~tested).sum()))


def walk_forward_splits(ts_made: Ints, ts_end: Ints, train_ns: int, test_ns: int, embargo_ns: int = 0, anchored: bool = False
                        ) -> Iterator[Window]:
    """Windows that follow each other: `train_ns` of rows, then `test_ns`, then on by `test_ns`; anchored: all rows from the first on.

    The last window may be shorter. Windows without rows to train on or to test are passed over.
    """
    if train_ns <= 0 or test_ns <= 0:
        raise UserError(f"walk-forward: train {train_ns} ns and test {test_ns} ns are both above 0")
    first, last = int(ts_made.min()), int(ts_made.max())
    for test_from in range(first + train_ns, last + 1, test_ns):
        train_from = first if anchored else test_from - train_ns
        split = purged_split(ts_made, ts_end, test_from, test_from + test_ns, embargo_ns)
        before = (ts_made[split.train] >= train_from) & (ts_made[split.train] < test_from)
        purged = int(((ts_made >= train_from) & (ts_made < test_from)).sum() - before.sum())
        if before.any() and len(split.test):
            yield Window(train_from, test_from, test_from + test_ns, Split(split.train[before], split.test, purged))


def purged_folds(ts_made: Ints, ts_end: Ints, folds: int, embargo_ns: int = 0) -> Iterator[Split]:
    """K folds, each a stretch of time with about as many rows as the others, tested against all the rest but the purged.

    Rows of the same time are in the same fold. Training rows lie on both sides of the test: for choosing parameters, not for results.
    """
    if folds < 2:
        raise UserError(f"{folds} folds; give at least 2")
    ordered = np.sort(ts_made)
    edges = [int(ordered[len(ordered) * k // folds]) for k in range(folds)] + [int(ordered[-1]) + 1] if len(ordered) else []
    if len(set(edges)) != folds + 1:
        raise UserError(f"{folds} folds of {len(ordered)} rows: too few different times; give fewer folds or more rows")
    for k in range(folds):
        yield purged_split(ts_made, ts_end, edges[k], edges[k + 1], embargo_ns)


def holdout(ts_made: Ints, ts_end: Ints, share: float, embargo_ns: int = 0) -> Split:
    """The last `share` of the rows in time as test, the rest but the purged as training."""
    if not 0 < share < 1:
        raise UserError(f"share of validation rows {share:g}: not between 0 and 1")
    at = min(len(ts_made) - 1, int(len(ts_made) * (1 - share)))
    return purged_split(ts_made, ts_end, int(np.sort(ts_made)[at]), FOREVER_NS, embargo_ns)
