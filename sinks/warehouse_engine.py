"""The embedded engine behind the warehouse: chDB, asked one statement at a time by many threads.

A statement runs on a connection of its own, opened for it (about a millisecond), so that settings, the current database
and temporary tables of one client never reach another; a client that names a session keeps its connection. An insert
that was answered is a part on disk, whatever happens to the process next.
"""

import contextlib
import itertools
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from schemas.errors import PenstockError, UserError
from sinks.warehouse_http import STREAMED, QueryError, query_error
from sinks.warehouse_native import header_block, native_blocks
from sinks.warehouse_sql import Statement, literal, scan

SESSIONS_MAX = 64
SESSION_IDLE_S = 60.0
STATEMENT_BYTES_MAX = 16 * 1024 * 1024
SELECTS = ("SELECT", "WITH")
"""Statements whose answer the engine can stream."""
READ_CLASSES = ("READ_ONLY", "CONTROL")


@dataclass(frozen=True)
class Query:
    """One request: `sql` and, for an insert, its data; `format` where the statement names none."""

    sql: bytes
    data: bytes = b""
    database: str = ""
    format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    read_only: bool = False
    revision: int = 0


@dataclass
class Answer:
    """What came of it. `chunks` may be read once and must be read or closed; the counts are final when they ended."""

    chunks: Iterator[bytes]
    format: str | None
    rows_read: int = 0
    rows_written: int = 0


