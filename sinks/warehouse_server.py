"""The warehouse's server process: ClickHouse's HTTP protocol in front of the embedded engine.

Started by `penstock warehouse serve`, or as a child by `sinks.warehouse.start_embedded`. One process owns a directory:
it holds `server.lock` and writes its address into `server.json`. SIGTERM and SIGINT let running statements finish.
"""

import argparse
import base64
import contextlib
import fcntl
import hmac
import ipaddress
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from schemas.errors import PenstockError, UserError
from sinks.warehouse import (
    CLIENTS_LOCK,
    DEFAULT_PORT,
    ENGINE_FOLDER,
    PASSWORD_VARIABLE,
    SERVER_FILE,
    SERVER_LOCK,
    USER_VARIABLE,
)  # fmt: skip
from sinks.warehouse_engine import Answer, Engine, Query
from sinks.warehouse_http import (
    TRANSPORT_PARAMETERS,
    QueryError,
    chosen_encoding,
    content_type,
    packed,
    too_large,
    unpacked,
)  # fmt: skip

REQUEST_BYTES_MAX = 512 * 1024 * 1024
STATEMENTS_MAX = 32
"""Statements that run at the same time; the others wait."""
SHUTDOWN_S = 60
ORPHAN_CHECK_S = 1.0
LOCK_ATTEMPTS = 5


