"""The Parquet sink: one file per table in a directory, complete or absent.

A file is written under a temporary name, in row groups of bounded size, and gets its own name when the sink closes; an
abort, or leaving the `with` block by an exception, leaves nothing behind.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.codec import arrow_schema
from schemas.codec_features import features_to_arrow
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows
from schemas.intervals import interval_text
from schemas.tables import Rows, TableSpec
from sinks.batches import Batch, Part, Records, pieces

ROW_GROUP_ROWS = 131_072
COMPRESSION = "zstd"


class ParquetSink:
    """Rows to `DIRECTORY/TABLE.parquet`; features, wide, to `DIRECTORY/features_1m.parquet`."""

    def __init__(self, directory: Path | str, *, overwrite: bool = False, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self.directory = Path(directory)
        self._overwrite = overwrite
        self._group = row_group_rows
        self._files: dict[str, _File] = {}
        self._features: dict[tuple[int, tuple[str, ...]], str] = {}
        with _written(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)

    def write(
        self, spec: TableSpec, rows: Rows | Records, symbols: Sequence[str] = (), strategies: Sequence[str] = ()
    ) -> None:
        """Take rows (records, for a table with text columns)."""
        file = self._files.get(spec.name)
        if file is None:
            file = self._open(spec.name, arrow_schema(spec))
        for piece in pieces(Part(rows, tuple(symbols), tuple(strategies)), self._group):
            if file.batch is None:
                file.batch = Batch(spec)
            file.batch.add(piece)
            if file.batch.rows >= self._group:
                file.write_batch()

    def write_features(self, features: FeatureRows, symbols: Sequence[str]) -> None:
        """Take the feature values of closed bars; a file per timeframe and set of names."""
        key = (features.interval_ns, features.names)
        table = features_to_arrow(features, symbols)
        if key not in self._features:
            same = sum(1 for interval_ns, _ in self._features if interval_ns == features.interval_ns)
            name = f"features_{interval_text(features.interval_ns)}" + (f"_{same + 1}" if same else "")
            self._features[key] = name
            self._open(name, table.schema)
        file = self._files[self._features[key]]
        file.tables.append(table)
        file.table_rows += table.num_rows
        if file.table_rows >= self._group:
            file.write_tables()

    def close(self) -> list[Path]:
        """Finish the files and give them their names; the paths of all of them."""
        paths = []
        try:
            for file in self._files.values():
                paths.append(file.finish())
        except BaseException:
            self.abort()
            raise
        self._files = {}
        return paths

    def abort(self) -> None:
        """Drop what was not finished."""
        for file in self._files.values():
            file.drop()
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open(self, name: str, schema: pa.Schema) -> "_File":
        path = self.directory / f"{name}.parquet"
        if path.exists() and not self._overwrite:
            raise UserError(f'"{path}" exists already; choose another directory or ask to overwrite it')
        self._files[name] = _File(path, schema)
        return self._files[name]


class _File:
    """One file in the making."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.batch: Batch | None = None
        self.tables: list[pa.Table] = []
        self.table_rows = 0
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        with _written(path):
            self._writer = pq.ParquetWriter(self._temporary, schema, compression=COMPRESSION)

    def write_batch(self) -> None:
        """The gathered rows as one row group."""
        if self.batch is not None:
            self._write(self.batch.table())
            self.batch = None

    def write_tables(self) -> None:
        """The gathered tables as one row group."""
        if self.tables:
            self._write(pa.concat_tables(self.tables).unify_dictionaries().combine_chunks())
            self.tables, self.table_rows = [], 0

    def finish(self) -> Path:
        """Write what is left, make it last, and give the file its name."""
        self.write_batch()
        self.write_tables()
        with _written(self._path):
            self._writer.close()
            with self._temporary.open("rb") as done:
                os.fsync(done.fileno())
            self._temporary.replace(self._path)
        return self._path

    def drop(self) -> None:
        """Leave nothing."""
        with contextlib.suppress(Exception):
            self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, table: pa.Table) -> None:
        with _written(self._path):
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f'"{path}" cannot be written: {error.strerror}; name another directory') from None
    except OSError as error:
        raise PenstockError(f'"{path}" could not be written: {error.strerror or error}; free space or name another') from None
