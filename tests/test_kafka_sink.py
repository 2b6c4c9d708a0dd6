"""The Kafka sink: what is flushed is on the log once, bit for bit, a symbol's rows in one partition and in order; a failure is said."""

from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

import sinks.kafka
import sinks.kafka_payloads
from brokers.writing import FirstAlone
from schemas.codec import decode_ipc, has_text
from schemas.codec_features import FEATURES, features_to_compact, widen
from schemas.codec_json import decode_json_records
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows, Frame
from schemas.ids import name_id
from schemas.tables import BARS, BEATS, SIGNALS, TRADES
from schemas.tables_desk import CONTROL, DECISIONS, FILLS, RUNS
from schemas.tables_live import DEAD_LETTER, JOURNAL
from schemas.topics import TABLES, TOPICS
from sinks.kafka import KafkaSink, partition_of
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_reading import messages, rows_in
from tests.test_codec import STRATEGIES, SYMBOLS, rows_of

SAMPLES = (TRADES, BARS, SIGNALS, DECISIONS, FILLS, CONTROL, JOURNAL)


def header(message: Any, name: str) -> str:
    return next((value.decode() for key, value in message.headers() if key == name), "")


@pytest.mark.parametrize("spec", SAMPLES, ids=lambda s: s.name)
def test_rows_come_back_bit_for_bit_with_headers_and_keys(kafka: KafkaConfig, spec: Any) -> None:  # noqa: F811
    rows = rows_of(spec, 64, seed=3)
    with KafkaSink(kafka, "run-1", "paper") as sink:
        sink.write(spec, rows[:0], SYMBOLS, STRATEGIES)
        sink.write(spec, rows[:40], SYMBOLS, STRATEGIES)
        sink.write(spec, rows[40:], SYMBOLS, STRATEGIES)
        sink.flush()
        assert sink.acknowledged() and sink.pending() == 0 and sink.rows_written == 64
    topic, found = TOPICS[spec.name], messages(kafka, spec.name)
    assert len(found) == sink.messages_written
    for message, part in zip(found, rows_in(spec, found, SYMBOLS, STRATEGIES), strict=True):
        assert (header(message, "codec"), header(message, "schema"), header(message, "run")) == (topic.codec, f"{spec.name}/1", "run-1")
        key = (message.key() or b"").decode()
        if topic.key == "account":
            assert key == "paper" and message.partition() == (0 if topic.partitions == 1 else name_id("paper") % 4)
        else:
            names = {"" if code < 0 else SYMBOLS[code] for code in part["symbol"]}
            assert {partition_of(name, 4) for name in names} == {message.partition()}
            assert key == ("" if len(names - {""}) != 1 else next(iter(names - {""})))
    back = np.concatenate(rows_in(spec, found, SYMBOLS, STRATEGIES))
    if topic.key == "account":
        expected = rows
    else:  # partition after partition, in the order of writing
        parts = np.array([partition_of("" if c < 0 else SYMBOLS[c], 4) for c in rows["symbol"]])
        expected = rows[np.argsort(parts, kind="stable")]
    # JSON has one NaN, so those of other bits come back as that one
    same = back == expected
    assert same.all() or all(np.array_equal(back[n], expected[n], equal_nan=back[n].dtype.kind == "f") for n in back.dtype.names)
    if topic.codec == "arrow":
        assert back.tobytes() == expected.tobytes()


def test_a_symbol_keeps_its_partition_and_order_however_frames_are_cut(kafka: KafkaConfig) -> None:  # noqa: F811
    symbols = tuple(f"S{i}" for i in range(23))
    rows = TRADES.empty(5000)
    rows["seq"], rows["symbol"] = np.arange(5000), np.random.default_rng(1).integers(0, 23, 5000)
    with KafkaSink(kafka, "", "") as sink:
        for start, stop, known in ((0, 1, 23), (1, 7, 23), (7, 4000, 23), (4000, 5000, 23)):
            sink.write_frame(Frame("x", 0, 0, symbols[:known], {"trades": rows[start:stop], "beats": BEATS.empty(0)}), (), [TRADES, BEATS])
    found = messages(kafka, "trades")
    assert len(found) < 40 and all(header(m, "run") == "" for m in found)
    seen: dict[int, list[int]] = {}
    for message, part in zip(found, rows_in(TRADES, found, symbols), strict=True):
        for code, seq in zip(part["symbol"].tolist(), part["seq"].tolist(), strict=True):
            assert message.partition() == name_id(symbols[code]) % 4
            seen.setdefault(code, []).append(seq)
    for code in range(23):
        assert seen[code] == np.flatnonzero(rows["symbol"] == code).tolist()