class Service:
    """The routes: `/` runs a statement, `/ping` answers `Ok.`"""

    def __init__(self, engine: Engine, user: str, password: str | None, request_bytes_max: int, hosts: set[str]) -> None:
        self._engine = engine
        self._user = user
        self._password = password
        self._bytes_max = request_bytes_max
        self._hosts = hosts
        self._limit = anyio.CapacityLimiter(STATEMENTS_MAX)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=[
            Route("/ping", self.ping), Route("/replicas_status", self.ping),
            Route("/", self.statement, methods=["GET", "POST", "HEAD"]),
            Route("/{path:path}", self.nowhere, methods=["GET", "POST"]),
        ])  # fmt: skip

    async def ping(self, request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def nowhere(self, request: Request) -> Response:
        return PlainTextResponse(f"There is no handle {request.url.path}\n\nUse / or /ping.\n", 404)

    async def statement(self, request: Request) -> Response:
        query_id = request.query_params.get("query_id") or secrets.token_hex(16)
        try:
            self._admit(request)
            body = await self._body(request)
            query = self._query(request, body)
            if query is None:
                return PlainTextResponse("Ok.\n")
            started = time.monotonic_ns()
            answer = await anyio.to_thread.run_sync(self._engine.run, query, limiter=self._limit)
            return self._respond(request, answer, query_id, started)
        except QueryError as error:
            return _refusal(error, query_id, self._engine.version)
        except ClientDisconnect:
            return Response(status_code=499)

    def _admit(self, request: Request) -> None:
        """Refuse a browser's page that reaches for loopback, and a wrong password."""
        host = request.headers.get("host", "")
        name = host.rsplit(":", 1)[0].strip("[]").lower()
        if self._hosts and name not in self._hosts:
            raise QueryError(497, "ACCESS_DENIED", f'The host "{name}" is not one that this warehouse answers to')
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            raise QueryError(497, "ACCESS_DENIED", f"A web page from {origin} may not use this warehouse")
        if self._password is None:
            return
        user, password = _credentials(request)
        if password is None:
            raise QueryError(194, "REQUIRED_PASSWORD", f"{user}: Authentication failed: a password is required")
        right = hmac.compare_digest(password.encode(), self._password.encode())
        if not right or user != self._user:
            raise QueryError(516, "AUTHENTICATION_FAILED", f"{user}: Authentication failed: password is incorrect, or no such user")

    async def _body(self, request: Request) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._bytes_max:
                raise too_large(self._bytes_max)
            parts.append(part)
        body = b"".join(parts)
        parts.clear()
        encoding = request.headers.get("content-encoding", "")
        if not encoding or not body:
            return body
        return await anyio.to_thread.run_sync(unpacked, body, encoding, self._bytes_max, limiter=self._limit)

    def _query(self, request: Request, body: bytes) -> Query | None:
        given = request.query_params
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise QueryError(48, "NOT_IMPLEMENTED", "External tables (multipart/form-data) are not supported")
        if given.get("compress", "0") != "0" or given.get("decompress", "0") != "0":
            raise QueryError(48, "NOT_IMPLEMENTED", "compress=1 and decompress=1 are not supported; use Accept-Encoding "
                             "with enable_http_compression=1, and Content-Encoding")  # fmt: skip
        sql = given.get("query", "").encode()
        sql, data = (sql, body) if sql else (body, b"")
        if not sql.strip():
            if request.method == "POST":
                raise QueryError(62, "SYNTAX_ERROR", "Empty query")
            return None
        try:
            revision = int(given.get("client_protocol_version", "0"))
        except ValueError:
            raise QueryError(36, "BAD_ARGUMENTS", "client_protocol_version is not a number") from None
        return Query(
            sql=sql,
            data=data,
            database=given.get("database") or request.headers.get("x-clickhouse-database", ""),
            format=given.get("default_format") or request.headers.get("x-clickhouse-format", "TabSeparated"),
            parameters={name[6:]: value for name, value in given.items() if name.startswith("param_")},
            settings={n: v for n, v in given.items() if n not in TRANSPORT_PARAMETERS and not n.startswith("param_")},
            session=given.get("session_id", ""),
            read_only=request.method in ("GET", "HEAD") or given.get("readonly", "0") != "0",
            revision=revision,
        )

    def _respond(self, request: Request, answer: Answer, query_id: str, started_ns: int) -> Response:
        headers = _headers(query_id)
        headers["X-ClickHouse-Timezone"] = self._engine.timezone
        headers["X-ClickHouse-Summary"] = json.dumps({
            "read_rows": str(answer.rows_read), "read_bytes": "0", "written_rows": str(answer.rows_written),
            "written_bytes": "0", "total_rows_to_read": "0", "result_rows": str(answer.rows_written), "result_bytes": "0",
            "elapsed_ns": str(time.monotonic_ns() - started_ns),
        })  # fmt: skip
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        headers["Content-Type"] = content_type(answer.format or "TabSeparated")
        encoding = ""
        if request.query_params.get("enable_http_compression", "0") != "0":
            encoding = chosen_encoding(request.headers.get("accept-encoding", ""))
        chunks: Iterator[bytes] = answer.chunks
        if encoding:
            headers["Content-Encoding"] = encoding
            chunks = packed(chunks, encoding)
        return _Stream(answer.chunks, chunks, headers)


class _Stream(StreamingResponse):
    """Chunks from a thread; whatever happens to the client, the engine's connection is given back."""

    def __init__(self, source: Iterator[bytes], chunks: Iterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(chunks, headers=headers)
        self._source = source

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._source.close)  # type: ignore[attr-defined]


def _headers(query_id: str) -> dict[str, str]:
    return {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Server-Display-Name": "penstock"}


def _refusal(error: QueryError, query_id: str, version: str) -> Response:
    headers = _headers(query_id) | {"X-ClickHouse-Exception-Code": str(error.code)}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="penstock warehouse"'
    if error.status == 413:
        headers["Connection"] = "close"
    return PlainTextResponse(f"{error} (version {version})\n", error.status, headers)


def _credentials(request: Request) -> tuple[str, str | None]:
    """User and password, from where ClickHouse takes them: its headers, basic authentication, the parameters."""
    headers, given = request.headers, request.query_params
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
            return user or "default", password
    return given.get("user", "default"), given.get("password")


def lock_directory(directory: Path) -> IO[str]:
    """Make the directory this process's; UserError that names the process which has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / SERVER_LOCK).open("a+")
    except OSError as error:
        raise UserError(f'warehouse directory "{directory}": {error.strerror}; name another with --directory') from None
    for attempt in range(LOCK_ATTEMPTS):  # who only asks whether it is locked holds it for a moment, too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt < LOCK_ATTEMPTS - 1:
                time.sleep(0.02)
                continue
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UserError(
                f'warehouse directory "{directory}" is in use by process {owner} (lock file {directory / SERVER_LOCK}); '
                "stop that process, use its URL, or name another directory"
            ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        return listener
    except OSError as error:
        raise UserError(
            f"port {port} on {host} cannot be used: {error.strerror}; stop what listens there or choose another with --port"
        ) from None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def serve(
    directory: Path | str,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    embedded: bool = False,
    outside: bool = False,
    request_bytes_max: int = REQUEST_BYTES_MAX,
) -> None:
    """Serve until SIGTERM or SIGINT, or, where `embedded`, until no client holds the directory.

    UserError where the port is taken, the directory is locked or damaged, or a password is missing for a host that
    others can reach.
    """
    directory = Path(directory).absolute()
    password = os.environ.get(PASSWORD_VARIABLE) or None
    if password is None and not _is_loopback(host):
        raise UserError(f"the warehouse may not listen on {host} without a password; set {PASSWORD_VARIABLE}")
    with lock_directory(directory), contextlib.closing(_bind(host, port)) as listener:
        engine = Engine(directory / ENGINE_FOLDER, outside)
        hosts = {"localhost", "127.0.0.1", "::1", host} if _is_loopback(host) else set()
        service = Service(engine, os.environ.get(USER_VARIABLE, "default"), password, request_bytes_max, hosts)
        config = uvicorn.Config(
            service.app(), log_level="warning", lifespan="off", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S,
            timeout_keep_alive=30, server_header=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        if embedded:
            threading.Thread(target=_stop_when_alone, args=(directory, server), daemon=True).start()
        record = directory / SERVER_FILE
        _publish(record, host, listener.getsockname()[1], embedded)
        # the server raises the signal that stopped it once more when it is done; that was the wish, not an error
        for wish in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wish, lambda *_: None)
        try:
            server.run(sockets=[listener])
        finally:
            record.unlink(missing_ok=True)
            engine.close(SHUTDOWN_S)


def _publish(record: Path, host: str, port: int, embedded: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    text = json.dumps({"pid": os.getpid(), "url": f"http://{shown}:{port}", "embedded": embedded})
    temporary = record.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(record)


def _stop_when_alone(directory: Path, server: uvicorn.Server) -> None:
    """End the server when no client holds the clients' lock, however the clients ended.

    The lock is kept until the process is gone, so that a client who comes meanwhile waits and never meets a dying server.
    """
    lock = (directory / CLIENTS_LOCK).open("a+")
    while True:
        time.sleep(ORPHAN_CHECK_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            server.should_exit = True
            threading.Event().wait()


def main() -> int:
    """`python -m sinks.warehouse_server DIRECTORY [--host H] [--port P] [--embedded]`."""
    parser = argparse.ArgumentParser(prog="penstock warehouse serve")
    parser.add_argument("directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--outside", action="store_true", help="let statements reach files and hosts")
    parser.add_argument("--request-bytes-max", type=int, default=REQUEST_BYTES_MAX)
    given = vars(parser.parse_args())
    try:
        serve(**given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except PenstockError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
