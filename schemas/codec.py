"""The one codec between rows and Arrow: `to_arrow` and `from_arrow` are exact inverses for every table, NaN bits too.

Outside the process an id is sixteen hex digits, an amount a Decimal(19, 8), a code the name that it stands for; the
code -1 (no symbol, or all of them) is the empty string. Nothing is null, except in a wide feature table, where it
says "warming up". Whole columns are converted at once, through their buffers; a `text` table has no row type and
travels as records.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import UserError, unknown
from schemas.tables import Field, Rows, TableSpec

MONEY = pa.decimal128(19, 8)
NAME = pa.dictionary(pa.int32(), pa.string())
LABEL = pa.dictionary(pa.int8(), pa.string())
ID_DIGITS = 16
NO_NAME = -1

_TYPES: dict[str, pa.DataType] = {
    "time": pa.int64(), "int": pa.int64(), "float": pa.float64(), "money": MONEY, "symbol": NAME, "strategy": NAME,
    "id": pa.string(), "bool": pa.bool_(), "floats": pa.list_(pa.float64()), "ints": pa.list_(pa.int64()),
    "text": pa.string(),
}

Array = npt.NDArray[Any]
Names = Sequence[str]

_schemas: dict[str, pa.Schema] = {}


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type of a column. An enum without labels is an open set of names."""
    if field.kind == "enum":
        return LABEL if field.labels else NAME
    return _TYPES[field.kind]


def arrow_schema(spec: TableSpec) -> pa.Schema:
    """The Arrow schema of a table: its fields in order, none of them nullable."""
    if spec.name not in _schemas:
        _schemas[spec.name] = pa.schema([pa.field(f.name, arrow_type(f), nullable=False) for f in spec.fields])
    return _schemas[spec.name]


def has_text(spec: TableSpec) -> bool:
    """Whether the table has columns that only Arrow holds, so that its rows are records."""
    return any(f.kind == "text" for f in spec.fields)


def to_arrow(
    spec: TableSpec,
    rows: Rows | Sequence[Mapping[str, Any]],
    symbols: Names = (),
    strategies: Names = (),
) -> pa.Table:
    """Rows as an Arrow table that shares no memory with them.

    A table with text columns takes a sequence of mappings, name → value, instead. ValueError where a code has no name.
    """
    schema = arrow_schema(spec)
    if not isinstance(rows, np.ndarray):
        if not has_text(spec):
            raise TypeError(f"{spec.name} takes rows, not records")
        return pa.Table.from_pylist([_known(spec, r) for r in rows], schema=schema)
    columns = []
    for f, arrow in zip(spec.fields, schema, strict=True):
        values = np.array(rows[f.name], order="C")
        try:
            columns.append(_ENCODE[f.kind](f, values, symbols, strategies))
        except (pa.ArrowInvalid, pa.ArrowIndexError, OverflowError) as error:
            raise ValueError(f"{spec.name}.{f.name} ({arrow.type}): {error}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def from_arrow(
    spec: TableSpec, table: pa.Table, symbols: Names = (), strategies: Names = ()
) -> Rows:
    """The rows of an Arrow table; columns in any order, of these types or of types that cast to them without loss.

    UserError that names table, column and value where a column is missing, null, of another type, or a name is unknown.
    """
    if has_text(spec):
        raise TypeError(f"{spec.name} is text: a table with text columns is a list of records, not rows")
    rows = spec.empty(table.num_rows)
    for f in spec.fields:
        rows[f.name] = _DECODE[f.kind](f, _column(spec, f, table), symbols, strategies)
    return rows


def records_from_arrow(spec: TableSpec, table: pa.Table) -> list[dict[str, Any]]:
    """The records of a table with text columns."""
    found: list[dict[str, Any]] = table.select([f.name for f in spec.fields]).to_pylist()
    return found


def names_in(table: pa.Table, column: str = "symbol") -> tuple[str, ...]:
    """The distinct names of a column, sorted: what `from_arrow` may be given as `symbols`."""
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return tuple(sorted(name for name in values.unique().to_pylist() if name))


