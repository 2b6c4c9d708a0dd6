"""What a reader of Kafka is given and gives: a `Position` to read from, the messages of one poll as `Polled` arrays.

Both ways of reading, compiled and not, give the same arrays for the same messages; what is not a message is a `Trouble`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.messages import CODEC, RUN, SCHEMA, Headers, header_text

BEGINNING, END = -2, -1
"""In place of an offset: the first message that is there, the next one that will be."""
KEPT_HEADERS = (CODEC, SCHEMA, RUN)
"""The headers that are read; any others are left alone."""
NO_HEADERS, BAD_HEADERS = 0, 1
"""In `Polled.headers`: the message has none of `KEPT_HEADERS`; its headers cannot be read."""
FIRST_SETS: tuple[Headers, ...] = ([], [(CODEC, b"(headers that cannot be read)")])
"""What these two stand for; no codec is called the second, so no one takes such a message for another."""
PADDING = 64
"""Zero bytes after the last payload, so that compiled code may load eight bytes anywhere in one."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Position:
    """Where to read: the next message wanted of a partition of a table's topic; BEGINNING and END are resolved at the start."""

    table: str
    partition: int
    offset: int = BEGINNING


@dataclass(frozen=True)
class Polled:
    """The messages of one poll, in the order in which they came; within a partition that is the order of their offsets.

    tables: names of tables; topics: the topics' names. table: index into them, partition, offset, timestamp_ms (-1: none): int64,
    one per message. data: all payloads and then `PADDING` zeros; message i is data[starts[i]:starts[i + 1]]. headers: per message
    an index into `header_sets`; a header set holds those of `codec`, `schema` and `run` that the message has.
    """

    tables: tuple[str, ...]
    topics: tuple[str, ...]
    table: Ints
    partition: Ints
    offset: Ints
    timestamp_ms: Ints
    headers: Ints
    header_sets: tuple[Headers, ...]
    data: npt.NDArray[np.uint8]
    starts: Ints

    def __len__(self) -> int:
        return len(self.offset)

    def payload(self, i: int) -> bytes:
        """The bytes of message i."""
        return self.data[self.starts[i] : self.starts[i + 1]].tobytes()

    def run(self, i: int) -> str:
        """The run that made message i, "" for market input."""
        return header_text(self.header_sets[int(self.headers[i])], RUN)


def joined(first: Polled, then: Polled) -> Polled:
    """Two polls of one reader as one."""
    end = int(first.starts[-1])
    names = ("table", "partition", "offset", "timestamp_ms", "headers")
    columns: dict[str, Any] = {name: np.concatenate((getattr(first, name), getattr(then, name))) for name in names}
    data = np.concatenate((first.data[:end], then.data))
    return replace(then, **columns, data=data, starts=np.concatenate((first.starts, then.starts[1:] + end)))


@dataclass(frozen=True)
class Trouble:
    """What came in place of a message, or beside the messages. table: index, -1 where it is of no topic. name: librdkafka's, such as
    _TRANSPORT."""

    name: str
    text: str
    table: int = -1
    partition: int = -1
    fatal: bool = False


class Feed(Protocol):
    """What `BatchReader` reads from. Tables are indices into the reader's. An error of a call is raised as `Failed`."""

    def assign(self, positions: Sequence[tuple[int, int, int]]) -> None: ...

    def take(self, messages_max: int, timeout_ms: int) -> tuple[Polled, list[Trouble]]: ...

    def pause(self, partitions: Sequence[tuple[int, int]]) -> None: ...

    def resume(self, partitions: Sequence[tuple[int, int]]) -> None: ...

    def bounds(self, table: int, partition: int, timeout_s: float) -> tuple[int, int]: ...

    def last_bounds(self, table: int, partition: int) -> tuple[int, int]: ...

    def close(self) -> None: ...


class Failed(Exception):
    """A call that librdkafka refused: its name for the error, and its words. Never leaves `sources`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name, self.text = name, text
