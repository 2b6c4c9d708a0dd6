"""Reading through librdkafka itself, the one that confluent_kafka brings, with no Python object per message.

Uses what rdkafka.h declares: a consumer with its partitions assigned, its queue read by `rd_kafka_consume_batch_queue`. A
message belongs to librdkafka until `release`, which every way out of `take` passes.
"""

import ctypes as c
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np

from schemas.messages import Headers
from sources import kafka_gather as kernel
from sources.kafka_polled import FIRST_SETS, KEPT_HEADERS, PADDING, Failed, Ints, Polled, Trouble

_P, _S, _I, _L = c.c_void_p, c.c_char_p, c.c_int, c.c_int64
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_P, []),
    "rd_kafka_conf_set": (_I, [_P, _S, _S, _P, c.c_size_t]),
    "rd_kafka_conf_set_error_cb": (None, [_P, _P]),
    "rd_kafka_conf_set_opaque": (None, [_P, _P]),
    "rd_kafka_conf_destroy": (None, [_P]),
    "rd_kafka_new": (_P, [_I, _P, _P, c.c_size_t]),
    "rd_kafka_destroy": (None, [_P]),
    "rd_kafka_poll_set_consumer": (_I, [_P]),
    "rd_kafka_queue_get_consumer": (_P, [_P]),
    "rd_kafka_queue_destroy": (None, [_P]),
    "rd_kafka_consumer_close": (_I, [_P]),
    "rd_kafka_topic_partition_list_new": (_P, [_I]),
    "rd_kafka_topic_partition_list_add": (_P, [_P, _S, c.c_int32]),
    "rd_kafka_topic_partition_list_set_offset": (_I, [_P, _S, c.c_int32, _L]),
    "rd_kafka_topic_partition_list_destroy": (None, [_P]),
    "rd_kafka_assign": (_I, [_P, _P]),
    "rd_kafka_pause_partitions": (_I, [_P, _P]),
    "rd_kafka_resume_partitions": (_I, [_P, _P]),
    "rd_kafka_query_watermark_offsets": (_I, [_P, _S, c.c_int32, c.POINTER(_L), c.POINTER(_L), _I]),
    "rd_kafka_get_watermark_offsets": (_I, [_P, _S, c.c_int32, c.POINTER(_L), c.POINTER(_L)]),
    "rd_kafka_consume_batch_queue": (c.c_ssize_t, [_P, _I, _P, c.c_size_t]),
    "rd_kafka_topic_name": (_S, [_P]),
    "rd_kafka_err2name": (_S, [_I]),
    "rd_kafka_err2str": (_S, [_I]),
    "rd_kafka_fatal_error": (_I, [_P, _P, c.c_size_t]),
    "rd_kafka_message_errstr": (_S, [_P]),
    "rd_kafka_message_destroy": (None, [_P]),
    "rd_kafka_message_headers": (_I, [_P, _P]),
    "rd_kafka_message_timestamp": (_L, [_P, _P]),
    "rd_kafka_header_get_all": (_I, [_P, c.c_size_t, _P, _P, _P]),
}
_CALLS = ("rd_kafka_message_destroy", "rd_kafka_message_headers", "rd_kafka_header_get_all", "", "rd_kafka_message_timestamp")
_NO_ENTRY = -156
"""RD_KAFKA_RESP_ERR__NOENT: the message has no headers."""
_CONSUMER = 1
_ERROR_BYTES = 512
HEADER_SETS_MAX = 1024
"""Sets of headers that are remembered; beyond it they are forgotten, which costs time alone."""


@functools.cache
def library() -> c.CDLL | None:
    """The librdkafka of confluent_kafka with every function that is needed; None where there is none."""
    home = Path(confluent_kafka.__file__).parent
    folders = (home.parent / "confluent_kafka.libs", home / ".dylibs", home.parent / "confluent_kafka.dylibs", home)
    found = itertools.chain.from_iterable(sorted(folder.glob("librdkafka*")) for folder in folders if folder.is_dir())
    for path in found:
        try:
            loaded = c.CDLL(str(path))
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return loaded
    return None