def test_a_message_holds_a_bounded_number_of_rows_and_only_the_names_it_uses(kafka: KafkaConfig) -> None:  # noqa: F811
    symbols = tuple(f"SYMBOL{i}" for i in range(3000))
    rows = TRADES.empty(20_000)
    rows["seq"], rows["symbol"] = np.arange(20_000), 2999
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, rows, symbols)
    found = messages(kafka, "trades")
    assert len(found) == 5 and max(len(m.value()) for m in found) < sinks.kafka_payloads.MESSAGE_BYTES
    assert {m.key() for m in found} == {b"SYMBOL2999"}
    assert decode_ipc(found[0].value())["symbol"].chunk(0).dictionary.to_pylist() == ["SYMBOL2999", ""]
    assert np.concatenate(rows_in(TRADES, found, ("SYMBOL2999",)))["seq"].tolist() == list(range(20_000))


def test_beats_of_all_symbols_go_to_the_first_partition(kafka: KafkaConfig) -> None:  # noqa: F811
    beats = BEATS.empty(2)
    beats["symbol"], beats["seq"] = -1, [1, 2]
    with KafkaSink(kafka, "", "") as sink:
        sink.write(BEATS, beats, ("A",))
    found = messages(kafka, "beats")
    assert {m.partition() for m in found} == {0} and {m.key() for m in found} == {None}
    assert np.concatenate(rows_in(BEATS, found, ("A",))).tobytes() == beats.tobytes()


def test_records_of_text_tables(kafka: KafkaConfig) -> None:  # noqa: F811
    run = {f.name: 5 if f.kind == "time" else f"{f.name} 'ü' \\ \n {{}}" for f in RUNS.fields}
    letter = {"ts_seen_ns": 1, "topic": "penstock.trades", "partition": 3, "offset": 17, "error": "not JSON", "payload": "AAE="}
    with KafkaSink(kafka, "run-7", "paper") as sink:
        sink.write(RUNS, [run])
        sink.write(DEAD_LETTER, [letter, letter])
    runs, letters = messages(kafka, "runs"), messages(kafka, "dead_letter")
    assert decode_json_records(RUNS, [m.value() for m in runs]) == [run] and [m.key() for m in runs] == [b"run-7"]
    assert decode_json_records(DEAD_LETTER, [m.value() for m in letters]) == [letter, letter]


def test_feature_sets_of_a_frame(kafka: KafkaConfig) -> None:  # noqa: F811
    bars = BARS.empty(4)
    bars["symbol"], bars["seq"], bars["close"] = [0, 1, 2, 0], [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]
    values = np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, 4.0], [5.0, 6.0]])
    features = FeatureRows(60, ("rsi(14)", "ema(3)"), bars, values)
    with KafkaSink(kafka, "r", "a") as sink:
        sink.write_frame(Frame("x", 0, 0, SYMBOLS, {"bars": bars}, (features,)), STRATEGIES, [FEATURES])
    tables = [decode_ipc(m.value()) for m in messages(kafka, "features")]
    assert {t.schema for t in tables} == {features_to_compact(features, SYMBOLS).schema}
    wide = sorted((row for t in tables for row in widen(t).to_pylist()), key=lambda row: row["seq"])
    assert [(r["symbol"], r["rsi(14)"], r["ema(3)"], r["interval_ns"]) for r in wide] == [
        (SYMBOLS[0], None, 1.0, 60), (SYMBOLS[1], 2.0, None, 60), (SYMBOLS[2], 3.0, 4.0, 60), (SYMBOLS[0], 5.0, 6.0, 60)]


def test_only_the_tables_that_are_named_are_written(kafka: KafkaConfig) -> None:  # noqa: F811
    rows = rows_of(TRADES, 3, seed=1)
    with KafkaSink(kafka, "r", "a") as sink:
        sink.write_frame(Frame("x", 0, 0, SYMBOLS, {"trades": rows, "bars": rows_of(BARS, 2, seed=1)}), (), [BARS])
        assert sink.rows_written == 2


