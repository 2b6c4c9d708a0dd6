"""What a write to Kafka is worth where the broker does not say where a message came to be: it is there, and nothing waits for ever."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from brokers.writing import offset_of
from schemas.config_live import KafkaConfig
from schemas.messages import headers
from schemas.tables import TRADES
from schemas.tables_live import REPORTS
from sinks.execute_log import KafkaLog
from sinks.ingest_writer import Writer
from tests.execute_setup import make_topics, read_topic
from tests.live_runs import ready


class Delivered:
    """A delivery report without an offset, as of a message that the broker had already."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


class Silent:
    """A producer whose broker never says where a message came to be."""

    def __init__(self, producer: Any, offset: int | None) -> None:
        self._producer, self._offset = producer, offset

    def produce(self, *args: Any, on_delivery: Callable[[Any, Any], None], **more: Any) -> None:
        self._producer.produce(*args, on_delivery=lambda error, message: on_delivery(error, Delivered(self._offset)), **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def __len__(self) -> int:
        return len(self._producer)


@pytest.mark.parametrize("offset, found", [(0, 0), (7, 7), (None, None), (-1001, None), (-1, None)])
def test_an_offset_is_one_or_none(offset: int | None, found: int | None) -> None:
    assert offset_of(Delivered(offset)) == found


@pytest.mark.parametrize("offset", [None, -1001])
def test_a_report_without_an_offset_has_been_read_when_the_end_of_its_partition_has(kafka: KafkaConfig, offset: int | None) -> None:
    make_topics(kafka)

    async def written() -> tuple[list[int], int]:
        log = KafkaLog(kafka, "paper")
        await log.open()
        told = [await log.write("reports", json.dumps({"n": n}).encode(), headers(REPORTS, "json")) for n in range(2)]
        log._producer = Silent(log._producer, offset)
        told += [await log.write("reports", json.dumps({"n": n}).encode(), headers(REPORTS, "json")) for n in range(2, 4)]
        seen = -1
        while seen < told[-1]:
            seen = max([seen, *(m.offset for m in await log.read() if m.table == "reports")])
        await log.close()
        return told, seen

    told, seen = asyncio.run(written())
    assert told == [0, 1, 2, 3] and seen == 3
    assert [row["n"] for row in read_topic(kafka, "reports", "paper")] == [0, 1, 2, 3]


def rows(n: int) -> Any:
    made = TRADES.empty(n)
    made["ts_event_ns"] = np.arange(n) + 1_700_000_000_000_000_000
    made["price"], made["size"], made["side"], made["trade_id"] = 1.0, 1.0, 1, np.arange(n)
    return made


@pytest.mark.parametrize("offset", [None, -1001])
def test_a_writer_goes_on_without_offsets_and_its_next_start_loses_and_doubles_nothing(kafka: KafkaConfig, offset: int | None) -> None:
    ready(kafka)
    with Writer(kafka, "w", ["trades"]) as writer:
        writer._producer = Silent(writer._producer, offset)
        writer.write(TRADES, rows(5), ("A",))
        writer.flush()
        assert writer._lowest_in_flight() == 5  # nothing is waited for
    with Writer(kafka, "w", ["trades"]) as again:
        assert (again.resumed_from, again.filled) == (5, 0)
        again.write(TRADES, rows(2), ("A",))
    numbers = [int(row["seq"]) & ((1 << 48) - 1) for row in read_topic(kafka, "trades")]
    assert numbers == [0, 1, 2, 3, 4, 5, 6]
