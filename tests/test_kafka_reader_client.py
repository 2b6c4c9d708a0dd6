"""Connecting: settings, what no option may change, and a clear sentence for each way in which a broker is not there."""

import contextlib
import socket
import threading
from typing import Any

import pytest

from brokers.client import Noted, meaning, settings, struck
from brokers.partitions import check_broker, partitions_of, topic_of
from brokers.reading import FAST, OWN_OFFSETS, reader_settings
from brokers.writing import producer_settings
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from sinks.ingest_writer import Writer
from sinks.kafka import KafkaSink
from telemetry import logs
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_producing import PARTITIONS, make_topic

WAIT_S = 2.0


def test_options_win_over_what_is_fast_but_not_over_what_is_safe() -> None:
    made = reader_settings(KafkaConfig("h:1", options={"fetch.wait.max.ms": "7", "client.id": "mine", "check.crcs": "TRUE"}))
    assert made["fetch.wait.max.ms"] == "7" and made["client.id"] == "mine"
    assert made["bootstrap.servers"] == "h:1" and made["fetch.queue.backoff.ms"] == str(FAST["fetch.queue.backoff.ms"])
    assert {name: made[name] for name in OWN_OFFSETS} == {name: str(v).lower() for name, v in OWN_OFFSETS.items()}
    assert all(isinstance(value, str) for value in made.values())


@pytest.mark.parametrize("option, value", [
    ("auto.offset.reset", "latest"), ("enable.auto.commit", "true"), ("auto.commit.enable", True), ("check.crcs", "false"),
])  # fmt: skip
def test_an_option_that_would_lose_a_readers_place_is_an_error(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f'kafka options: {option} is "{value}", and Penstock needs ".*leave it out'):
        reader_settings(KafkaConfig("h:1", options={option: value}))


@pytest.mark.parametrize("option, value, needed", [
    ("enable.idempotence", "false", "true"), ("acks", "1", "all"), ("request.required.acks", 0, "all"), ("acks", "", "all"),
])  # fmt: skip
def test_an_option_that_would_lose_a_writers_rows_is_an_error(option: str, value: Any, needed: str) -> None:
    config = KafkaConfig("127.0.0.1:1", options={option: value})
    for made in (lambda: KafkaSink(config, "r", "a"), lambda: producer_settings(config, Noted()), lambda: Writer(config, "w", ["trades"])):
        with pytest.raises(UserError, match=f'kafka options: {option} is "{value}", and Penstock needs "{needed}"'):
            made()


def test_what_says_the_same_in_other_words_is_none() -> None:
    options = {"acks": "-1", "enable.idempotence": "True", "linger.ms": "3", "compression.type": "zstd"}
    made = producer_settings(KafkaConfig("h:1", options=options), Noted(), defaults={"linger.ms": 0.5, "compression.type": "lz4"})
    assert (made["acks"], made["enable.idempotence"], made["linger.ms"], made["compression.type"]) == ("all", "true", "3", "zstd")
    with pytest.raises(UserError, match=r"metadata\.broker\.list is the address of a broker; write it as kafka servers"):
        settings(KafkaConfig("h:1", options={"metadata.broker.list": "other:1"}))


def test_no_message_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_protected", {"from-elsewhere"})
    config = KafkaConfig("h:1", options={"sasl.password": "s3cret $x", "sasl.username": "me"})
    assert struck(config, "login of me with s3cret $x failed (after 3ms in state AUTH_REQ)") == "login of me with *** failed"
    assert struck(config, "Local: it was from-elsewhere") == f"it was {logs.HIDDEN}"


def test_a_broker_that_is_down_and_an_address_that_is_none() -> None:
    with pytest.raises(PenstockError, match=r"the Kafka broker at 127.0.0.1:1 does not answer: .*refused.*check that it runs") as caught:
        check_broker(KafkaConfig("127.0.0.1:1"), WAIT_S)
    assert not isinstance(caught.value, UserError)
    with pytest.raises(UserError, match=r"nosuch\.invalid:1 is not found: .*host:port"):
        check_broker(KafkaConfig("nosuch.invalid:1"), WAIT_S)


def test_tls_and_logins_that_do_not_fit(servers: str) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"do not agree on TLS: .*security.protocol"):
        check_broker(KafkaConfig(servers, options={"security.protocol": "SSL"}), WAIT_S)
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "hunter2"}
    with pytest.raises(UserError, match="refuses the login: ") as caught:
        check_broker(KafkaConfig(servers, options=login), WAIT_S)
    assert "hunter2" not in str(caught.value)


def test_a_broker_that_hangs_up_without_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def hang_up() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    caller, _ = server.accept()
                    caller.recv(100)
                    caller.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            with pytest.raises(PenstockError, match=r"hangs up without a word; it may want TLS or a login: check security.protocol"):
                check_broker(KafkaConfig(f"127.0.0.1:{server.getsockname()[1]}"), WAIT_S)
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("options, said", [
    ({"nonsense": "1"}, "kafka options: .*nonsense.*CONFIGURATION.md"),
    ({"security.protocol": "FTP"}, "kafka options: .*security.protocol"),
    ({"ssl.key.pem": "-----not a key hunter2-----", "security.protocol": "SSL"}, "kafka options: "),
])  # fmt: skip
def test_options_that_librdkafka_refuses(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        check_broker(KafkaConfig("127.0.0.1:1", options=options), WAIT_S)
    assert "hunter2" not in str(caught.value)


def test_a_lack_of_rights_and_what_has_no_sentence_of_its_own() -> None:
    config = KafkaConfig("h:1")
    assert isinstance(meaning(config, "TOPIC_AUTHORIZATION_FAILED", "Topic authorization failed", {}), UserError)
    assert "lacks the right" in str(meaning(config, "TOPIC_AUTHORIZATION_FAILED", "Topic authorization failed", {}))
    other = meaning(config, "_BAD_MSG", "Bad message", {})
    assert not isinstance(other, UserError) and str(other) == "the Kafka broker at h:1: Bad message"


def test_partitions_of_a_topic_and_of_none(kafka: KafkaConfig) -> None:  # noqa: F811
    check_broker(kafka)
    assert topic_of(kafka, "trades") == make_topic(kafka, "trades")
    assert partitions_of(kafka, "trades") == PARTITIONS
    for _ in range(2):  # asking does not make it
        with pytest.raises(UserError, match=f"no topic {kafka.prefix}funding; make it with `penstock topics create`"):
            partitions_of(kafka, "funding")
    with pytest.raises(UserError, match='unknown table "trads"; did you mean "trades"'):
        partitions_of(kafka, "trads")
