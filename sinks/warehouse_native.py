"""Native blocks of a client revision, made from ClickHouse's `Buffers` format.

Clients that speak ClickHouse's own protocol over HTTP (clickhouse-go, hence Grafana's plugin) ask for blocks of their
`client_protocol_version`, which the embedded engine cannot write: they differ from plain Native by a block header
and a flag per column. `Buffers` holds the same column bytes with their sizes, so the two are put together here.
Layout: https://clickhouse.com/docs/native-protocol/server, `NativeWriter.cpp`.
"""

import struct
from collections.abc import Iterator, Sequence

_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
"""Field 1, is_overflows: no; field 2, bucket: -1; end."""
REVISION_WITH_FLAG_PER_COLUMN = 54454


def varint(value: int) -> bytes:
    """LEB128, as ClickHouse writes lengths."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """A string with its length before it."""
    raw = value.encode()
    return varint(len(raw)) + raw


def native_blocks(buffers: bytes, columns: Sequence[tuple[str, str]], revision: int) -> Iterator[bytes]:
    """The blocks of a `Buffers` result as Native of a revision; `columns` are (name, type)."""
    flag = b"\x00" if revision >= REVISION_WITH_FLAG_PER_COLUMN else b""
    at = 0
    while at < len(buffers):
        width, rows = struct.unpack_from("<QQ", buffers, at)
        at += 16
        out = [_BLOCK_INFO, varint(width), varint(rows)]
        for name, kind in columns:
            (size,) = struct.unpack_from("<Q", buffers, at)
            at += 8
            out += [text(name), text(kind), flag, buffers[at : at + size]]
            at += size
        yield b"".join(out)


def header_block(columns: Sequence[tuple[str, str]], revision: int) -> bytes:
    """A block without rows: what the columns are."""
    flag = b"\x00" if revision >= REVISION_WITH_FLAG_PER_COLUMN else b""
    named = b"".join(text(name) + text(kind) + flag for name, kind in columns)
    return _BLOCK_INFO + varint(len(columns)) + varint(0) + named
