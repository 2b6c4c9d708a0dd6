"""ClickHouse's HTTP conventions: parameters, errors, content types and compression, as its server has them.

Nothing here touches the engine. Sizes are bounded: a body is never larger than `bytes_max`, packed or unpacked.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

import lz4.frame
import zstandard

TRANSPORT_PARAMETERS = frozenset({
    "query", "database", "default_format", "query_id", "session_id", "session_timeout", "session_check", "close_session",
    "user", "password", "quota_key", "role", "compress", "decompress", "buffer_size", "wait_end_of_query", "stacktrace",
    "client_protocol_version", "enable_http_compression", "http_zlib_compression_level", "add_http_cors_header",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "http_native_compression_disable_checksumming_on_decompress",
    "cancel_http_readonly_queries_on_client_close", "readonly", "http_response_headers", "http_wait_end_of_query",
    "http_response_buffer_size", "http_write_exception_in_output_format",
})  # fmt: skip
"""Parameters of a request that are not settings of the engine."""

_STATUS = {
    401: "REQUIRED_PASSWORD",
    403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE",
    404: "UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE UNKNOWN_DATABASE UNKNOWN_SETTING "
    "UNKNOWN_DIRECTION_OF_SORTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY",
    400: "BAD_ARGUMENTS CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE "
    "CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER CANNOT_PARSE_INPUT_ASSERTION_FAILED SYNTAX_ERROR TYPE_MISMATCH "
    "INCORRECT_DATA ILLEGAL_TYPE_OF_ARGUMENT ILLEGAL_COLUMN NO_COMMON_TYPE CANNOT_CONVERT_TYPE DUPLICATE_COLUMN "
    "UNKNOWN_QUERY_PARAMETER BAD_QUERY_PARAMETER ILLEGAL_AGGREGATION NOT_AN_AGGREGATE INVALID_SESSION_TIMEOUT "
    "NUMBER_OF_ARGUMENTS_DOESNT_MATCH THERE_IS_NO_COLUMN NO_SUCH_COLUMN_IN_TABLE CANNOT_READ_ALL_DATA",
    408: "TIMEOUT_EXCEEDED",
    413: "QUERY_IS_TOO_LARGE REQUEST_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    503: "CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    507: "NOT_ENOUGH_SPACE",
}
_STATUS_OF = {name: status for status, names in _STATUS.items() for name in names.split()}
_ERROR = re.compile(r"Code: (\d+)\. (DB::Exception: .*\((\w+)\))", re.DOTALL)

STREAMED = frozenset({
    "native", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "jsoneachrow", "jsonlines", "ndjson", "rowbinary",
    "jsoncompacteachrow",
})  # fmt: skip
"""Formats whose chunks can be sent one after the other: they have no head and no foot."""


ZSTD_PIECE_BYTES = 4096


class QueryError(Exception):
    """A refusal or failure as ClickHouse words it: `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code, self.name, self.status = code, name, _STATUS_OF.get(name, 500)


def query_error(error: Exception) -> QueryError:
    """What the engine raised, as a `QueryError` with ClickHouse's code, name and HTTP status."""
    found = _ERROR.search(str(error))
    if found is None:
        return QueryError(1002, "UNKNOWN_EXCEPTION", str(error))
    message = found.group(2).removeprefix("DB::Exception: ").removesuffix(f" ({found.group(3)})")
    name = "NOT_ENOUGH_SPACE" if "No space left on device" in message else found.group(3)
    return QueryError(int(found.group(1)), name, message)


def content_type(form: str) -> str:
    """The content type that ClickHouse gives a format."""
    name = form.lower()
    if name.startswith("json") or name == "ndjson":
        lines = "eachrow" in name or name in ("jsonlines", "ndjson")
        return "application/x-ndjson; charset=UTF-8" if lines else "application/json; charset=UTF-8"
    if name.startswith(("tabseparated", "tsv")):
        return "text/tab-separated-values; charset=UTF-8"
    if name.startswith("csv"):
        return "text/csv; charset=UTF-8; header=" + ("present" if "names" in name else "absent")
    if name in ("pretty", "vertical", "values", "markdown", "xml") or name.startswith("pretty"):
        return "text/plain; charset=UTF-8"
    return "application/octet-stream"


def unpacked(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """A request body without its content encoding; QueryError where it is damaged, unknown or too large."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                data, whole = _inflate(zlib.decompressobj(31), body, bytes_max)
            case "deflate":
                data, whole = _inflate(zlib.decompressobj(), body, bytes_max)
            case "lz4":
                unlz4 = lz4.frame.LZ4FrameDecompressor()
                data = unlz4.decompress(body, bytes_max + 1)
                whole = unlz4.eof
            case "zstd":
                data, whole = _unzstd(body, bytes_max)
            case other:
                raise QueryError(48, "NOT_IMPLEMENTED", f"Content-Encoding {other} is not supported; use gzip, lz4 or zstd")
    except (zlib.error, RuntimeError, EOFError, zstandard.ZstdError) as error:
        raise QueryError(117, "INCORRECT_DATA", f"The {encoding} body is damaged: {error}") from None
    if len(data) > bytes_max:
        raise too_large(bytes_max)
    if not whole:
        raise QueryError(33, "CANNOT_READ_ALL_DATA", f"The {encoding} body is cut short")
    return data


def _inflate(inflater: Any, body: bytes, bytes_max: int) -> tuple[bytes, bool]:
    data = inflater.decompress(body, bytes_max + 1)
    return data, inflater.eof or len(data) > bytes_max


def _unzstd(body: bytes, bytes_max: int) -> tuple[bytes, bool]:
    """In small pieces, since its decompressor has no bound of its own."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    parts: list[bytes] = []
    size = at = 0
    while at < len(body) and size <= bytes_max:
        piece = body[at : at + ZSTD_PIECE_BYTES]
        parts.append(unpacker.decompress(piece))
        size += len(parts[-1])
        at += len(piece) - len(unpacker.unused_data)
        if unpacker.eof and at < len(body):  # another frame follows
            unpacker = zstandard.ZstdDecompressor().decompressobj()
    return b"".join(parts), unpacker.eof or size > bytes_max


def too_large(bytes_max: int) -> QueryError:
    """The refusal of a body beyond the bound."""
    return QueryError(1001, "REQUEST_TOO_LARGE", f"The request is larger than {bytes_max} bytes; insert in smaller blocks")


def chosen_encoding(accepted: str) -> str:
    """The content encoding of a response: the cheapest that the client accepts, "" for none."""
    offered = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in ("lz4", "zstd", "gzip", "deflate") if name in offered), "")


def packed(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Chunks in a content encoding, as they come."""
    if encoding == "lz4":
        lz4_frame = lz4.frame.LZ4FrameCompressor()
        yield lz4_frame.begin()
        for chunk in chunks:
            yield lz4_frame.compress(chunk)
        yield lz4_frame.flush()
        return
    packer: Any
    if encoding == "zstd":
        packer = zstandard.ZstdCompressor(level=1).compressobj()
    else:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()
