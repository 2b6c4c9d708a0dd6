"""The warehouse's HTTP service: requests as ClickHouse takes them, answers as ClickHouse gives them.

Statements run on threads; a request's body and the number of statements at a time are bounded. Whatever happens to a
client, the engine's connection is given back.
"""

import base64
import contextlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sinks.warehouse_engine import Answer, Engine, Query
from sinks.warehouse_http import (
    TRANSPORT_PARAMETERS,
    QueryError,
    chosen_encoding,
    content_type,
    packed,
    too_large,
    unpacked,
)

STATEMENTS_MAX = 32
"""Statements that run at the same time; the others wait."""


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
