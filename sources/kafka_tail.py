"""The last rows of a topic, and what comes after them, as plain objects for people and shells.

Reads without a group, so looking changes nothing for anyone. What cannot be decoded is shown with its error, not skipped.
"""

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np

from brokers.partitions import partitions_of
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.messages import Headers, check_version, codec_of, decode_arrow, header_text
from schemas.tables import TableSpec
from schemas.topics import TOPICS
from sources.kafka_batch import BatchReader, Polled, Position

POLL_S = 0.25
MESSAGES_MAX = 10_000
"""Of one poll."""


def last_rows(kafka: KafkaConfig, table: str, count: int, follow: bool = False) -> Iterator[dict[str, Any]]:
    """The last `count` rows of a topic by the time of their messages; with `follow` all further ones, for ever.

    Each is {partition, offset, timestamp_ms, run, row}, or {partition, offset, timestamp_ms, error, payload} with base64.
    """
    spec = TOPICS[table].table
    reader = BatchReader(kafka, [Position(table, p) for p in range(partitions_of(kafka, table))])
    try:
        bounds = {p.partition: reader.watermarks(table, p.partition) for p in reader.positions()}
        ends = {partition: end for partition, (first, end) in bounds.items() if end > first}
        reader.seek([Position(table, p, max(first, end - count)) for p, (first, end) in bounds.items()])
        found: list[tuple[tuple[int, int, int], list[dict[str, Any]]]] = []
        while any(p.offset < ends.get(p.partition, 0) for p in reader.positions()):
            found += _messages(spec, reader.poll(MESSAGES_MAX, POLL_S), count)
        found.sort(key=lambda message: message[0])
        rows = [row for _, decoded in found for row in decoded]
        yield from rows[max(0, len(rows) - count) :]
        while follow:
            for _, decoded in _messages(spec, reader.poll(MESSAGES_MAX, POLL_S), MESSAGES_MAX):
                yield from decoded
    finally:
        reader.close()


def _messages(spec: TableSpec, polled: Polled, rows_max: int) -> Iterator[tuple[tuple[int, int, int], list[dict[str, Any]]]]:
    """Per message its (time, partition, offset) and its last rows."""
    for i in range(len(polled)):
        partition, offset, timestamp_ms = int(polled.partition[i]), int(polled.offset[i]), int(polled.timestamp_ms[i])
        place = {"partition": partition, "offset": offset, "timestamp_ms": timestamp_ms}
        given = polled.header_sets[int(polled.headers[i])]
        payload = polled.payload(i)
        try:
            rows = [{**place, "run": header_text(given, "run"), "row": row} for row in plain_rows(spec, payload, given)]
        except UserError as error:
            rows = [{**place, "error": str(error), "payload": base64.b64encode(payload).decode()}]
        yield (timestamp_ms, partition, offset), rows[max(0, len(rows) - rows_max) :]


def plain_rows(spec: TableSpec, payload: bytes, given: Headers) -> list[dict[str, Any]]:
    """The rows of a message as JSON would hold them: amounts as text, NaN as null. UserError where they cannot be read."""
    codec = codec_of(payload, given)
    check_version(spec, given)
    if codec == "arrow":
        return [{name: _plain(value) for name, value in row.items()} for row in decode_arrow(payload).to_pylist()]
    try:
        row = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"a JSON {type(row).__name__}, not an object")
    return [row]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return value if np.isfinite(value) else None if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value