def encode_ipc(table: pa.Table, compression: str | None = None) -> pa.Buffer:
    """A table as one Arrow IPC stream; compression None, "lz4" or "zstd"."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode_ipc(payload: bytes | memoryview | pa.Buffer) -> pa.Table:
    """The table of an Arrow IPC stream; UserError where the bytes are none."""
    try:
        with pa.ipc.open_stream(payload) as reader:
            return reader.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"not an Arrow IPC stream of {memoryview(payload).nbytes} bytes: {error}") from None


def _known(spec: TableSpec, record: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [f.name for f in spec.fields]
    for name in record:
        if name not in names:
            raise unknown(f"column of {spec.name}", name, names)
    missing = [name for name in names if record.get(name) is None]
    if missing:
        raise UserError(f"a record of {spec.name} has no value for {', '.join(missing)}")
    return record


def _column(spec: TableSpec, field: Field, table: pa.Table) -> pa.Array:
    if field.name not in table.column_names:
        raise UserError(f'table {spec.name} has no column "{field.name}"; it has {", ".join(table.column_names)}')
    column = table[field.name].combine_chunks()
    wanted = arrow_type(field)
    if column.type != wanted:
        try:
            if pa.types.is_dictionary(wanted):
                column = column.cast(pa.string()).dictionary_encode()
            else:
                column = column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{spec.name}.{field.name} is {column.type}, needs {wanted}: {error}") from None
    if column.null_count:
        if field.kind == "float":
            return column.fill_null(float("nan"))
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f"{spec.name}.{field.name} is null in row {row + 1}; only floats may be")
    return column


def plain(array: Array, arrow: pa.DataType) -> pa.Array:
    """A contiguous NumPy array as an Arrow array of a fixed-width type over the same memory."""
    return pa.Array.from_buffers(arrow, len(array), [None, pa.py_buffer(array)])


def _fixed(array: pa.Array, dtype: str, width: int = 1) -> Array:
    """The values of a fixed-width Arrow array, `width` items a row, honouring its offset."""
    if len(array) == 0:
        return np.empty(0 if width == 1 else (0, width), dtype)
    flat = np.frombuffer(array.buffers()[1], dtype)
    start, stop = array.offset * width, (array.offset + len(array)) * width
    return flat[start:stop] if width == 1 else flat[start:stop].reshape(-1, width)


def named(codes: Array, names: Names) -> pa.Array:
    """int64 codes into `names` as a dictionary column; -1 becomes the empty string."""
    indices = codes.astype(np.int32)
    indices[codes == NO_NAME] = len(names)
    if len(codes) and (codes.min() < NO_NAME or codes.max() >= len(names)):
        code = int(codes[(codes < NO_NAME) | (codes >= len(names))][0])
        raise OverflowError(f"code {code} is not one of {len(names)} names")
    return pa.DictionaryArray.from_arrays(plain(indices, pa.int32()), pa.array([*names, ""], pa.string()), safe=False)


def _encode_label(field: Field, values: Array, symbols: Names, strategies: Names) -> pa.Array:
    if len(values) and (values.min() < 0 or values.max() >= len(field.labels)):
        code = int(values[(values < 0) | (values >= len(field.labels))][0])
        raise OverflowError(f"code {code} is not one of {len(field.labels)} labels")
    indices = plain(values.astype(np.int8), pa.int8())
    return pa.DictionaryArray.from_arrays(indices, pa.array(field.labels, pa.string()), safe=False)


def _encode_money(field: Field, values: Array, symbols: Names, strategies: Names) -> pa.Array:
    words = np.empty((len(values), 2), "<i8")  # little-endian 128 bits: the value, then its sign
    words[:, 0] = values
    words[:, 1] = values >> 63
    return plain(words, MONEY)


def _encode_id(field: Field, values: Array, symbols: Names, strategies: Names) -> pa.Array:
    digits = values.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(ID_DIGITS)
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


def _encode_bool(field: Field, values: Array, symbols: Names, strategies: Names) -> pa.Array:
    if ((values != 0) & (values != 1)).any():
        raise OverflowError("a boolean is 0 or 1")
    return pa.array(values.astype(bool))


def _encode_list(field: Field, values: Array, symbols: Names, strategies: Names) -> pa.Array:
    width = values.shape[1]
    offsets = plain(np.arange(len(values) + 1, dtype=np.int32) * np.int32(width), pa.int32())
    items = plain(values.reshape(-1), pa.float64() if field.kind == "floats" else pa.int64())
    return pa.ListArray.from_arrays(offsets, items)


def _decode_name(names: Names, field: Field, column: pa.Array, optional: bool) -> npt.NDArray[np.int64]:
    """Codes of a dictionary column in `names`; UserError where a used value is not among them."""
    codes = {name: code for code, name in enumerate(names)}
    if optional:
        codes[""] = NO_NAME
    values = column.dictionary.to_pylist()
    lookup = np.array([codes.get(value, NO_NAME - 1) for value in values], np.int64)
    indices = _fixed(column.indices, str(np.dtype(column.indices.type.to_pandas_dtype())))
    if len(indices) == 0:
        return np.empty(0, np.int64)
    found: npt.NDArray[np.int64] = lookup[indices]
    if found.min() < NO_NAME:
        raise unknown(field.name, values[int(indices[int(np.argmin(found))])], names)
    return found


def _decode_money(field: Field, column: pa.Array, symbols: Names, strategies: Names) -> Array:
    words = _fixed(column, "<i8", 2)
    if (words[:, 1] != words[:, 0] >> 63).any():
        raise UserError(f"{field.name}: an amount is beyond 92233720368.54775807")
    return words[:, 0]


def _decode_id(field: Field, column: pa.Array, symbols: Names, strategies: Names) -> Array:
    if len(column) == 0:
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    try:
        if (lengths != ID_DIGITS).any():
            raise ValueError
        digits = memoryview(column.buffers()[2])[int(offsets[0]) : int(offsets[-1])]
        return np.frombuffer(bytes.fromhex(bytes(digits).decode("ascii")), ">u8")
    except ValueError:
        bad = next(v for v in column.to_pylist() if len(v) != ID_DIGITS or set(v) - set("0123456789abcdefABCDEF"))
        raise UserError(f'{field.name}: "{bad}" is not an id; an id is {ID_DIGITS} hex digits') from None


def _decode_list(field: Field, column: pa.Array, symbols: Names, strategies: Names) -> Array:
    if len(column) == 0:
        return np.empty((0, field.width))
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    if (np.diff(offsets) != field.width).any():
        raise UserError(f"{field.name}: a list has {int(np.diff(offsets).max())} values, needs {field.width}")
    items = column.values.slice(int(offsets[0]), int(offsets[-1]) - int(offsets[0]))
    if items.null_count:
        raise UserError(f"{field.name}: a list holds a null")
    flat = _fixed(items, "<f8" if field.kind == "floats" else "<i8")
    return flat.reshape(-1, field.width)


_Encode = Callable[[Field, Array, Sequence[str], Sequence[str]], pa.Array]
_Decode = Callable[[Field, pa.Array, Sequence[str], Sequence[str]], Array]

_ENCODE: dict[str, _Encode] = {
    "time": lambda f, v, s, t: plain(v, pa.int64()),
    "int": lambda f, v, s, t: plain(v, pa.int64()),
    "float": lambda f, v, s, t: plain(v, pa.float64()),
    "money": _encode_money,
    "symbol": lambda f, v, s, t: named(v, s),
    "strategy": lambda f, v, s, t: named(v, t),
    "enum": _encode_label,
    "id": _encode_id,
    "bool": _encode_bool,
    "floats": _encode_list,
    "ints": _encode_list,
}
_DECODE: dict[str, _Decode] = {
    "time": lambda f, c, s, t: _fixed(c, "<i8"),
    "int": lambda f, c, s, t: _fixed(c, "<i8"),
    "float": lambda f, c, s, t: _fixed(c, "<f8"),
    "money": _decode_money,
    "symbol": lambda f, c, s, t: _decode_name(s, f, c, True),
    "strategy": lambda f, c, s, t: _decode_name(t, f, c, True),
    "enum": lambda f, c, s, t: _decode_name(f.labels, f, c, False),
    "id": _decode_id,
    "bool": lambda f, c, s, t: c.to_numpy(zero_copy_only=False),
    "floats": _decode_list,
    "ints": _decode_list,
}
