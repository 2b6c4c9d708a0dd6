"""How a Kafka reader connects: librdkafka's settings from the configuration, and what a broker that does not answer is told as.

A password never reaches a message: `${NAME}` is filled in here, from the environment, and whatever was filled in is struck
out of what librdkafka says.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError, unknown
from schemas.topics import TOPICS

CONNECT_S = 10.0
JUST_MADE_S = (0.1, 0.3)
"""A topic that was made a moment ago is not known to every broker yet: it is asked for again after so long."""
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_STATE = re.compile(r" \(after \d+ms in state \w+\)")
_SECRET = ("password", "secret", ".pem", "jaas", "token")
FAST: Mapping[str, str] = {
    # a full queue is looked at again after 10 ms, not after 1 s, and holds 64 MB
    "fetch.queue.backoff.ms": "10",
    "queued.min.messages": "1000000",
    "queued.max.messages.kbytes": "65536",
    "fetch.message.max.bytes": "4194304",
    # a message is sent on as soon as it is there, and a partition that was resumed waits no longer than this for its turn
    "fetch.min.bytes": "1",
    "fetch.wait.max.ms": "20",
    "socket.nagle.disable": "true",
    "socket.keepalive.enable": "true",
    "reconnect.backoff.ms": "100",
    "reconnect.backoff.max.ms": "1000",
    # what is wrong comes through `error_cb` and the messages themselves
    "log_level": "0",
}
"""Settings of librdkafka that make a reader quick; the options of the configuration win over them."""


def connection(kafka: KafkaConfig, **settings: str) -> dict[str, str]:
    """librdkafka's settings: `FAST`, then the options of the configuration with `${NAME}` filled in, then `settings` (`_` for `.`).

    UserError that names the variable and the option where the environment does not have it.
    """
    own = {name.replace("_", "."): value for name, value in settings.items()}
    options = {str(name): _filled(str(name), str(value)) for name, value in kafka.options.items()}
    return {"client.id": "penstock", **FAST, **options, **own, "bootstrap.servers": _filled("servers", kafka.servers)}


def reader_settings(kafka: KafkaConfig) -> dict[str, str]:
    """The settings of a reader that keeps its own offsets: what is gone is an error, and no group is joined."""
    fixed = {
        "group.id": "penstock",  # librdkafka has no consumer queue without a name of one
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "enable.partition.eof": "false",
        "auto.offset.reset": "error",
        "check.crcs": "true",
    }
    return {**connection(kafka), **fixed}


def topic_of(kafka: KafkaConfig, table: str) -> str:
    """The name of a table's topic on this broker; UserError where there is no such table."""
    if table not in TOPICS:
        raise unknown("table", table, TOPICS)
    return TOPICS[table].named(kafka.prefix)


def check_broker(kafka: KafkaConfig, timeout_s: float = CONNECT_S) -> None:
    """Nothing where the broker answers; else UserError (address, TLS, login, options) or PenstockError (it is down)."""
    _metadata(kafka, timeout_s)


def partitions_of(kafka: KafkaConfig, table: str, timeout_s: float = CONNECT_S) -> int:
    """How many partitions the topic of a table has; UserError where it is not there. It is never made by asking."""
    return partitions(kafka, (table,), timeout_s)[table]


def partitions(kafka: KafkaConfig, tables: tuple[str, ...], timeout_s: float = CONNECT_S) -> dict[str, int]:
    """The same for several tables with one request."""
    wanted = {table: topic_of(kafka, table) for table in tables}
    for pause_s in (*JUST_MADE_S, None):
        topics = _metadata(kafka, timeout_s).topics
        missing = [topic for topic in wanted.values() if topic not in topics or not topics[topic].partitions]
        if not missing:
            break
        if pause_s is None:
            raise UserError(f"the Kafka broker at {kafka.servers} has no topic {missing[0]}; make it with `penstock topics create`")
        time.sleep(pause_s)
    return {table: len(topics[topic].partitions) for table, topic in wanted.items()}


def explained(kafka: KafkaConfig, name: str, text: str, told: Mapping[str, str]) -> PenstockError:
    """What an error means to the user. name, text: of the call that failed; told: what the client reported meanwhile, by name, which
    says more than a call that timed out."""
    known = {**told, name: told.get(name, text)}
    where = f"the Kafka broker at {kafka.servers}"
    for kind in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"):
        if kind in known:
            said = struck(kafka, known[kind])
            return UserError(f"{where} refuses the login: {said}; check security.protocol and sasl.* in kafka options")
    handshake = known.get("_SSL") or next((text for text in known.values() if "SSL handshake" in text or "SSL_HANDSHAKE" in text), "")
    if handshake:
        said = struck(kafka, handshake)
        return UserError(f"{where} and this client do not agree on TLS: {said}; check security.protocol and ssl.* in kafka options")
    if "_RESOLVE" in known:
        said = struck(kafka, known["_RESOLVE"])
        return UserError(f"{where} is not found: {said}; check kafka servers, written like host:port,host:port")
    if name.endswith("AUTHORIZATION_FAILED"):
        return UserError(f"{where}: {struck(kafka, text)}; the user in kafka options lacks the right")
    said = struck(kafka, known.get("_TRANSPORT", text))
    if name == "_TRANSPORT" and "_ALL_BROKERS_DOWN" in told and "_TRANSPORT" not in told:
        # librdkafka does not call it an error when the other side takes a connection and ends it
        return PenstockError(f"{where} hangs up without a word; it may want TLS or a login: check security.protocol in kafka options")
    if name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT"):
        return PenstockError(f"{where} does not answer: {said}; check that it runs, and that kafka servers is its address")
    return PenstockError(f"{where}: {said}")


def struck(kafka: KafkaConfig, text: str) -> str:
    """librdkafka's words without the state of its connection, and without the values of secret options."""
    text = _STATE.sub("", text)
    for name, value in kafka.options.items():
        if any(part in str(name) for part in _SECRET) or "${" in str(value):
            secret = _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), str(value))
            text = text.replace(secret, "***") if secret.strip() else text
    return text


def _metadata(kafka: KafkaConfig, timeout_s: float) -> Any:
    told: dict[str, str] = {}

    def note(error: KafkaError) -> None:
        told[error.name()] = error.str()

    settings: dict[str, Any] = {**reader_settings(kafka), "error_cb": note}
    try:
        client = Consumer(settings)
    except KafkaException as error:
        said = struck(kafka, error.args[0].str())
        raise UserError(f"kafka options: {said}; see librdkafka's CONFIGURATION.md for names and values") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"kafka options: {struck(kafka, str(error))}") from None
    try:
        return client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        client.poll(0)
        cause: KafkaError = error.args[0]
        raise explained(kafka, cause.name(), cause.str(), told) from None
    finally:
        client.close()


def _filled(option: str, value: str) -> str:
    def of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise UserError(f"kafka option {option} wants ${{{name}}}, which is not set in the environment; export {name}=…")
        return os.environ[name]

    return _VARIABLE.sub(of, value)
