"""How bytes hold rows: Parquet, Arrow IPC (file or stream), CSV (also in gzip or zip), each a stream of Arrow batches.

The container is recognised by its first bytes, never by its name. Whatever a reader throws leaves here as a `UserError`
that names the file; memory is bounded by the size of a block, not of the file.
"""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from schemas.errors import UserError
from sources.layouts import KNOWN, headerless, looks_like_header

_GZIP, _ZIP, _PARQUET, _ARROW, _STREAM = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_CSV_BLOCK_BYTES = 4 << 20


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns whatever a reader throws into a UserError that names `path`."""
    try:
        yield
    except (
        pa.ArrowException,
        OSError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        UnicodeError,
        NotImplementedError,
    ) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"{path}: cannot be read; it is truncated, damaged or not what it seems ({reason[:160]})"
        ) from None


def container_of(path: str) -> str:
    """`parquet`, `arrow`, `stream` (Arrow IPC), `text`, `gzip`, `zip`, by the first bytes; UserError without any."""
    with reading(path), Path(path).open("rb") as file:
        head = file.read(8)
    if not head:
        raise UserError(f"{path}: is empty (0 bytes)")
    for magic, name in ((_GZIP, "gzip"), (b"PK", "zip"), (_PARQUET, "parquet"), (_ARROW, "arrow"), (_STREAM, "stream")):
        if head.startswith(magic):
            return name
    return "text"


@contextmanager
def opened(path: str, container: str) -> Iterator[IO[bytes]]:
    """The text of a file as bytes, unpacked."""
    with reading(path):
        if container == "gzip":
            with gzip.open(path, "rb") as packed, io.BufferedReader(packed, 1 << 20) as lines:
                yield lines
        elif container == "zip":
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX")]
                if len(members) != 1:
                    raise UserError(f"{path}: holds {len(members)} files; a zip must hold one, unpack it into a folder")
                if members[0].flag_bits & 1:
                    raise UserError(f"{path}: is encrypted; unpack it first")
                with archive.open(members[0]) as member:
                    yield member
        else:
            with Path(path).open("rb") as plain:
                yield plain


@dataclass(frozen=True)
class Parquet:
    """A Parquet file."""

    path: str

    def names(self) -> list[str]:
        with reading(self.path), self._open() as file:
            return list(file.schema_arrow.names)

    def rows(self) -> int | None:
        with reading(self.path), self._open() as file:
            return int(file.metadata.num_rows)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        with reading(self.path), self._open(columns) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns), use_threads=True)

    def extent(self, column: str) -> tuple[Any, Any] | None:
        """The lowest and highest value of a column as Arrow arrays, from statistics; None where some are missing."""
        with reading(self.path), self._open() as file:
            at = file.schema_arrow.names.index(column)
            kind = file.schema_arrow.field(column).type
            groups = [file.metadata.row_group(g).column(at) for g in range(file.metadata.num_row_groups)]
            found = [g.statistics for g in groups if g.num_values]
            if not found or len(file.metadata.schema) != len(file.schema_arrow.names):
                return None
            if any(s is None or not s.has_min_max for s in found) or not (pa.types.is_integer(kind) or _is_exact(kind)):
                return None
            low, high = min(s.min_raw for s in found), max(s.max_raw for s in found)
            raw = pa.array([low, high], pa.int64())
            column_values = raw if pa.types.is_integer(kind) else raw.view(kind)
            return column_values.slice(0, 1), column_values.slice(1, 1)

    def place(self, row: int) -> str:
        return f"{self.path} row {row + 1}"

    def _open(self, columns: Sequence[str] = ()) -> Any:
        coded = [n for n in columns if n.lower() in ("symbol", "side", "exchange", "bar_kind")]
        return pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False, read_dictionary=coded or None)


def _is_exact(kind: Any) -> bool:
    """Timestamps whose raw statistics are in their own unit (seconds are stored as ms)."""
    return bool(pa.types.is_timestamp(kind) and kind.unit != "s")


@dataclass(frozen=True)
class Arrow:
    """An Arrow IPC file, or stream."""

    path: str
    stream: bool

    def names(self) -> list[str]:
        with reading(self.path), pa.OSFile(self.path) as file:
            return list(self._reader(file).schema.names)

    def rows(self) -> int | None:
        return None

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        with reading(self.path), pa.OSFile(self.path) as file:
            reader = self._reader(file)
            found = reader if self.stream else (reader.get_batch(k) for k in range(reader.num_record_batches))
            for batch in found:
                chosen = batch.select(list(columns))
                for start in range(0, len(chosen), rows):
                    yield chosen.slice(start, rows)

    def extent(self, column: str) -> tuple[Any, Any] | None:
        return None

    def place(self, row: int) -> str:
        return f"{self.path} row {row + 1}"

    def _reader(self, file: Any) -> Any:
        return pa.ipc.open_stream(file) if self.stream else pa.ipc.open_file(file)


@dataclass(frozen=True)
class Csv:
    """A CSV file with its header, or with the column names that its values show; plain or packed."""

    path: str
    container: str
    header: tuple[str, ...]
    has_header: bool
    delimiter: str
    first: tuple[str, ...]

    @staticmethod
    def open(path: str, container: str) -> "Csv":
        """Looks at the first two lines."""
        with opened(path, container) as file:
            text = io.TextIOWrapper(io.BytesIO(_first_lines(file)), "utf-8-sig", errors="replace", newline="")
            lines = [line for line in text.read().splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{path}: is empty")
        delimiter = max(",;\t", key=lines[0].count)
        rows = [tuple(c.strip() for c in row) for row in csv.reader(lines[:2], delimiter=delimiter)]
        if (looks_like_header(rows[0]) and len(rows[0]) > 1) or rows[0] == ("ts_event_ns",):
            if len(rows) == 1:
                raise UserError(f"{path}: has a header but no rows")
            return Csv(path, container, rows[0], True, delimiter, rows[1])
        names = headerless(rows[0])
        if names is None:
            shown = lines[0][:60]
            raise UserError(
                f'{path} line 1: "{shown}" is neither a known header nor a row of a known format; known are: {KNOWN}'
            )
        return Csv(path, container, names, False, delimiter, rows[0])

    def names(self) -> list[str]:
        return list(self.header)

    def rows(self) -> int | None:
        return None

    def extent(self, column: str) -> tuple[Any, Any] | None:
        return None

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        with opened(self.path, self.container) as file:
            try:
                reader = self._reader(file, columns)
                for batch in reader:
                    for start in range(0, len(batch), rows):
                        yield batch.slice(start, rows)
            except pa.ArrowInvalid as e:
                broken = self._broken(columns)
                raise broken or UserError(f"{self.path}: {' '.join(str(e).split())[:200]}") from None

    def place(self, row: int) -> str:
        """The line of a row: blank lines do not count as rows."""
        with opened(self.path, self.container) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
            reader = csv.reader(text, delimiter=self.delimiter)
            seen = -2 if self.has_header else -1
            for cells in reader:
                seen += bool(cells)
                if seen == row:
                    return f"{self.path} line {reader.line_num}"
        return f"{self.path} row {row + 1}"

    def _reader(self, file: Any, columns: Sequence[str]) -> Any:
        header = list(self.header)
        return pa.csv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pa.csv.ReadOptions(
                block_size=_CSV_BLOCK_BYTES, column_names=header, skip_rows=1 if self.has_header else 0
            ),
            parse_options=pa.csv.ParseOptions(delimiter=self.delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types={n: _csv_type(n, self.first[header.index(n)]) for n in columns},
                include_columns=list(columns),
                strings_can_be_null=True,
            ),
        )

    def _broken(self, columns: Sequence[str]) -> UserError | None:
        """The first line that has the wrong number of cells, or a cell that does not parse."""
        header = list(self.header)
        wanted = [(header.index(n), n, _csv_type(n, self.first[header.index(n)])) for n in columns]
        with opened(self.path, self.container) as file:
            reader = csv.reader(
                io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""), delimiter=self.delimiter
            )
            for k, cells in enumerate(c for c in reader if c):
                if k == 0 and self.has_header:
                    continue
                if len(cells) != len(header):
                    return UserError(
                        f"{self.path} line {reader.line_num}: has {len(cells)} values where the file has "
                        f"{len(header)} columns; the file may be cut off"
                    )
                for at, name, kind in wanted:
                    if not _parses(cells[at], kind):
                        what = "a whole number" if kind == pa.int64() else "a number"
                        return UserError(f'{self.path} line {reader.line_num}: {name} "{cells[at]}" is not {what}')
        return None


def _first_lines(file: IO[bytes]) -> bytes:
    out = b""
    for _ in range(64):
        line = file.readline(1 << 20)
        out += line
        if not line or (out.count(b"\n") >= 2 and len([x for x in out.splitlines() if x.strip()]) >= 2):
            break
    return out


def _csv_type(name: str, sample: str) -> Any:
    key = name.lower().replace("_", "")
    if key in (
        "symbol",
        "ticker",
        "instrument",
        "side",
        "exchange",
        "barkind",
        "suspicious",
        "isbuyermaker",
        "buyermaker",
    ):
        return pa.dictionary(pa.int32(), pa.string())
    if "time" in key or "date" in key or key.startswith("ts") or key in ("t",):
        return pa.int64() if sample.isdigit() and len(sample) != 8 else pa.string()
    if key in ("id", "tradeid", "aggtradeid", "trades", "count", "numberoftrades", "flags", "gap", "intervalns"):
        return pa.int64()
    return pa.float64()


def _parses(cell: str, kind: Any) -> bool:
    cell = cell.strip()
    if cell.lower() in ("", "nan", "null", "na", "n/a", "none", "-nan", "#n/a", "1.#qnan"):
        return True
    try:
        if kind == pa.int64():
            int(cell)
        elif kind == pa.float64():
            float(cell)
    except ValueError:
        return False
    return True


Container = Parquet | Arrow | Csv
