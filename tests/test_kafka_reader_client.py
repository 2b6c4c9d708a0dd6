"""Connecting: settings, secrets from the environment, and a clear sentence for each way in which a broker is not there."""

import contextlib
import os
import socket
import threading

import pytest

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from sources.kafka_client import FAST, check_broker, connection, explained, partitions_of, reader_settings, struck, topic_of
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_producing import PARTITIONS, make_topic

WAIT_S = 2.0


def test_options_win_over_what_is_fast_and_the_caller_over_options() -> None:
    config = KafkaConfig("h:1", options={"fetch.wait.max.ms": "7", "client.id": "mine"})
    made = connection(config, queued_min_messages="5")
    assert made["fetch.wait.max.ms"] == "7" and made["client.id"] == "mine" and made["queued.min.messages"] == "5"
    assert made["bootstrap.servers"] == "h:1" and made["fetch.queue.backoff.ms"] == FAST["fetch.queue.backoff.ms"]
    wanted = KafkaConfig("h:1", options={"auto.offset.reset": "latest", "enable.auto.commit": "true"})
    assert reader_settings(wanted)["auto.offset.reset"] == "error"  # what correctness hangs on is not an option
    assert reader_settings(wanted)["enable.auto.commit"] == "false"


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = KafkaConfig("${BROKER}:9092", options={"sasl.password": "${KAFKA_PW}", "sasl.username": "u-${KAFKA_USER}"})
    monkeypatch.setenv("BROKER", "b.example")
    monkeypatch.setenv("KAFKA_PW", "s3cret $x")
    monkeypatch.delenv("KAFKA_USER", raising=False)
    with pytest.raises(UserError, match=r"kafka option sasl.username wants \$\{KAFKA_USER\}, which is not set") as caught:
        connection(config)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("KAFKA_USER", "me")
    made = connection(config)
    assert (made["bootstrap.servers"], made["sasl.password"], made["sasl.username"]) == ("b.example:9092", "s3cret $x", "u-me")
    assert struck(config, "login of u-me with s3cret $x failed (after 3ms in state AUTH_REQ)") == "login of *** with *** failed"


def test_a_broker_that_is_down_and_an_address_that_is_none() -> None:
    with pytest.raises(PenstockError, match=r"the Kafka broker at 127.0.0.1:1 does not answer: .*refused.*check that it runs") as caught:
        check_broker(KafkaConfig("127.0.0.1:1"), WAIT_S)
    assert not isinstance(caught.value, UserError)
    with pytest.raises(UserError, match=r"nosuch\.invalid:1 is not found: .*host:port"):
        check_broker(KafkaConfig("nosuch.invalid:1"), WAIT_S)


def test_tls_and_logins_that_do_not_fit(servers: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"do not agree on TLS: .*security.protocol"):
        check_broker(KafkaConfig(servers, options={"security.protocol": "SSL"}), WAIT_S)
    monkeypatch.setenv("KAFKA_PW", "hunter2")
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "${KAFKA_PW}"}
    with pytest.raises(UserError, match="refuses the login: ") as caught:
        check_broker(KafkaConfig(servers, options=login), WAIT_S)
    assert "hunter2" not in str(caught.value) and "${KAFKA_PW}" not in str(caught.value)


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
    assert isinstance(explained(config, "TOPIC_AUTHORIZATION_FAILED", "Topic authorization failed", {}), UserError)
    assert "lacks the right" in str(explained(config, "TOPIC_AUTHORIZATION_FAILED", "Topic authorization failed", {}))
    other = explained(config, "_BAD_MSG", "Bad message", {})
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


def test_no_variable_of_the_tests_is_a_secret_that_is_left_behind() -> None:
    assert "KAFKA_PW" not in os.environ
