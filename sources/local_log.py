"""A log without a broker: what a run took, in one SQLite file that survives a kill, and as Parquet once it is safe in a snapshot.

An offset is the number of a row within its table, in the order in which it came. What `append` returned for is there after a
kill -9. Parquet files hold whole stretches of one table, `TABLE-FIRST.parquet`, and are complete as soon as they have their name.
"""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.codec import from_arrow, to_arrow
from schemas.errors import PenstockError, UserError
from schemas.frame import Arrival
from schemas.rows import appended, copied
from schemas.tables import Rows
from schemas.tables_models import PROMOTIONS
from schemas.topics import TABLES
from sources.journal import Entry, Range

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS input (name TEXT, offset_from INTEGER, offset_to INTEGER, rows BLOB, PRIMARY KEY (name, offset_from));
CREATE TABLE IF NOT EXISTS names (code INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS commands (id INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL);
"""
ROTATE_ROWS = 500_000

PROMOTED = ("model_id", "version", "action", "digest")
"""What a promotion says beside its place on the tape, which it gets where it is taken."""


def promotion_of(command: str) -> Rows | None:
    """The promotion that a command left, None where it is another."""
    if not command.startswith("["):
        return None
    row = PROMOTIONS.empty(1)
    for name, value in zip(PROMOTED, json.loads(command), strict=True):
        row[name] = value
    return row


class LocalLog:
    """The input of one run, in a folder. One process writes; others may read, and leave commands."""

    def __init__(self, folder: Path, create: bool = True) -> None:
        self.folder = folder
        path = folder / "input.sqlite3"
        if not create and not path.exists():
            raise UserError(f"{folder}: no recorded input; a run without a broker keeps it there")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            if create:  # whoever only reads changes nothing, so that the process that runs never waits for it
                self.db.execute("PRAGMA journal_mode=WAL")
                self.db.execute("PRAGMA synchronous=NORMAL")  # a kill loses nothing; a power cut may lose the last moments
                self.db.executescript(_SCHEMA)
            self.db.execute("SELECT count(*) FROM entries").fetchone()
        except sqlite3.DatabaseError as error:
            raise PenstockError(f"{path}: {error}; the recorded input is damaged") from None
        self._command_id = 0
        self.names: list[str] = [name for _, name in self.db.execute("SELECT code, name FROM names ORDER BY code")]

    def append(self, entry: Entry, arrivals: Sequence[Arrival], names: Sequence[str]) -> None:
        """What a frame was made of, whole or not at all."""
        self.db.execute("BEGIN")
        if len(names) > len(self.names):
            new = list(enumerate(names))[len(self.names):]
            self.db.executemany("INSERT INTO names VALUES (?, ?)", new)
            self.names += [name for _, name in new]
        for r, a in zip(entry.ranges, arrivals, strict=True):
            self.db.execute("INSERT INTO input VALUES (?, ?, ?, ?)", (r.table, r.offset_from, r.offset_to, a.rows.tobytes()))
        ranges = [(r.table, r.offset_from, r.offset_to) for r in entry.ranges]
        document = [ranges, int(entry.skip), entry.ts_event_ns, entry.first_seq, entry.rows]
        self.db.execute("INSERT INTO entries VALUES (?, ?)", (entry.number, json.dumps(document)))
        self.db.execute("DELETE FROM commands WHERE id <= ?", (self._command_id,))  # they are input now
        self.db.execute("COMMIT")

    def entries(self, number: int = 0) -> list[Entry]:
        """The frames from this number on."""
        out = []
        for n, text in self.db.execute("SELECT number, document FROM entries WHERE number >= ? ORDER BY number", (number,)):
            ranges, skip, ts, first, rows = json.loads(text)
            out.append(Entry(n, tuple(Range(t, 0, a, b) for t, a, b in ranges), bool(skip), ts, first, rows))
        return out

    def read(self, r: Range) -> Rows:
        """The rows of a range, from the file that has them."""
        spec = TABLES[r.table]
        parts: list[Any] = []
        at = r.offset_from
        found = self.db.execute("SELECT offset_from, rows FROM input WHERE name = ? AND offset_to > ? AND offset_from < ? "
                                "ORDER BY offset_from", (r.table, r.offset_from, r.offset_to)).fetchall()
        if not found or found[0][0] > at:
            kept = self._parquet(r.table, at, found[0][0] if found else r.offset_to)
            parts += kept
            at += sum(map(len, kept))
        for first, blob in found:
            rows = np.frombuffer(blob, spec.dtype)[max(0, at - first): r.offset_to - first]
            parts.append(rows)
            at += len(rows)
        if at != r.offset_to:
            raise PenstockError(f"{self.folder}: rows {at} to {r.offset_to} of {r.table} are gone")
        if not parts:
            return spec.empty(0)
        return copied(appended(parts))

    def _parquet(self, table: str, begin: int, end: int) -> list[Rows]:
        out = []
        for path in sorted((self.folder / "input").glob(f"{table}-*.parquet")):
            first = int(path.stem.rsplit("-", 1)[1])
            if first >= end or first + pq.read_metadata(path).num_rows <= begin:
                continue
            rows = from_arrow(TABLES[table], pq.read_table(path), self.names)
            out.append(rows[max(0, begin - first): end - first])
        return out

    def rotate(self, number: int, all_of_it: bool = False) -> None:
        """Move what frames before this number took into Parquet, where it is worth a file."""
        until: dict[str, int] = {}
        for (text,) in self.db.execute("SELECT document FROM entries WHERE number < ?", (number,)):
            for table, _, b in json.loads(text)[0]:
                until[table] = max(until.get(table, 0), b)
        held = dict(self.db.execute("SELECT name, sum(offset_to - offset_from) FROM input GROUP BY name"))
        for table, end in until.items():
            if table in held and (all_of_it or held[table] >= ROTATE_ROWS):
                self._rotate(table, end)

    def _rotate(self, table: str, end: int) -> None:
        found = self.db.execute("SELECT offset_from, rows FROM input WHERE name = ? AND offset_to <= ? ORDER BY offset_from",
                                (table, end)).fetchall()
        if not found:
            return
        spec = TABLES[table]
        rows = np.concatenate([np.frombuffer(blob, f"V{spec.dtype.itemsize}") for _, blob in found]).view(spec.dtype)
        target = self.folder / "input" / f"{table}-{found[0][0]:012d}.parquet"
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        pq.write_table(pa.table(to_arrow(spec, rows, self.names)), part, compression="zstd")
        part.replace(target)
        self.db.execute("DELETE FROM input WHERE name = ? AND offset_to <= ?", (table, end))

    def fact(self, name: str) -> str | None:
        """Something that the run remembers of itself."""
        found = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def note(self, name: str, value: str) -> None:
        """Remember it."""
        self.db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def command(self, command: str) -> None:
        """Leave a control command for the process that runs."""
        self.db.execute("INSERT INTO commands (command) VALUES (?)", (command,))

    def promote(self, promotions: Rows) -> None:
        """Leave rows of `promotions` for the process that runs."""
        for row in promotions:
            self.db.execute("INSERT INTO commands (command) VALUES (?)", (json.dumps([int(row[name]) for name in PROMOTED]),))

    def commands(self) -> list[str]:
        """The commands that were left; each is given once, and stays in the file until it is input."""
        found = self.db.execute("SELECT id, command FROM commands WHERE id > ? ORDER BY id", (self._command_id,)).fetchall()
        if found:
            self._command_id = found[-1][0]
        return [command for _, command in found]

    def close(self) -> None:
        self.db.close()
