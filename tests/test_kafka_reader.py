"""The reader: each message once, in the order of its partition, and never one passed over; both ways of reading give the same."""

import gc
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from sources import kafka_native
from sources.kafka_batch import BEGINNING, END, POLL_BYTES, BatchReader, Polled, Position
from sources.kafka_polled import Failed, Trouble
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_producing import PARTITIONS, make_topic, send

WAYS = pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
ALL = tuple(Position("trades", p) for p in range(PARTITIONS))
Message = tuple[str, int, int, bytes, tuple[Any, ...]]


def messages(polled: Polled) -> list[Message]:
    """(table, partition, offset, payload, headers) of each."""
    return [
        (polled.tables[polled.table[i]], int(polled.partition[i]), int(polled.offset[i]), polled.payload(i),
         tuple(polled.header_sets[polled.headers[i]]))
        for i in range(len(polled))
    ]


def read(reader: BatchReader, n: int, rows_max: int = 1000) -> list[Message]:
    """The next n messages."""
    found: list[Message] = []
    deadline = time.monotonic() + 30
    while len(found) < n:
        polled = reader.poll(rows_max, 1.0)
        assert len(polled) <= rows_max
        found += messages(polled)
        assert time.monotonic() < deadline, f"{len(found)} of {n}"
    assert len(found) == n
    return found


@pytest.fixture
def opened() -> Iterator[list[BatchReader]]:
    """Readers to be closed."""
    readers: list[BatchReader] = []
    yield readers
    for reader in readers:
        reader.close()
        reader.close()


def test_librdkafka_is_found() -> None:
    assert kafka_native.library() is not None