class NativeFeed:
    """A `Feed` through ctypes and compiled loops. Raises `Failed` where librdkafka refuses."""

    def __init__(self, settings: Mapping[str, str], tables: Sequence[str], topics: Sequence[str]) -> None:
        loaded = library()
        assert loaded is not None
        self._lib = loaded
        self._tables, self._topics = tuple(tables), tuple(topics)
        self._names = [topic.encode() for topic in topics]
        self._kept = np.zeros(8 + kernel.NOTES * kernel.NOTE_BYTES, np.uint8)
        self._noted = 0
        self._client = self._opened(settings)
        self._lib.rd_kafka_poll_set_consumer(self._client)
        self._queue = self._lib.rd_kafka_queue_get_consumer(self._client)
        self._calls = np.array(
            [c.cast(getattr(loaded, name), _P).value if name else _NO_ENTRY for name in _CALLS], np.int64
        )
        self._scratch = np.zeros(4, np.int64)
        self._messages = np.zeros(1024, np.int64)
        self._codes = np.zeros((1024, 2), np.int64)
        self._known = np.zeros((0, 2), np.int64)
        self._hashes = np.array([0, -1], np.int64)
        self._sets: tuple[Headers, ...] = FIRST_SETS
        self._nothing = self._polled(np.empty((5, 0), np.int64), 0)

    def assign(self, positions: Sequence[tuple[int, int, int]]) -> None:
        self._listed(self._lib.rd_kafka_assign, positions)

    def pause(self, partitions: Sequence[tuple[int, int]]) -> None:
        self._listed(self._lib.rd_kafka_pause_partitions, [(table, partition, 0) for table, partition in partitions])

    def resume(self, partitions: Sequence[tuple[int, int]]) -> None:
        self._listed(self._lib.rd_kafka_resume_partitions, [(table, partition, 0) for table, partition in partitions])

    def bounds(self, table: int, partition: int, timeout_s: float) -> tuple[int, int]:
        low, high = _L(), _L()
        self._done(self._lib.rd_kafka_query_watermark_offsets(
            self._client, self._names[table], partition, c.byref(low), c.byref(high), int(timeout_s * 1000)
        ))  # fmt: skip
        return low.value, high.value

    def last_bounds(self, table: int, partition: int) -> tuple[int, int]:
        low, high = _L(), _L()
        self._done(self._lib.rd_kafka_get_watermark_offsets(self._client, self._names[table], partition, c.byref(low), c.byref(high)))
        return low.value, high.value

    def take(self, messages_max: int, timeout_ms: int) -> tuple[Polled, list[Trouble]]:
        if messages_max > len(self._messages):
            self._messages = np.zeros(messages_max, np.int64)
            self._codes = np.zeros((messages_max, 2), np.int64)
        n = self._lib.rd_kafka_consume_batch_queue(self._queue, timeout_ms, self._messages.ctypes.data, messages_max)
        if n <= 0:
            return self._nothing, self._notes()
        try:
            if len(self._sets) > HEADER_SETS_MAX:
                self._hashes, self._sets = self._hashes[: len(FIRST_SETS)], FIRST_SETS
            count, size = self._surveyed(n)
            troubles = self._troubles(n) if count < n else []
            columns = np.empty((5, count), np.int64)
            polled = self._polled(columns, size)
            kernel.gather(self._messages, n, self._calls, self._scratch, self._codes, columns, polled.data, polled.starts)
        finally:
            kernel.release(self._messages, n, self._calls)
        return polled, [*self._notes(), *troubles]

    def close(self) -> None:
        if self._client:
            client, self._client = self._client, None
            self._lib.rd_kafka_queue_destroy(self._queue)
            self._lib.rd_kafka_consumer_close(client)
            self._lib.rd_kafka_destroy(client)

    def _opened(self, settings: Mapping[str, str]) -> Any:
        said = c.create_string_buffer(_ERROR_BYTES)
        conf = self._lib.rd_kafka_conf_new()
        for name, value in settings.items():
            if self._lib.rd_kafka_conf_set(conf, name.encode(), value.encode(), said, _ERROR_BYTES) != 0:
                self._lib.rd_kafka_conf_destroy(conf)
                raise Failed("_INVALID_ARG", said.value.decode(errors="replace"))
        self._lib.rd_kafka_conf_set_error_cb(conf, kernel.error_callback().address)
        self._lib.rd_kafka_conf_set_opaque(conf, self._kept.ctypes.data)
        client = self._lib.rd_kafka_new(_CONSUMER, conf, said, _ERROR_BYTES)
        if not client:
            self._lib.rd_kafka_conf_destroy(conf)  # it is ours again where no client was made
            raise Failed("_INVALID_ARG", said.value.decode(errors="replace"))
        return client

    def _listed(self, function: Any, positions: Sequence[tuple[int, int, int]]) -> None:
        listed = self._lib.rd_kafka_topic_partition_list_new(max(1, len(positions)))
        try:
            for table, partition, offset in positions:
                self._lib.rd_kafka_topic_partition_list_add(listed, self._names[table], partition)
                self._lib.rd_kafka_topic_partition_list_set_offset(listed, self._names[table], partition, offset)
            self._done(function(self._client, listed))
        finally:
            self._lib.rd_kafka_topic_partition_list_destroy(listed)

    def _done(self, code: int) -> None:
        if code:
            raise Failed(self._lib.rd_kafka_err2name(code).decode(), self._lib.rd_kafka_err2str(code).decode())

    def _polled(self, columns: Ints, size: int) -> Polled:
        data = np.empty(size + PADDING, np.uint8)
        data[size:] = 0
        table, partition, offset, timestamp_ms, headers = columns
        starts = np.zeros(columns.shape[1] + 1, np.int64)
        return Polled(
            self._tables, self._topics, table, partition, offset, timestamp_ms, headers, self._sets, data, starts
        )

    def _surveyed(self, n: int) -> tuple[int, int]:
        """Tables and header sets of all messages into `_codes`; how many are messages, and their bytes."""
        out = np.zeros(2, np.int64)
        while True:
            status, at, hashed = kernel.survey(
                self._messages, n, self._calls, self._scratch, self._known, self._hashes, self._codes, out
            )
            if status == kernel.DONE:
                return int(out[0]), int(out[1])
            if status == kernel.NEW_TOPIC:
                address = self._word(at, 1)
                name = self._lib.rd_kafka_topic_name(address)
                self._known = np.vstack([self._known, [[address, self._names.index(name)]]])
            else:
                self._hashes = np.append(self._hashes, hashed)
                self._sets = (*self._sets, self._headers(int(self._messages[at])))

    def _headers(self, message: int) -> Headers:
        listed, name, value, size = _P(), _S(), _P(), c.c_size_t()
        self._lib.rd_kafka_message_headers(message, c.byref(listed))
        found: Headers = []
        i = 0
        while not self._lib.rd_kafka_header_get_all(listed, i, c.byref(name), c.byref(value), c.byref(size)):
            text = (name.value or b"").decode(errors="replace")
            if text in KEPT_HEADERS:
                found.append((text, c.string_at(value.value, size.value) if value.value else b""))
            i += 1
        return found

    def _word(self, at: int, word: int) -> int:
        return int(_L.from_address(int(self._messages[at]) + 8 * word).value)

    def _troubles(self, n: int) -> list[Trouble]:
        """What came in place of messages."""
        found = []
        for i in np.flatnonzero(self._codes[:n, 0] < 0).tolist():
            code = c.c_int32.from_address(int(self._messages[i])).value
            topic = self._word(i, 1)
            name = self._lib.rd_kafka_topic_name(topic) if topic else b""
            said = self._lib.rd_kafka_message_errstr(int(self._messages[i])) or b""
            found.append(Trouble(
                self._lib.rd_kafka_err2name(code).decode(), said.decode(errors="replace"),
                self._names.index(name) if name in self._names else -1,
                c.c_int32.from_address(int(self._messages[i]) + 16).value,
            ))  # fmt: skip
        return found

    def _notes(self) -> list[Trouble]:
        """What the client reported since the last call."""
        count = int(self._kept[:8].view(np.int64)[0])
        if count == self._noted:
            return []
        found = []
        for number in range(max(self._noted, count - kernel.NOTES), count):
            start = 8 + (number % kernel.NOTES) * kernel.NOTE_BYTES
            note = self._kept[start : start + kernel.NOTE_BYTES].tobytes()
            code = int.from_bytes(note[:8], "little", signed=True)
            name, text = self._lib.rd_kafka_err2name(code).decode(), note[8:].split(b"\0")[0].decode(errors="replace")
            found.append(self._fatal(text) if name == "_FATAL" else Trouble(name, text))
        self._noted = count
        return found

    def _fatal(self, text: str) -> Trouble:
        said = c.create_string_buffer(_ERROR_BYTES)
        code = self._lib.rd_kafka_fatal_error(self._client, said, _ERROR_BYTES)
        return Trouble(self._lib.rd_kafka_err2name(code).decode(), said.value.decode(errors="replace") or text, fatal=True)
