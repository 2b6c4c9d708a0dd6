"""The registry's SQLite file: who opens it, who may write, and what its errors mean to a user.

One transaction writes at a time, over all processes. The file appears whole, with its tables, and every connection is short: nothing
is held between two calls. Events cannot be changed or deleted, which the file itself sees to.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from research.learning.registry_events import Event
from research.learning.registry_files import DATABASE, VersionFiles, sync
from schemas.artefact import Card
from schemas.errors import PenstockError, UserError

SCHEMA = 1
"""Version of the tables. A reader refuses one that is newer than itself."""
BUSY_S = 20.0
"""How long a call waits for another process that writes."""
REPAIR = "penstock model repair makes it again from the versions' files"
_TABLES = f"""
CREATE TABLE versions (
  name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL, tag TEXT NOT NULL,
  parent INTEGER NOT NULL, metrics TEXT NOT NULL, created_ns INTEGER NOT NULL, pruned INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (name, version)) WITHOUT ROWID;
CREATE TABLE events (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, action TEXT NOT NULL, effective_ns INTEGER NOT NULL,
  recorded_ns INTEGER NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX events_of ON events (name, effective_ns, number);
CREATE TABLE published (target TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events never change'); END;
CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
PRAGMA user_version = {SCHEMA};
"""
VERSION_FIELDS = "name, version, digest, model, task, tag, parent, metrics, created_ns, pruned"
_EVENT = "number, name, version, action, effective_ns, recorded_ns, reason, actor, digest"


def events_of(db: sqlite3.Connection, name: str | None = None) -> list[Event]:
    """The events of a name, or all, by number."""
    where, values = ("", ()) if name is None else (" WHERE name = ?", (name,))
    return [Event(*row) for row in db.execute(f"SELECT {_EVENT} FROM events{where} ORDER BY number", values)]


def add_event(db: sqlite3.Connection, e: Event) -> None:
    """One more."""
    db.execute(f"INSERT INTO events ({_EVENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
               (e.number, e.name, e.version, e.action, e.effective_ns, e.recorded_ns, e.reason, e.actor, e.digest))


def add_version(db: sqlite3.Connection, c: Card, digest: str, created_ns: int, pruned: bool = False) -> None:
    """Record a version whose files are in place."""
    db.execute(f"INSERT INTO versions ({VERSION_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
               (c.name, c.version, digest, c.model, c.task, str(c.about.get("tag", "")), int(c.about.get("parent", 0)),
                json.dumps(c.about.get("metrics", {}), sort_keys=True), created_ns, int(pruned)))


def names_of(db: sqlite3.Connection) -> list[str]:
    """Names of models, sorted."""
    return [name for name, in db.execute("SELECT DISTINCT name FROM versions ORDER BY name")]


class Database:
    """The file in a registry's folder; it need not exist to be read."""

    def __init__(self, root: Path, busy_s: float = BUSY_S) -> None:
        self.root, self.path, self.busy_s = root, root / DATABASE, busy_s
        self._checked = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent state of it; an empty one where there is no registry yet."""
        with self._explained(), contextlib.closing(self._open(write=False)) as db:
            db.execute("BEGIN")
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, alone over all processes, that is committed where the block ends without an error."""
        with self._explained(), contextlib.closing(self._open(write=True)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _open(self, write: bool) -> sqlite3.Connection:
        if not self.path.exists():
            if VersionFiles(self.root).found() and not self.path.exists():  # looked again: another process may be making it
                raise PenstockError(f"{self.path}: missing, though there are versions beside it; {REPAIR}")
            if not write and not self.path.exists():
                db = sqlite3.connect(":memory:", isolation_level=None)
                db.executescript(_TABLES)
                return db
            if write:
                create(self.path)
        db = sqlite3.connect(self.path, isolation_level=None, timeout=self.busy_s)
        try:
            db.execute("PRAGMA synchronous=FULL")  # a promotion that was acknowledged survives a power cut
            self._check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        if self._checked:
            return
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA:
            raise PenstockError(f"{self.path}: written in format {found}, and this version reads up to {SCHEMA}; update penstock")
        whole = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found < 1 or whole != "ok":
            raise PenstockError(f"{self.path}: damaged ({'no registry in it' if found < 1 else ' '.join(whole.split())}); {REPAIR}")
        self._checked = True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise PenstockError(f"{self.path}: another process has been writing to it for {self.busy_s:g} s; nothing was changed; "
                                    "try again when it is done") from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                raise PenstockError(f"{self.path}: damaged ({error}); {REPAIR}") from None
            raise PenstockError(f"{self.path}: {error}; nothing was changed; check the disk and who may write there") from None
        except OSError as error:
            raise PenstockError(f"{error.filename or self.root}: {error.strerror}; nothing was changed; check the disk and who may write "
                                "there") from None


def create(path: Path) -> None:
    """An empty registry, unless somebody makes one at the same moment; it is whole as soon as it has its name."""
    if path.parent.exists() and not path.parent.is_dir():
        raise UserError(f"{path.parent}: not a folder; give the folder of a registry")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(_TABLES)
    sync(made)
    with contextlib.suppress(FileExistsError):
        os.link(made, path)
    made.unlink()
    sync(path.parent)
