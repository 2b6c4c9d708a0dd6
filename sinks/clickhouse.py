"""The ClickHouse sink, and the client that everything uses to reach the warehouse, embedded or not.

A row that `flush` or `close` returned for is stored. Batches leave through one thread and a queue of bounded length, so
a slow warehouse slows its writers and memory stays bounded. A batch is retried under one token: stored once, at most.
"""

import contextlib
import ipaddress
import logging
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from schemas import ddl
from schemas.codec import encode_ipc
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows, Frame
from schemas.tables import Rows, TableSpec
from schemas.topics import TABLES
from sinks.batches import FEATURES, Batch, Part, Records, pieces
from sinks.warehouse import PASSWORD_VARIABLE, USER_VARIABLE

BATCH_ROWS = 262_144
BATCH_BYTES = 64 * 1024 * 1024
QUEUE_BATCHES = 2
ATTEMPTS = 6
BACKOFF_S = 0.2
BACKOFF_S_MAX = 5.0
INSERT_SETTINGS = {"optimize_on_insert": "0"}
"""Rows of one insert are not merged while it runs: twice as fast, and readers use FINAL anyway."""
TRANSIENT = {159, 202, 209, 210, 241, 252, 425, 999}
"""Codes worth another attempt: timeouts, too many queries or parts, sockets, memory, coordination."""


def connect(url: str, database: str | None = None) -> Client:
    """A client for `http[s]://[user[:password]@]host[:port][/database]`; safe to share between threads.

    User and password default to PENSTOCK_WAREHOUSE_USER and PENSTOCK_WAREHOUSE_PASSWORD. UserError where the URL is none
    or the password is wrong, PenstockError where nothing answers.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (8443 if parts.scheme == "https" else 8123)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise UserError(f'"{url}" is not a warehouse URL; write it like http://127.0.0.1:8123')
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it would log is raised, and said in one line
    with translated(url):
        return clickhouse_connect.get_client(
            host=parts.hostname,
            port=port,
            secure=parts.scheme == "https",
            username=unquote(parts.username or os.environ.get(USER_VARIABLE, "default")),
            password=unquote(parts.password or os.environ.get(PASSWORD_VARIABLE, "")),
            database=database or parts.path.strip("/") or "default",
            compress=False if _is_loopback(parts.hostname) else "lz4",
            autogenerate_session_id=False,
            query_retries=2,
            pool_mgr=urllib3.PoolManager(num_pools=1, maxsize=8),
        )


def create_tables(client: Client, database: str = ddl.DATABASE, specs: Iterable[TableSpec] | None = None) -> None:
    """Make the database and its tables where they are missing."""
    with translated(str(getattr(client, "url", "warehouse"))):
        for statement in ddl.create_all(database, specs):
            client.command(statement, use_database=False)


def query_arrow(client: Client, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """The result of a query; low-cardinality strings are dictionaries. Values go in as `{name:Type}` parameters."""
    with translated(str(getattr(client, "url", "warehouse"))):
        table: pa.Table = client.query_arrow(
            sql, parameters=dict(parameters or {}), settings={"output_format_arrow_low_cardinality_as_dictionary": 1}
        )
    return table


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Errors of the client as one line that says what to do."""
    try:
        yield
    except (ClickHouseError, urllib3.exceptions.HTTPError) as error:
        raise warehouse_error(url, error) from error


def warehouse_error(url: str, error: Exception) -> PenstockError:
    """What a failure of the client means to the user."""
    shown = _without_password(url)
    code = getattr(error, "code", None)
    said = " ".join(str(error).split(" (for url ")[0].split())
    said = said.partition("server response: ")[2] or said
    if code in (194, 516) or "AUTHENTICATION_FAILED" in said:
        return UserError(f"the warehouse at {shown} refuses the user or password; set {PASSWORD_VARIABLE}")
    if code == 243 or "No space left" in said or "NOT_ENOUGH_SPACE" in said:
        return PenstockError(f"the warehouse at {shown} is full: {said[:200]}; free space or delete old runs")
    if code is None:
        return PenstockError(
            f"the warehouse at {shown} does not answer: {_cause(error)}; start it with `penstock warehouse serve`, "
            "check the URL, or use --warehouse none"
        )
    return PenstockError(f"the warehouse at {shown} refused: {said[:500]}")


