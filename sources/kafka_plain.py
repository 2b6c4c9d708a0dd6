"""Reading through confluent_kafka's own `consume`: what a reader falls back to where librdkafka itself is not found.

Gives the same arrays as `kafka_native` for the same messages, several times slower.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.messages import Headers
from sources.kafka_polled import FIRST_SETS, KEPT_HEADERS, PADDING, Failed, Polled, Trouble


class PlainFeed:
    """A `Feed` through confluent_kafka. Raises `Failed` where librdkafka refuses."""

    def __init__(self, settings: Mapping[str, str], tables: Sequence[str], topics: Sequence[str]) -> None:
        self._tables, self._topics = tuple(tables), tuple(topics)
        self._code = {topic: code for code, topic in enumerate(topics)}
        self._noted: list[Trouble] = []
        self._sets: dict[tuple[tuple[str, bytes], ...], int] = {tuple(kept): code for code, kept in enumerate(FIRST_SETS)}
        given: dict[str, Any] = {**settings, "error_cb": self._note}
        self._client: Any = _tried(lambda: Consumer(given))

    def assign(self, positions: Sequence[tuple[int, int, int]]) -> None:
        listed = [TopicPartition(self._topics[table], partition, offset) for table, partition, offset in positions]
        _tried(lambda: self._client.assign(listed))

    def pause(self, partitions: Sequence[tuple[int, int]]) -> None:
        _tried(lambda: self._client.pause([TopicPartition(self._topics[table], partition) for table, partition in partitions]))

    def resume(self, partitions: Sequence[tuple[int, int]]) -> None:
        _tried(lambda: self._client.resume([TopicPartition(self._topics[table], partition) for table, partition in partitions]))

    def bounds(self, table: int, partition: int, timeout_s: float) -> tuple[int, int]:
        return self._bounds(table, partition, timeout=timeout_s)

    def last_bounds(self, table: int, partition: int) -> tuple[int, int]:
        return self._bounds(table, partition, cached=True)

    def take(self, messages_max: int, timeout_ms: int) -> tuple[Polled, list[Trouble]]:
        taken = _tried(lambda: self._client.consume(messages_max, timeout_ms / 1000))
        messages = [message for message in taken if message.error() is None]
        troubles, self._noted = [*self._noted, *(self._trouble(m) for m in taken if m.error() is not None)], []
        payloads = [message.value() or b"" for message in messages]
        starts = np.zeros(len(messages) + 1, np.int64)
        np.cumsum([len(payload) for payload in payloads], out=starts[1:])
        rows = [
            (self._code[m.topic()], m.partition(), m.offset(), m.timestamp()[1], self._set_of(m.headers() or ())) for m in messages
        ]
        table, partition, offset, timestamp_ms, headers = np.array(rows, np.int64).reshape(-1, 5).T.copy()
        sets: tuple[Headers, ...] = tuple(list(kept) for kept in self._sets)
        data = np.frombuffer(bytearray(b"".join((*payloads, bytes(PADDING)))), np.uint8)
        return Polled(self._tables, self._topics, table, partition, offset, timestamp_ms, headers, sets, data, starts), troubles

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _bounds(self, table: int, partition: int, **how: Any) -> tuple[int, int]:
        where = TopicPartition(self._topics[table], partition)
        found = _tried(lambda: self._client.get_watermark_offsets(where, **how))
        if found is None:
            raise Failed("_TIMED_OUT", "Local: Timed out")
        return int(found[0]), int(found[1])

    def _set_of(self, headers: Sequence[tuple[str, bytes | None]]) -> int:
        kept = tuple((name, value or b"") for name, value in headers if name in KEPT_HEADERS)
        return self._sets.setdefault(kept, len(self._sets))

    def _note(self, error: KafkaError) -> None:
        self._noted.append(Trouble(error.name(), error.str(), fatal=bool(error.fatal())))

    def _trouble(self, message: Any) -> Trouble:
        error, topic, partition = message.error(), message.topic(), message.partition()
        return Trouble(error.name(), error.str(), self._code.get(topic, -1), -1 if partition is None else partition, bool(error.fatal()))


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        raise Failed(cause.name(), cause.str()) from None
    except (TypeError, ValueError) as error:
        raise Failed("_INVALID_ARG", str(error)) from None