@WAYS
def test_every_message_once_in_order_with_its_headers(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    make_topic(kafka, "quotes")
    kept = [("codec", b"json"), ("schema", b"trades/1"), ("run", b"r-1")]
    some: list[Any] = [
        None, kept, [("other", b"x"), ("codec", b"json"), ("codecs", b"y")], [], [("codec", None)], [("run", b"")],
        [("schema", b"quotes/1"), ("trace", bytes(300))], [("run", b"caf\xc3\xa9")],
    ]  # fmt: skip
    sent: dict[str, list[Any]] = {t: [(i % PARTITIONS, b"%s %d" % (t.encode(), i) * (i % 7), some[i % 8]) for i in range(500)]
                                  for t in ("trades", "quotes")}
    sent["trades"][9] = (1, None, None)
    for table, made in sent.items():
        send(kafka, table, made)
    reader = BatchReader(kafka, [*ALL, *(Position("quotes", p) for p in range(PARTITIONS))], native)
    opened.append(reader)
    assert reader.native == native
    started = time.time()
    found = read(reader, 1000, 128)
    names = ("codec", "schema", "run")
    for table, made in sent.items():
        for p in range(PARTITIONS):
            wanted = [(payload or b"", tuple((k, v or b"") for k, v in given or () if k in names)) for q, payload, given in made if q == p]
            got = [(payload, headers) for t, q, _, payload, headers in found if (t, q) == (table, p)]
            assert got == wanted
            assert [offset for t, q, offset, _, _ in found if (t, q) == (table, p)] == list(range(len(wanted)))
    assert len(reader.poll(10, 0.0)) == 0
    assert sorted(reader.positions(), key=str) == sorted((Position(t, p, 125) for t in sent for p in range(PARTITIONS)), key=str)
    assert set(reader.lag().values()) == {0}
    send(kafka, "trades", [(2, b"later", kept)])
    polled = reader.poll(10, 10.0)
    assert messages(polled) == [("trades", 2, 125, b"later", tuple(kept))]
    assert abs(polled.timestamp_ms[0] / 1000 - started) < 3600 and polled.run(0) == "r-1"
    assert (polled.data[polled.starts[-1] :] == 0).all() and polled.topics[polled.table[0]] == kafka.prefix + "trades"


def test_both_ways_give_the_same_arrays(kafka: KafkaConfig, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    send(kafka, "trades", [(3, b"%d" % i, [("codec", b"json")] if i % 3 else None) for i in range(700)])
    polls = []
    for native in (True, False):
        reader = BatchReader(kafka, [Position("trades", 3)], native)
        opened.append(reader)
        reader.pause([("trades", 3)])
        reader.resume([("trades", 3)])
        found: list[Polled] = []
        while sum(map(len, found)) < 700:
            found.append(reader.poll(250, 1.0))
        polls.append(found)
    for name in ("table", "partition", "offset", "timestamp_ms", "headers"):
        native_column, plain_column = (np.concatenate([getattr(p, name) for p in found]) for found in polls)
        assert native_column.dtype == plain_column.dtype == np.int64
        assert (native_column == plain_column).all(), name
    assert polls[0][-1].header_sets == polls[1][-1].header_sets
    assert polls[0][-1].tables == polls[1][-1].tables == ("trades",)


@WAYS
def test_where_it_starts_and_goes_on(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    send(kafka, "trades", [(p, b"%d" % i, None) for i in range(50) for p in (0, 1)])
    reader = BatchReader(kafka, [Position("trades", 0, 20), Position("trades", 1, END), Position("trades", 2, BEGINNING)], native)
    opened.append(reader)
    assert reader.positions() == [Position("trades", 0, 20), Position("trades", 1, 50), Position("trades", 2, 0)]
    assert reader.lag() == {("trades", 0): 30, ("trades", 1): 0, ("trades", 2): 0}
    first = read(reader, 10, 10)
    assert [m[2] for m in first] == list(range(20, 30))
    assert reader.lag()[("trades", 0)] == 20 and reader.watermarks("trades", 0) == (0, 50)
    again = BatchReader(kafka, reader.positions(), native)
    opened.append(again)
    assert [m[2] for m in read(again, 20)] == list(range(30, 50))
    reader.seek([Position("trades", 1, 45), Position("trades", 0, 10)])
    found = read(reader, 45)
    assert sorted(m[2] for m in found if m[1] == 1) == list(range(45, 50))
    assert [m[2] for m in found if m[1] == 0] == list(range(10, 50))


@WAYS
def test_paused_partitions_give_nothing_and_lose_nothing(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    send(kafka, "trades", [(p, b"%d" % i, None) for i in range(100) for p in (0, 1)])
    reader = BatchReader(kafka, ALL, native)
    opened.append(reader)
    found = read(reader, 20, 20)
    reader.pause([("trades", 0)])
    before = {p.partition: p.offset for p in reader.positions()}
    found += read(reader, 100 - before[1])
    send(kafka, "trades", [(p, b"more", None) for p in (0, 1)])
    found += read(reader, 1)
    assert {p.partition: p.offset for p in reader.positions()} == {**before, 1: 101}
    reader.seek([Position("trades", 1, 100)])  # what is paused stays so
    assert [m[1:3] for m in read(reader, 1)] == [(1, 100)]
    reader.resume([("trades", 0)])
    found += read(reader, 101 - before[0])
    for p in (0, 1):
        assert [m[2] for m in found if m[1] == p] == list(range(101))


@WAYS
def test_an_offset_that_is_gone_or_not_there_yet_is_said(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    topic = make_topic(kafka, "trades")
    waiting = BatchReader(kafka, [Position("trades", 1)], native)
    opened.append(waiting)
    waiting.pause([("trades", 1)])
    rng = np.random.default_rng(1)
    send(kafka, "trades", [(1, rng.bytes(200_000), None) for _ in range(60)])  # more than a partition of the mock keeps
    if "PENSTOCK_TEST_KAFKA" in os.environ:
        admin = AdminClient({"bootstrap.servers": kafka.servers})
        next(iter(admin.delete_records([TopicPartition(topic, 1, 40)]).values())).result(20)
    low, high = waiting.watermarks("trades", 1)
    assert 0 < low < high == 60
    with pytest.raises(PenstockError, match=rf"{topic} partition 1: the messages from offset {low - 1} to {low - 1} are gone.*{low};"):
        BatchReader(kafka, [Position("trades", 1, low - 1)], native)
    with pytest.raises(PenstockError, match=f"{topic} partition 1: offset 61 is beyond the end, which is 60"):
        BatchReader(kafka, [Position("trades", 1, 61)], native)
    waiting.resume([("trades", 1)])
    with pytest.raises(PenstockError, match=f"{topic} partition 1: the messages from offset 0 to {low - 1} are gone"):
        for _ in range(100):
            assert len(waiting.poll(10, 0.3)) == 0
    fresh = BatchReader(kafka, [Position("trades", 1, low)], native)
    opened.append(fresh)
    assert [m[2] for m in read(fresh, 60 - low)] == list(range(low, 60))


@WAYS
def test_topics_and_partitions_that_are_not_there(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    topic = make_topic(kafka, "trades")
    with pytest.raises(UserError, match=rf"no topic {kafka.prefix}quotes; make it with `penstock topics create`"):
        BatchReader(kafka, [Position("quotes", 0)], native)
    with pytest.raises(UserError, match=rf"{topic} has partitions 0 to 3, and no 4"):
        BatchReader(kafka, [Position("trades", 4)], native)
    with pytest.raises(UserError, match='unknown table "trade"; did you mean "trades"'):
        BatchReader(kafka, [Position("trade", 0)], native)
    with pytest.raises(UserError, match="there is no partition to read"):
        BatchReader(kafka, [], native)
    reader = BatchReader(kafka, [Position("trades", 0)], native)
    opened.append(reader)
    with pytest.raises(UserError, match="partition 1 of trades is not one that is read"):
        reader.pause([("trades", 1)])


@WAYS
def test_a_broker_that_goes_away_is_a_warning_once(native: bool, caplog: pytest.LogCaptureFixture, opened: list[BatchReader]) -> None:
    mock: Any = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    address = ",".join(f"{b.host}:{b.port}" for b in mock.list_topics(timeout=10).brokers.values())
    config = KafkaConfig(servers=address, prefix="away.")
    Producer({"bootstrap.servers": address, "log_level": 0}).list_topics("away.trades", timeout=10)
    send(config, "trades", [(0, b"before", None)], log_level=0)
    reader = BatchReader(config, [Position("trades", 0)], native)
    opened.append(reader)
    assert len(read(reader, 1)) == 1
    del mock
    gc.collect()
    with caplog.at_level(logging.WARNING, "penstock.kafka"):
        for _ in range(200):
            assert len(reader.poll(10, 0.02)) == 0
            if caplog.records:
                break
        for _ in range(20):
            assert len(reader.poll(10, 0.02)) == 0
    assert len(caplog.records) == 1 and "trying again" in caplog.text


class Troubled:
    """A feed that says one thing."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble

    def take(self, messages_max: int, timeout_ms: int) -> tuple[Any, list[Trouble]]:
        return (), [self.trouble]


@pytest.mark.parametrize("trouble, kind, said", [
    (Trouble("_UNKNOWN_PARTITION", "x", 0, 2), PenstockError, "trades partition 2 cannot be read from offset 0 on: it is no longer there"),
    (Trouble("_BAD_MSG", "CRC", 0, 1), PenstockError, "trades partition 1 cannot be read from offset 0 on: BAD_MSG: CRC"),
    (Trouble("TOPIC_AUTHORIZATION_FAILED", "no", 0, 1), UserError, "lacks the right"),
    (Trouble("_TRANSPORT", "all over", fatal=True), PenstockError, "all over"),
    (Trouble("INVALID_REQUEST", "what?"), PenstockError, "what?"),
    (Trouble("GROUP_AUTHORIZATION_FAILED", "no"), None, ""),
    (Trouble("_TIMED_OUT", "slow"), None, ""),
])
def test_what_it_goes_on_after_and_what_not(kafka: KafkaConfig, opened: list[BatchReader], trouble: Trouble, kind: Any, said: str) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    reader = BatchReader(kafka, ALL)
    opened.append(reader)
    feed, reader._feed = reader._feed, Troubled(trouble)  # type: ignore[assignment]
    try:
        if kind is None:
            assert len(reader.poll()) == 0
            return
        with pytest.raises(kind, match=said) as caught:
            reader.poll()
        assert (kind is UserError) == isinstance(caught.value, UserError)
    finally:
        reader._feed = feed


@WAYS
def test_large_messages_come_a_few_at_a_time(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    size = 400_000
    send(kafka, "trades", [(0, bytes(size), None) for _ in range(12)])
    reader = BatchReader(kafka, ALL, native)
    opened.append(reader)
    read(reader, 1, 1)
    found = []
    while sum(found) < 11:
        found.append(len(reader.poll(10_000, 1.0)))
        assert found[-1] * size <= POLL_BYTES
    assert sum(found) == 11


@WAYS
def test_a_signal_during_a_wait_is_not_lost(kafka: KafkaConfig, native: bool, opened: list[BatchReader]) -> None:  # noqa: F811
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    make_topic(kafka, "trades")
    reader = BatchReader(kafka, ALL, native)
    opened.append(reader)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Stop):
            reader.poll(10, 60.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    send(kafka, "trades", [(0, b"after", None)])
    assert [m[3] for m in read(reader, 1)] == [b"after"]


@WAYS
def test_settings_that_librdkafka_does_not_know(kafka: KafkaConfig, native: bool) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    wrong = KafkaConfig(kafka.servers, kafka.prefix, {"fetch.wait.max.ms": "soon"})
    with pytest.raises(UserError, match="kafka options: .*fetch.wait.max.ms"):
        BatchReader(wrong, ALL, native)


def test_an_option_that_only_the_library_is_given_is_refused_by_it() -> None:
    with pytest.raises(Failed, match="nonsense"):
        kafka_native.NativeFeed({"nonsense": "1"}, ["trades"], ["t"])


def test_without_the_library_the_other_way_is_taken(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    send(kafka, "trades", [(0, b"x", None)])
    monkeypatch.setattr("sources.kafka_batch.library", lambda: None)
    reader = BatchReader(kafka, ALL)
    opened.append(reader)
    assert not reader.native and [m[3] for m in read(reader, 1)] == [b"x"]


def test_header_sets_are_forgotten_when_there_are_too_many(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch, opened: list[BatchReader]) -> None:  # noqa: F811
    make_topic(kafka, "trades")
    send(kafka, "trades", [(0, b"%d" % i, [("run", b"%d" % i)]) for i in range(300)])
    monkeypatch.setattr(kafka_native, "HEADER_SETS_MAX", 50)
    reader = BatchReader(kafka, ALL, True)
    opened.append(reader)
    most = 0
    found: list[Polled] = []
    while sum(map(len, found)) < 300:
        found.append(reader.poll(20, 1.0))
        most = max(most, len(found[-1].header_sets))
    assert [p.run(i) for p in found for i in range(len(p))] == [str(i) for i in range(300)]
    assert 50 < most <= 50 + 1 + 20