def test_a_full_queue_waits_and_loses_nothing(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(sinks.kafka, "QUEUE_MESSAGES", 5)
    monkeypatch.setattr(sinks.kafka, "FULL_POLL_S", 0.001)
    rows = CONTROL.empty(300)
    rows["seq"], rows["symbol"] = np.arange(300), -1
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(CONTROL, rows)
        assert sink.pending() <= 5
    assert np.concatenate(rows_in(CONTROL, messages(kafka, "control"), ()))["seq"].tolist() == list(range(300))


def test_nothing_of_the_first_messages_to_new_topics_is_lost(kafka: KafkaConfig) -> None:  # noqa: F811
    rows = rows_of(SIGNALS, 64, seed=3)
    for number in range(8):
        new = KafkaConfig(kafka.servers, f"{kafka.prefix}{number}.")
        with KafkaSink(new, "r", "paper") as sink:
            for start in range(0, 64, 8):
                sink.write(SIGNALS, rows[start : start + 8], SYMBOLS, STRATEGIES)
        assert len(messages(new, "signals")) == sink.messages_written


def test_the_first_message_of_a_partition_waits_alone_and_so_does_one_after_a_long_time() -> None:
    now, waited = [0.0], []
    alone = FirstAlone(lambda: waited.append(now[0]), lambda: now[0])
    for now[0], topic, partition in ((1.0, "a", 0), (2.0, "a", 0), (3.0, "a", 1), (4.0, "b", 0), (3000.0, "a", 0), (6600.0, "a", 0), (10201.0, "a", 0),
                                     (10202.0, "a", 0)):  # fmt: skip
        alone(topic, partition)
    assert waited == [1.0, 3.0, 4.0, 10201.0]


def own_mock() -> tuple[Any, str]:
    mock: Any = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    return mock, ",".join(f"{b.host}:{b.port}" for b in mock.list_topics(timeout=10).brokers.values())


def test_a_message_that_fails_is_said_by_every_call_from_then_on() -> None:
    mock, where = own_mock()
    sink = KafkaSink(KafkaConfig(where, options={"message.timeout.ms": "300"}), "r", "paper")
    sink.write(CONTROL, CONTROL.empty(1), ("A",))
    sink.flush()
    del mock  # the broker is gone
    with pytest.raises(PenstockError, match=r"does not answer.*writing penstock.control partition \d.*1 messages were not written"):
        sink.write(CONTROL, CONTROL.empty(1), ("A",))
        sink.flush()
    for call in (sink.flush, sink.poll, sink.acknowledged, lambda: sink.write(CONTROL, CONTROL.empty(1), ("A",)), sink.close):
        with pytest.raises(PenstockError, match="were not written"):
            call()
    sink.close()


def test_a_flush_that_takes_too_long_says_how_much_is_missing() -> None:
    mock, where = own_mock()
    sink = KafkaSink(KafkaConfig(where), "r", "paper")
    sink.write(CONTROL, CONTROL.empty(1), ("A",))
    sink.flush()
    del mock
    sink.write(CONTROL, CONTROL.empty(3), ("A",))
    with pytest.raises(PenstockError, match="has not acknowledged 3 messages within 1 s"):
        sink.flush(1.0)
    sink.abandon()
    with pytest.raises(PenstockError, match="closed"):
        sink.write(CONTROL, CONTROL.empty(1), ("A",))


def test_a_message_that_is_too_large_is_refused_with_its_size(kafka: KafkaConfig) -> None:  # noqa: F811
    small = KafkaConfig(kafka.servers, kafka.prefix, {"message.max.bytes": "1000"})
    sink = KafkaSink(small, "r", "paper")
    with pytest.raises(PenstockError, match=r"a message of \d+ bytes for .*runs was refused: .*too large"):
        sink.write(RUNS, [{f.name: 5 if f.kind == "time" else "x" * 1000 for f in RUNS.fields}])
    sink.abandon()


def test_a_broker_that_is_not_there_and_settings_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.client.CONNECT_S_MAX", 1.0)
    with pytest.raises(PenstockError, match=r"broker at 127\.0\.0\.1:1 does not answer: .*Connection refused") as down:
        KafkaSink(KafkaConfig("127.0.0.1:1"), "r", "a")
    assert not isinstance(down.value, UserError)
    with pytest.raises(UserError, match="Failed to resolve 'nowhere.invalid:9092'.*check kafka servers"):
        KafkaSink(KafkaConfig("nowhere.invalid:9092"), "r", "a")
    with pytest.raises(UserError, match='No such configuration property: "securty.protocol"'):
        KafkaSink(KafkaConfig("127.0.0.1:1", options={"securty.protocol": "SSL"}), "r", "a")


def test_tls_that_the_broker_does_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.client.CONNECT_S_MAX", 1.5)
    mock, where = own_mock()
    with pytest.raises(UserError, match=r"do not agree on TLS: .*; check security.protocol"):
        KafkaSink(KafkaConfig(where, options={"security.protocol": "SSL"}), "r", "a")
    del mock


def test_a_login_that_the_broker_refuses_never_shows_the_password(servers: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("brokers.client.CONNECT_S_MAX", 1.5)
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "pa55word"}
    with pytest.raises(UserError, match="refuses the login: .*; check security.protocol and sasl") as failed:
        KafkaSink(KafkaConfig(servers, options=login), "r", "a")
    assert "pa55word" not in str(failed.value)


def test_every_table_can_be_written(kafka: KafkaConfig) -> None:  # noqa: F811
    with KafkaSink(kafka, "r", "paper") as sink:
        for spec in TABLES.values():
            if not has_text(spec) and spec is not FEATURES and spec.name not in {s.name for s in SAMPLES}:
                sink.write(spec, rows_of(spec, 9, seed=2), SYMBOLS, STRATEGIES)
                sink.flush()
                found = messages(kafka, spec.name)
                assert sum(len(part) for part in rows_in(spec, found, SYMBOLS, STRATEGIES)) == 9
