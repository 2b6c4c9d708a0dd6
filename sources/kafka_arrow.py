"""Arrow messages of exactly the types that `schemas.codec` writes, straight from their buffers into rows.

Takes what it is sure of and answers None to the rest: another schema, nulls, a name that is new, anything that pyarrow finds
fault with. `kafka_slow` reads those, and decides. What is taken here has the same bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import NO_NAME, arrow_schema
from schemas.tables import Rows, TableSpec
from sources.kafka_memory import compiled, load1, load4, word
from sources.kafka_names import Interner
from sources.kafka_slow import FOR_ALL

_PLAIN, _INDEX4, _INDEX1 = 0, 1, 2
_KINDS = {"time": _PLAIN, "int": _PLAIN, "float": _PLAIN, "symbol": _INDEX4, "enum": _INDEX1}
_WIDTHS = (8, 4, 1)
_UNKNOWN = -2


def quick(spec: TableSpec) -> bool:
    """Whether rows of this table can be read here at all."""
    return all(f.kind in _KINDS and (f.kind != "enum" or f.labels) for f in spec.fields)


class ArrowReader:
    """Reads messages of one table. Remembers the last dictionary of each column, which rarely changes from one message to the next."""

    def __init__(self, spec: TableSpec, symbols: Interner) -> None:
        self._spec, self._symbols = spec, symbols
        self._schema = arrow_schema(spec)
        self._kinds = np.array([_KINDS[f.kind] for f in spec.fields], np.int64)
        self._columns = np.zeros((len(spec.fields), 4), np.int64)
        self._columns[:, 3] = [NO_NAME if f.kind == "symbol" and spec.name in FOR_ALL else 0 for f in spec.fields]
        self._last: dict[str, tuple[Any, int, npt.NDArray[np.int64]]] = {}

    def batches(self, payload: npt.NDArray[np.uint8]) -> list[pa.RecordBatch] | None:
        """The record batches of one message, over its memory; None where it is not one of this table's."""
        try:
            with pa.ipc.open_stream(pa.py_buffer(payload)) as stream:
                if stream.schema != self._schema:
                    return None
                batches = list(stream)
            for batch in batches:
                batch.validate()
        except (pa.ArrowException, OSError):
            return None
        return batches

    def fill(self, rows: Rows, batch: pa.RecordBatch) -> bool:
        """Write the rows of a batch; False where it is not plain, and what was written is of no use."""
        if batch.num_rows == 0:
            return True
        kept = []
        for i, f in enumerate(self._spec.fields):
            column = batch.column(i)
            if column.null_count:
                return False
            if f.kind in ("symbol", "enum"):
                lookup = self._lookup(f.name, f.labels, column.dictionary)
                if lookup is None:
                    return False
                kept.append(lookup)
                self._columns[i, 1:3] = lookup.ctypes.data, len(lookup)
                column = column.indices
            self._columns[i, 0] = column.buffers()[1].address + column.offset * _WIDTHS[self._kinds[i]]
        return bool(_fill(rows.view(np.int64).reshape(len(rows), -1), self._columns, self._kinds))

    def _lookup(self, column: str, labels: tuple[str, ...], dictionary: pa.Array) -> npt.NDArray[np.int64] | None:
        """Per entry of the dictionary its code, `_UNKNOWN` where it has none yet."""
        last = self._last.get(column)
        if last is not None and last[1] == len(self._symbols) and last[0].equals(dictionary):
            return last[2]
        if dictionary.null_count:
            return None
        try:
            dictionary.validate(full=True)
            names = dictionary.to_pylist()
        except (pa.ArrowException, UnicodeDecodeError):
            return None
        if labels:
            known = {label: code for code, label in enumerate(labels)}
            codes = [known.get(name, _UNKNOWN) for name in names]
        else:
            found = [self._symbols.find(name) for name in names]
            codes = [_UNKNOWN if code is None else code for code in found]
        self._last[column] = (dictionary, len(self._symbols), np.array(codes, np.int64))
        return self._last[column][2]


@compiled
def _fill(words: Any, columns: Any, kinds: Any) -> bool:
    """Rows, column by column in one pass. columns: per column the address of its values; for a dictionary the address and the length of
    its codes, and the least code that a row may have."""
    for row in range(len(words)):
        for i in range(len(kinds)):
            if kinds[i] == _PLAIN:
                words[row, i] = word(columns[i, 0] + 8 * row)
                continue
            index = load4(columns[i, 0] + 4 * row) if kinds[i] == _INDEX4 else load1(columns[i, 0] + row)
            if index < 0 or index >= columns[i, 2]:
                return False
            code = word(columns[i, 1] + 8 * index)
            if code < columns[i, 3]:
                return False
            words[row, i] = code
    return True
