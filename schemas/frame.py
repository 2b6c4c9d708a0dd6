"""A frame: what one poll of one source partition produced, and all that the operators made of it.

`step(frame)` of every operator returns exactly one frame per frame it receives. Operators read some tables and add
others; a table that is absent is empty. Tables are NumPy structured arrays (`schemas.tables`); a feature table is a
`FeatureRows`. Arrays in a frame are never written to after they were added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.rows import appended
from schemas.tables import Rows, TableSpec


@dataclass(frozen=True)
class FeatureRows:
    """Feature values of closed bars: one row per bar of the interval that the set is declared on.

    `bars` are the rows of the `bars` table that caused them, `values` a float64 array (rows, features), NaN while a
    feature warms up, and `names` the names of its columns, as they were asked for.
    """

    interval_ns: int
    names: tuple[str, ...]
    bars: Rows
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arrival:
    """Rows of one input table from one partition of a log, in the order of the log; codes are into the reader's names."""

    table: str
    partition: int
    rows: Rows


@dataclass(frozen=True)
class Frame:
    """One frame.

    origin: the source partition. number: 0, 1, 2, … within it. frontier_ns: the highest event time that the partition has
    shown. symbols: instrument names; a code in a row is an index into them; they only grow. part, parts: which share of
    the frame this is after fan-out. tables: name → rows. features: one per timeframe.
    """

    origin: str
    number: int
    frontier_ns: int
    symbols: tuple[str, ...]
    tables: Mapping[str, Rows] = field(default_factory=dict)
    features: tuple[FeatureRows, ...] = ()
    part: int = 0
    parts: int = 1

    def rows(self, spec: TableSpec) -> Rows:
        """The rows of a table; an empty array where the frame has none."""
        found = self.tables.get(spec.name)
        return _empty(spec) if found is None else found

    def with_tables(self, **tables: Rows) -> "Frame":
        """A copy with these tables added or replaced."""
        return self._with({**self.tables, **tables}, self.features)

    def with_features(self, *features: FeatureRows) -> "Frame":
        """A copy with these feature sets added."""
        return self._with(self.tables, (*self.features, *features))

    def without_features(self) -> "Frame":
        """A copy without them: they are the widest of what is made, and nobody reads them any more."""
        return self._with(self.tables, ())

    def _with(self, tables: Mapping[str, Rows], features: tuple[FeatureRows, ...]) -> "Frame":
        """`dataclasses.replace` for these two, in a third of the time: every operator makes a frame of each tick."""
        return Frame(self.origin, self.number, self.frontier_ns, self.symbols, tables, features, self.part, self.parts)


def together(frames: Sequence[Frame], tables: Sequence[TableSpec]) -> Frame:
    """These tables and all features of consecutive frames of one run as one frame, rows in their order."""
    rows: dict[str, list[Rows]] = {}
    for spec in tables:
        found = [made for frame in frames if (made := frame.tables.get(spec.name)) is not None and len(made)]
        if found:
            rows[spec.name] = found
    sets: dict[tuple[int, tuple[str, ...]], list[FeatureRows]] = {}
    for frame in frames:
        for f in frame.features:
            if len(f.bars):
                sets.setdefault((f.interval_ns, f.names), []).append(f)
    features = tuple(FeatureRows(*key, appended([f.bars for f in parts]), np.concatenate([f.values for f in parts]))
                     for key, parts in sets.items())
    return replace(frames[-1], tables={name: appended(parts) for name, parts in rows.items()}, features=features)


_empties: dict[str, Any] = {}


def _empty(spec: TableSpec) -> Rows:
    if spec.name not in _empties:
        _empties[spec.name] = spec.empty(0)
    return _empties[spec.name]
