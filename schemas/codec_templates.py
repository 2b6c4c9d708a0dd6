"""Few rows as an Arrow IPC stream, quickly: a stream of the same shape is made once, and only its values are written anew.

`TemplateEncoder.encode` gives the very bytes of `encode_ipc(to_arrow(…))`. Where the schema, the number of rows and the
lengths of the names are the same, so is every offset of the stream, since all columns are of fixed width: 20 µs in place
of 300. What it is not sure of (many rows, a code without a name) goes the plain way, which also says what is wrong.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from schemas.codec import encode_ipc, has_text, to_arrow
from schemas.tables import Rows, TableSpec

ROWS_MAX = 64
"""Beyond this, what the plain way costs is shared by so many rows that it does not matter."""
TEMPLATES_MAX = 4096
_WORD, _MONEY, _NAME, _LABEL, _ID, _BOOL, _LIST = range(7)
_KINDS = {
    "time": _WORD, "int": _WORD, "float": _WORD, "money": _MONEY, "symbol": _NAME, "strategy": _NAME, "enum": _LABEL, "id": _ID,
    "bool": _BOOL, "floats": _LIST, "ints": _LIST,
}
_Words = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Template:
    """A stream, and where its values are: per column (kind, first word in a row, width, byte in the stream, codes there are)."""

    spec: TableSpec
    """Kept, so that its id stays its own."""
    stream: npt.NDArray[np.uint8]
    columns: _Words
    names_at: tuple[int, int]


class TemplateEncoder:
    """Keeps the templates that were used last. Not for several threads at once."""

    def __init__(self) -> None:
        self._templates: OrderedDict[Any, _Template] = OrderedDict()

    def encode(self, spec: TableSpec, rows: Rows, symbols: Sequence[str] = (), strategies: Sequence[str] = ()) -> bytes:
        """The rows as one Arrow IPC stream. ValueError where a code has no name."""
        if not 0 < len(rows) <= ROWS_MAX:
            return _plain(spec, rows, symbols, strategies)
        texts = [name.encode() for name in symbols]
        key = (id(spec), len(rows), tuple(map(len, texts)), tuple(strategies))
        template = self._templates.get(key)
        if template is None:
            template = _made(spec, len(rows), tuple(symbols), tuple(strategies))
            self._templates[key] = template
            if len(self._templates) > TEMPLATES_MAX:
                self._templates.popitem(last=False)
        else:
            self._templates.move_to_end(key)
        out = template.stream.copy()
        words = np.ascontiguousarray(rows).view(np.int64).reshape(len(rows), -1)
        if not _fill(out, out.view(np.int64), out.view(np.int32), words, template.columns):
            return _plain(spec, rows, symbols, strategies)
        start, stop = template.names_at
        if stop > start:
            out[start:stop] = np.frombuffer(b"".join(texts), np.uint8)
        return bytes(out.data)


def _plain(spec: TableSpec, rows: Rows, symbols: Sequence[str], strategies: Sequence[str]) -> bytes:
    made: bytes = encode_ipc(to_arrow(spec, rows, symbols, strategies)).to_pybytes()
    return made


def _made(spec: TableSpec, n: int, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> _Template:
    """A template from a stream of zeros, with the offsets that Arrow gave its buffers."""
    if has_text(spec):
        raise TypeError(f"{spec.name} has text columns: its messages are records, not rows")
    blank = spec.empty(n)
    for f in spec.fields:
        if f.kind in ("symbol", "strategy"):
            blank[f.name] = -1
    stream = np.frombuffer(encode_ipc(to_arrow(spec, blank, symbols, strategies)), np.uint8).copy()
    source = pa.py_buffer(stream)
    with pa.ipc.open_stream(source) as reader:
        table = reader.read_all()
    columns, names_at, word = [], (0, 0), 0
    for f in spec.fields:
        column = table[f.name].chunk(0)
        dictionary = column.dictionary if pa.types.is_dictionary(column.type) else None
        values = column.indices if dictionary is not None else column.values if pa.types.is_list(column.type) else column
        width = f.width if _KINDS[f.kind] == _LIST else 1
        if width == 0:
            continue  # lists without items have no values, and a buffer of none
        buffer = values.buffers()[2 if f.kind == "id" else 1]
        columns.append((_KINDS[f.kind], word, width, buffer.address - source.address, 0 if dictionary is None else len(dictionary)))
        word += width
        if f.kind == "symbol" and symbols:
            assert dictionary is not None
            start = dictionary.buffers()[2].address - source.address
            names_at = start, start + sum(len(name.encode()) for name in symbols)
    return _Template(spec, stream, np.array(columns, np.int64), names_at)


@njit(cache=True)
def _fill(out: Any, out8: Any, out4: Any, words: Any, columns: Any) -> bool:
    """Write the values into the stream: `out` are its bytes, `out8` and `out4` the same by eight and four. False: a code has no name."""
    for c in range(len(columns)):
        kind, first, width, at, codes = columns[c]
        for i in range(len(words)):
            value = words[i, first]
            if kind == 0:
                out8[(at >> 3) + i] = value
            elif kind == 1:
                out8[(at >> 3) + 2 * i] = value
                out8[(at >> 3) + 2 * i + 1] = value >> 63
            elif kind == 2:
                if value < -1 or value >= codes - 1:
                    return False
                out4[(at >> 2) + i] = value if value >= 0 else codes - 1  # the last name is the empty one
            elif kind == 3:
                if value < 0 or value >= codes:
                    return False
                out[at + i] = value
            elif kind == 4:
                for k in range(16):
                    digit = (value >> (60 - 4 * k)) & 15
                    out[at + 16 * i + k] = digit + (48 if digit < 10 else 87)
            elif kind == 5:
                if value < 0 or value > 1:
                    return False
                if i & 7 == 0:
                    out[at + (i >> 3)] = 0
                out[at + (i >> 3)] |= value << (i & 7)
            else:
                for k in range(width):
                    out8[(at >> 3) + i * width + k] = words[i, first + k]
    return True