class Engine:
    """One directory, open. Threads may call `run` at the same time; `close` waits for what is running."""

    def __init__(self, directory: Path, outside: bool = False) -> None:
        """`outside` lets statements reach files, hosts and programs beyond the warehouse."""
        self._path = str(directory)
        self._outside = outside
        self._sessions: OrderedDict[str, tuple[Any, threading.Lock, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._running = threading.Condition()
        self._count = 0
        try:
            self._keeper = chdb.connect(self._path)
            self.version, self.timezone = json.loads(
                self._keeper.query("SELECT version(), timezone()", "JSONCompactEachRow").bytes()
            )
        except Exception as error:
            raise UserError(
                f'warehouse directory "{directory}" cannot be opened: {_reason(error)}; it may be damaged: restore it '
                "from a backup, or name another directory"
            ) from None
        self._refuse_damage(directory)

    def _refuse_damage(self, directory: Path) -> None:
        """The engine sets damaged parts aside and goes on without their rows; that is not for it to decide."""
        found = json.loads(self._keeper.query(
            "SELECT any(database || '.' || table), any(path), count() FROM system.detached_parts WHERE reason LIKE 'broken%'",
            "JSONCompactEachRow",
        ).bytes())  # fmt: skip
        if int(found[2]):
            self._keeper.close()
            raise UserError(
                f'warehouse directory "{directory}": {found[2]} damaged parts, one of {found[0]}, were set aside as '
                f'"{found[1]}"; restore a backup, or delete those folders to go on without their rows'
            )

    def run(self, query: Query) -> Answer:
        """Execute; QueryError in ClickHouse's words. The answer holds the connection until its chunks are read."""
        statement = scan(query.sql[:STATEMENT_BYTES_MAX])
        if statement.outside and not self._outside:
            raise QueryError(
                497, "ACCESS_DENIED", f"{statement.outside} reaches outside the warehouse, which is not allowed"
            )
        with contextlib.ExitStack() as stack:
            with self._running:
                self._count += 1
            stack.callback(self._leave)
            connection = self._connection(query, stack)
            with _translated():
                self._prepare(connection, query, stack)
                if statement.data_at is not None:
                    answer = _insert(connection, query, statement)
                else:
                    answer = _select(connection, query, statement)
            held = stack.pop_all()
        # a generator that never started would clean nothing up: its first chunk is taken here
        answer.chunks = _Started(_held(answer.chunks, held))
        return answer

    def close(self, timeout_s: float = 60.0) -> None:
        """Wait for running statements, then close; PenstockError where one is still running after the timeout."""
        with self._running:
            idle = self._running.wait_for(lambda: self._count == 0, timeout_s)
        if not idle:
            raise PenstockError(f"{self._count} statements were still running after {timeout_s:.0f} s")
        for connection, _, _ in self._sessions.values():
            connection.close()
        self._keeper.close()

    def _leave(self) -> None:
        with self._running:
            self._count -= 1
            self._running.notify_all()

    def _connection(self, query: Query, stack: contextlib.ExitStack) -> Any:
        if not query.session:
            with _translated():
                connection = chdb.connect(self._path)
            stack.callback(connection.close)
            return connection
        with self._lock:
            now = time.monotonic()
            for name, (old, lock, used) in list(self._sessions.items()):
                full = len(self._sessions) >= SESSIONS_MAX and query.session not in self._sessions
                if (now - used > SESSION_IDLE_S or full) and not lock.locked():
                    del self._sessions[name]
                    old.close()
            if query.session in self._sessions:
                connection, lock, _ = self._sessions.pop(query.session)
            else:
                connection, lock = chdb.connect(self._path), threading.Lock()
            self._sessions[query.session] = (connection, lock, now)
            if not lock.acquire(blocking=False):
                raise QueryError(373, "SESSION_IS_LOCKED", f"Session {query.session} is locked by a concurrent client")
        stack.callback(lock.release)
        return connection

    def _prepare(self, connection: Any, query: Query, stack: contextlib.ExitStack) -> None:
        if query.database:
            connection.query(f"USE {_quoted(query.database)}")
        if not query.settings:
            return
        for name in query.settings:
            if not name.isidentifier():
                raise QueryError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
        connection.query("SET " + ", ".join(f"{name} = {literal(value)}" for name, value in query.settings.items()))
        if query.session:
            stack.callback(connection.query, "SET " + ", ".join(f"{name} = DEFAULT" for name in query.settings))


class _Started(Iterator[bytes]):
    """An iterator whose first chunk is already there, so that errors come before the answer begins."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._rest = chunks
        self._first: bytes | None = next(chunks, None)

    def __next__(self) -> bytes:
        if self._first is not None:
            chunk, self._first = self._first, None
            return chunk
        return next(self._rest)

    def close(self) -> None:
        self._rest.close()  # type: ignore[attr-defined]


def _held(chunks: Iterator[bytes], held: contextlib.ExitStack) -> Iterator[bytes]:
    """Chunks, then whatever was held for them is given back, however they end."""
    with held, _translated():
        yield from chunks


def _insert(connection: Any, query: Query, statement: Statement) -> Answer:
    assert statement.data_at is not None and statement.format is not None
    _require_writable(query, "INSERT")
    inline = query.sql[statement.data_at :]
    data = b"\n".join(part for part in (inline, query.data) if part) if inline and query.data else inline or query.data
    if statement.format.lower() == "values":  # the streaming insert does not know this one
        text = query.sql[: statement.format_span[0]] + b"VALUES " + data
        return Answer(iter(()), None, rows_written=connection.query(text.decode()).rows_written())
    if not data:
        return Answer(iter(()), None)
    inserter = connection.send_insert(query.sql[: statement.format_span[0]].decode(), statement.format)
    try:
        inserter.append(data)
        written = inserter.finish().rows_written
    except BaseException:
        with contextlib.suppress(Exception):
            inserter.cancel()
        raise
    return Answer(iter(()), None, rows_written=written)


def _select(connection: Any, query: Query, statement: Statement) -> Answer:
    text = query.sql + (b"\n" + query.data if query.data else b"")
    try:
        sql = text.decode()
    except UnicodeDecodeError:
        raise QueryError(62, "SYNTAX_ERROR", "The statement is not UTF-8 text") from None
    facts = connection._conn.classify_query(sql)
    kind = facts["query_class"].name
    if facts["statement_count"] > 1:
        raise QueryError(62, "SYNTAX_ERROR", "Multi-statements are not allowed")
    if kind not in (*READ_CLASSES, "UNKNOWN"):
        _require_writable(query, statement.verb)
    form = statement.format or query.format
    parameters = dict(query.parameters)
    if kind == "READ_ONLY" and form.lower() == "native" and query.revision:
        return _native(connection, sql, statement, parameters, query.revision)
    if kind == "READ_ONLY" and form.lower() in STREAMED and statement.verb in SELECTS:
        answer = Answer(iter(()), form)
        answer.chunks = _streamed(connection.send_query(sql, form, params=parameters), answer)
        return answer
    result = connection.query(sql, form, params=parameters)
    body = result.bytes()
    named = form if body or kind == "READ_ONLY" else None
    return Answer(iter((body,)), named, result.rows_read(), result.rows_written())


def _streamed(result: Any, answer: Answer) -> Iterator[bytes]:
    try:
        while True:
            chunk = result.fetch()
            if chunk is None:
                return
            answer.rows_read += chunk.rows_read()
            yield chunk.bytes()
    finally:
        result.close()


def _native(connection: Any, sql: str, statement: Statement, parameters: dict[str, str], revision: int) -> Answer:
    raw = sql.encode()
    start, stop = statement.format_span
    bare = (raw[:start] + raw[stop:]).decode() if statement.format else sql
    bare = bare.strip().rstrip(";")
    if statement.verb in SELECTS:
        described = connection.query(f"DESCRIBE TABLE (\n{bare}\n)", "JSONCompactEachRow", params=parameters)
        columns = [tuple(json.loads(line)[:2]) for line in described.bytes().splitlines()]
    else:
        shown = connection.query(bare, "JSONCompactEachRowWithNamesAndTypes", params=parameters).bytes().splitlines()
        columns = list(zip(json.loads(shown[0]), json.loads(shown[1]), strict=True)) if shown else []
    answer = Answer(iter(()), "Native")

    def blocks() -> Iterator[bytes]:
        # the first chunk before the header: what fails at once is refused, not cut off
        if statement.verb in SELECTS:
            chunks = _streamed(connection.send_query(bare, "Buffers", params=parameters), answer)
        else:
            chunks = iter((connection.query(bare, "Buffers", params=parameters).bytes(),))
        first = next(chunks, b"")
        yield header_block(columns, revision)
        for chunk in itertools.chain((first,), chunks):
            yield from native_blocks(chunk, columns, revision)

    answer.chunks = blocks()
    return answer


def _require_writable(query: Query, verb: str) -> None:
    if query.read_only:
        raise QueryError(
            164, "READONLY",
            f"Cannot execute {verb} in readonly mode. For queries over HTTP, method GET implies readonly. Use POST instead",
        )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except QueryError:
        raise
    except (chdb.ChdbError, RuntimeError, ValueError) as error:
        raise query_error(error) from None


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _reason(error: Exception) -> str:
    """What the engine says, in one line, without its stack trace and wrapping."""
    said = str(error).split("Stack trace")[0].split("\n")[0]
    said = said.rpartition("EmbeddedServer: ")[2].removesuffix("(BAD_ARGUMENTS)").strip(" .,")
    return said[:300] or "the engine could not read its tables"
