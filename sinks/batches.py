"""Rows on their way out, gathered per table until there are enough of them to be worth a message, a file part or an insert.

A batch keeps references to the arrays of the frames that it was given; it copies when it becomes an Arrow table. Rows
keep their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.codec import to_arrow
from schemas.codec_features import FEATURES, features_to_compact
from schemas.frame import FeatureRows
from schemas.tables import Rows, TableSpec

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """What one `write` gave: rows (or records, or feature values, or an Arrow table) and the names that their codes stand for.

    run_id: whose rows they are, where the batch is of several runs.
    """

    rows: Rows | Records | FeatureRows | pa.Table
    symbols: tuple[str, ...]
    strategies: tuple[str, ...]
    run_id: str = ""

    @property
    def count(self) -> int:
        return len(self.rows.bars) if isinstance(self.rows, FeatureRows) else len(self.rows)

    @property
    def nbytes(self) -> int:
        if isinstance(self.rows, FeatureRows):
            return int(self.rows.values.nbytes + 80 * len(self.rows.bars))
        if isinstance(self.rows, np.ndarray | pa.Table):
            return int(self.rows.nbytes)
        return sum(len(str(value)) for record in self.rows for value in record.values())

    def cut(self, start: int, stop: int) -> "Part":
        """The rows from `start` to before `stop`."""
        if isinstance(self.rows, FeatureRows):
            f = self.rows
            piece = FeatureRows(f.interval_ns, f.names, f.bars[start:stop], f.values[start:stop])
            return Part(piece, self.symbols, self.strategies, self.run_id)
        return Part(self.rows[start:stop], self.symbols, self.strategies, self.run_id)


@dataclass
class Batch:
    """The parts of one table, in order."""

    spec: TableSpec
    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0

    def add(self, part: Part) -> None:
        """Append a part."""
        self.parts.append(part)
        self.rows += part.count
        self.nbytes += part.nbytes

    def table(self) -> pa.Table:
        """All rows as one Arrow table whose dictionaries are unified."""
        tables = [_table(self.spec, part) for part in _merged(self.parts)]
        if len(tables) == 1:
            return tables[0]
        return pa.concat_tables(tables).unify_dictionaries().combine_chunks()

    def run_ids(self) -> pa.Array:
        """The run of every row, as a dictionary column."""
        names = list(dict.fromkeys(part.run_id for part in self.parts))
        codes = np.repeat(np.array([names.index(part.run_id) for part in self.parts], np.int32), [part.count for part in self.parts])
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))


def pieces(part: Part, rows_max: int) -> list[Part]:
    """A part in pieces of at most `rows_max` rows."""
    if part.count <= rows_max:
        return [part] if part.count else []
    return [part.cut(start, start + rows_max) for start in range(0, part.count, rows_max)]


def _table(spec: TableSpec, part: Part) -> pa.Table:
    if isinstance(part.rows, FeatureRows):
        return features_to_compact(part.rows, part.symbols)
    if isinstance(part.rows, pa.Table):
        return part.rows
    return to_arrow(spec, part.rows, part.symbols, part.strategies)


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Neighbours whose codes mean the same as one part: names only grow, so the longer list serves both."""
    out: list[Part] = []
    run: list[Part] = []
    for part in parts:
        if run and not _together(run[-1], part):
            out.append(_joined(run))
            run = []
        run.append(part)
    return [*out, _joined(run)] if run else out


def _together(a: Part, b: Part) -> bool:
    both_rows = isinstance(a.rows, np.ndarray) and isinstance(b.rows, np.ndarray)
    return both_rows and _grew(a.symbols, b.symbols) and _grew(a.strategies, b.strategies)


def _grew(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    return before is after or after[: len(before)] == before


def _joined(run: list[Part]) -> Part:
    if len(run) == 1:
        return run[0]
    arrays = [part.rows for part in run]
    return Part(np.concatenate(arrays), run[-1].symbols, run[-1].strategies)  # type: ignore[arg-type]


__all__ = ["FEATURES", "Batch", "Part", "Records", "pieces"]