class ClickHouseSink:
    """Rows to ClickHouse tables, in batches, from a thread of its own.

    Not for several writers at once. After an error every call raises it; what had not been stored is counted in it.
    """

    def __init__(
        self,
        url: str,
        run_id: str,
        *,
        database: str = ddl.DATABASE,
        batch_rows: int = BATCH_ROWS,
        batch_bytes: int = BATCH_BYTES,
        queue_batches: int = QUEUE_BATCHES,
        attempts: int = ATTEMPTS,
        backoff_s: float = BACKOFF_S,
        create: bool = True,
    ) -> None:
        self.run_id = run_id
        self.rows_stored = 0
        self._url = url
        self._database = database
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._retry = Retry(total=attempts - 1, backoff_factor=backoff_s, backoff_max=BACKOFF_S_MAX, backoff_jitter=0.1)
        self._client = connect(url)
        self._compression = None if _is_loopback(urlsplit(url).hostname or "") else "lz4"
        if create:
            create_tables(self._client, database)
        self._token, self._number = secrets.token_hex(8), 0
        self._pending: dict[str, Batch] = {}
        self._queue: queue.Queue[Batch | None] = queue.Queue(queue_batches)
        self._error: PenstockError | None = None
        self._lost = 0
        self._thread: threading.Thread | None = threading.Thread(target=self._work, name="clickhouse-sink", daemon=True)
        self._thread.start()

    def write(
        self, spec: TableSpec, rows: Rows | Records | pa.Table, symbols: Sequence[str] = (), strategies: Sequence[str] = (),
        run_id: str | None = None,
    ) -> None:  # fmt: skip
        """Take rows (records, for a table with text columns; an Arrow table of its schema); blocks while the queue is full.

        run_id: whose they are, where it is not the sink's own run.
        """
        self._add(spec, Part(rows, tuple(symbols), tuple(strategies), self.run_id if run_id is None else run_id))

    def write_features(self, features: FeatureRows, symbols: Sequence[str]) -> None:
        """Take the feature values of closed bars."""
        self._add(FEATURES, Part(features, tuple(symbols), (), self.run_id))

    def write_frame(self, frame: Frame, strategies: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        """Take every table of a frame but those named in `skip`."""
        for name, rows in frame.tables.items():
            if name in TABLES and name not in skip:
                self.write(TABLES[name], rows, frame.symbols, strategies)
        if FEATURES.name not in skip:
            for features in frame.features:
                self.write_features(features, frame.symbols)

    def flush(self) -> None:
        """Return when every row so far is stored; PenstockError where it could not be."""
        self._check()
        for batch in self._pending.values():
            self._queue.put(batch)
        self._pending = {}
        self._queue.join()
        self._check()

    def close(self) -> None:
        """Store what is left and end the thread; harmless when called twice."""
        if self._thread is None:
            return
        try:
            self.flush()
        finally:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, spec: TableSpec, part: Part) -> None:
        self._check()
        if self._thread is None:
            raise PenstockError("the ClickHouse sink is closed")
        for piece in pieces(part, self._batch_rows):
            batch = self._pending.get(spec.name) or self._pending.setdefault(spec.name, Batch(spec))
            batch.add(piece)
            if batch.rows >= self._batch_rows or batch.nbytes >= self._batch_bytes:
                self._queue.put(self._pending.pop(spec.name))

    def _check(self) -> None:
        if self._error is not None:
            kind = type(self._error)
            waiting = self._lost + sum(batch.rows for batch in self._pending.values())
            raise kind(f"{self._error} ({waiting} rows were not stored)")

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._store(batch)
                else:
                    self._lost += batch.rows
            except Exception as error:  # the edge: kept, and raised in the writer's thread
                self._lost += batch.rows
                self._error = error if isinstance(error, PenstockError) else PenstockError(
                    f"{batch.spec.name} could not be stored: {type(error).__name__}: {error}"
                )  # fmt: skip
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _store(self, batch: Batch) -> None:
        table = batch.table()
        payload = memoryview(encode_ipc(table.add_column(0, ddl.RUN_ID, batch.run_ids()), self._compression))
        self._number += 1
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": f"{self._token}-{self._number}"}
        target = f"{ddl.quote(self._database)}.{ddl.quote(batch.spec.name)}"
        columns = [ddl.RUN_ID, *table.column_names]
        self._retried(lambda: self._client.raw_insert(target, columns, payload, settings=settings, fmt="ArrowStream"))
        self.rows_stored += batch.rows

    def _retried(self, action: Callable[[], object]) -> None:
        retry = self._retry
        while True:
            try:
                action()
                return
            except (ClickHouseError, urllib3.exceptions.HTTPError) as error:
                code = getattr(error, "code", None)
                if code is not None and code not in TRANSIENT:
                    raise warehouse_error(self._url, error) from error
                try:
                    retry = retry.increment(method="POST", url=_without_password(self._url), error=error)
                except MaxRetryError:
                    raise warehouse_error(self._url, error) from error
                retry.sleep()


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme else url


def _cause(error: BaseException) -> str:
    """The innermost reason: `Connection refused` rather than what the layers made of it."""
    seen = error
    for _ in range(8):
        inner = getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return str(getattr(seen, "strerror", None) or seen).split("\n")[0][:200] or type(seen).__name__
