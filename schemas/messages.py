"""A message: rows of one table as Kafka carries them, with the headers that say how to read it.

Headers: `codec` is arrow (an IPC stream of many rows) or json (one object, one row); `schema` is `table/version`; `run` is
the run that made it, absent for market input. Where there are no headers the first byte tells: `{` is JSON, 0xFF Arrow.
A reader takes an older version as it is, and columns that it does not know from a newer minor one; from a newer
major version it says so and stops. The version of every table is `VERSION` until one changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from schemas.codec import decode_ipc, encode_ipc, to_arrow
from schemas.codec_json import encode_json
from schemas.errors import UserError
from schemas.tables import Rows, TableSpec

VERSION = 1
CODEC, SCHEMA, RUN = "codec", "schema", "run"
Headers = list[tuple[str, bytes]]
Codec = Literal["arrow", "json"]


def headers(spec: TableSpec, codec: Codec, run: str = "") -> Headers:
    """The headers of a message."""
    made = [(CODEC, codec.encode()), (SCHEMA, f"{spec.name}/{VERSION}".encode())]
    return [*made, (RUN, run.encode())] if run else made


def encode(spec: TableSpec, rows: Rows | Sequence[Mapping[str, Any]], codec: Codec, symbols: Sequence[str] = (),
           strategies: Sequence[str] = ()) -> list[bytes]:
    """The payloads: one per row as JSON, one for all as Arrow."""
    if codec == "json":
        return encode_json(spec, rows, symbols, strategies)
    return [encode_ipc(to_arrow(spec, rows, symbols, strategies)).to_pybytes()]


def codec_of(payload: bytes, given: Sequence[tuple[str, bytes]] | None) -> Codec:
    """How the payload is to be read: what its header says, else what its first byte says. UserError where neither does."""
    for name, value in given or ():
        if name == CODEC:
            if value == b"arrow":
                return "arrow"
            if value == b"json":
                return "json"
            raise UserError(f'codec "{value.decode(errors="replace")}" is not one of arrow, json')
    first = payload.lstrip()[:1]
    if payload[:1] == b"\xff":
        return "arrow"
    if first == b"{":
        return "json"
    raise UserError("neither a JSON object nor an Arrow IPC stream, and no codec header says what it is")


def check_version(spec: TableSpec, given: Sequence[tuple[str, bytes]] | None) -> None:
    """UserError where the headers name another table, or a version that this reader does not know."""
    for name, value in given or ():
        if name == SCHEMA:
            table, _, version = value.decode(errors="replace").partition("/")
            if table != spec.name:
                raise UserError(f'schema "{value.decode(errors="replace")}" on the topic of {spec.name}')
            if not version.isdigit() or int(version) > VERSION:
                raise UserError(f'{table} version "{version}" is newer than {VERSION}, which this Penstock reads; update it')


def decode_arrow(payload: bytes) -> pa.Table:
    """The table of an Arrow message."""
    return decode_ipc(payload)


def header_text(given: Sequence[tuple[str, bytes]] | None, name: str) -> str:
    """The text of a header, empty where it is absent."""
    return next((value.decode(errors="replace") for key, value in given or () if key == name), "")
