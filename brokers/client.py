"""What every Kafka client shares: its settings, its connection check, and what a broker's error means to the user.

Options come with their `${NAME}` values already filled in (`cli.secrets`), and no message repeats a secret one. What
correctness hangs on is `fixed` and wins; an option that says otherwise is an error, never passed over.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from telemetry import logs

CONNECT_S_MAX = 10.0
PATIENCE_S_MAX = 30.0
SAID_LENGTH_MAX = 300
DEFAULTS: Mapping[str, object] = {
    "client.id": "penstock",
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 0,  # errors arrive through `error_cb` and the messages themselves
}
"""For every client; the options of the configuration win over them."""
_ALIASES = {
    "request.required.acks": "acks", "max.in.flight.requests.per.connection": "max.in.flight", "metadata.broker.list": "bootstrap.servers",
    "delivery.timeout.ms": "message.timeout.ms", "auto.commit.enable": "enable.auto.commit",
}
"""librdkafka's second names of what is ever fixed."""
_SAME = {"-1": "all", "t": "true", "1": "true", "f": "false", "0": "false"}
_STATE = re.compile(r" \(after \d+ms in state \w+\)")
_SECRET = ("password", "secret", ".pem", "jaas", "token")
log = logs.get("kafka")


class Noted:
    """The errors that a client reports beside its calls: the latest of each kind, and the fatal one."""

    def __init__(self) -> None:
        self.fatal: KafkaError | None = None
        self.connected = False
        self.latest: dict[str, str] = {}

    def __call__(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error
        # a broker that goes away is said once, not once per attempt; before the first connection the caller says it
        if self.connected and not self.latest:
            log.warning("the broker is in trouble", said=_short(error.str()))
        self.latest[error.name()] = error.str()
        if error.name() == "_TRANSPORT" and ("SSL" in error.str() or "security.protocol" in error.str()):
            self.latest.setdefault("_SSL", error.str())  # a broker of the other kind hangs up, and librdkafka guesses why

    def healthy(self) -> None:
        """What was said so far is over; the next failure is news again."""
        self.latest = {}


def settings(kafka: KafkaConfig, fixed: Mapping[str, object] | None = None, defaults: Mapping[str, object] | None = None) -> dict[str, str]:
    """librdkafka's settings: `DEFAULTS`, `defaults`, the user's options, and `fixed`. UserError where an option contradicts a fixed one."""
    won = {**(fixed or {}), "bootstrap.servers": kafka.servers}
    own = {name: _plain(value) for name, value in won.items()}
    options = {}
    for given, value in kafka.options.items():
        name = _ALIASES.get(str(given), str(given))
        if name not in own:
            options[str(given)] = _plain(value)
        elif not _same(_plain(value), own[name]):
            raise UserError(f'kafka options: {given} is "{value}", and Penstock needs "{own[name]}" for {name} here: no row would be '
                            "safe with another; leave it out" if name != "bootstrap.servers" else
                            f"kafka options: {given} is the address of a broker; write it as kafka servers")
    base = {name: _plain(value) for name, value in {**DEFAULTS, **(defaults or {})}.items()}
    return {**base, **options, **own}


def client_settings(kafka: KafkaConfig, noted: Noted, fixed: Mapping[str, object] | None = None,
                    defaults: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The same for a client of confluent_kafka, which tells `noted` what goes wrong."""
    return {**settings(kafka, fixed, defaults), "error_cb": noted}


def opened(kind: Any, kafka: KafkaConfig, given: Mapping[str, Any]) -> Any:
    """A client; UserError where a setting has a name or a value that librdkafka does not know."""
    try:
        return kind(dict(given))
    except KafkaException as error:
        raise refused(kafka, error.args[0].str()) from None
    except (TypeError, ValueError) as error:
        raise refused(kafka, str(error)) from None


def refused(kafka: KafkaConfig, said: str) -> UserError:
    """A setting that librdkafka does not take."""
    return UserError(f"kafka options: {struck(kafka, said)}; see librdkafka's CONFIGURATION.md for names and values")


def connected(client: Any, kafka: KafkaConfig, noted: Noted, timeout_s: float | None = None) -> Any:
    """The cluster's metadata; PenstockError where no broker answers, UserError where it is asked in a wrong way."""
    try:
        found = client.list_topics(timeout=CONNECT_S_MAX if timeout_s is None else timeout_s)
    except KafkaException as error:
        client.poll(0)
        raise explained(kafka, error, noted) from None
    noted.healthy()
    noted.connected = True
    return found


def explained(kafka: KafkaConfig, error: KafkaException | KafkaError, noted: Noted | None = None) -> PenstockError:
    """What a failure means to the user."""
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    return meaning(kafka, cause.name(), cause.str(), noted.latest if noted is not None else {})


def meaning(kafka: KafkaConfig, name: str, text: str, told: Mapping[str, str]) -> PenstockError:
    """The same of an error by its name and words. told: what the client reported meanwhile, by name, which says more than a call
    that timed out."""
    known = {**told, name: told.get(name, text)}
    where = f"the Kafka broker at {kafka.servers}"
    for kind in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"):
        if kind in known:
            said = struck(kafka, known[kind])
            return UserError(f"{where} refuses the login: {said}; check security.protocol and sasl.* in kafka options")
    handshake = known.get("_SSL") or next((said for said in known.values() if "SSL handshake" in said or "SSL_HANDSHAKE" in said), "")
    if handshake:
        said = struck(kafka, handshake)
        return UserError(f"{where} and this client do not agree on TLS: {said}; check security.protocol and ssl.* in kafka options")
    if "_RESOLVE" in known:
        said = struck(kafka, known["_RESOLVE"])
        return UserError(f"{where} is not found: {said}; check kafka servers, written like host:port,host:port")
    if name.endswith("AUTHORIZATION_FAILED"):
        return UserError(f"{where}: {struck(kafka, text)}; the user in kafka options lacks the right")
    if name == "_TRANSPORT" and "_ALL_BROKERS_DOWN" in told and "_TRANSPORT" not in told:
        # librdkafka does not call it an error when the other side takes a connection and ends it
        return PenstockError(f"{where} hangs up without a word; it may want TLS or a login: check security.protocol in kafka options")
    if name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_MSG_TIMED_OUT"):
        said = struck(kafka, known.get("_TRANSPORT", text))
        return PenstockError(f"{where} does not answer: {said}; check that it runs, and that kafka servers is its address")
    return PenstockError(f"{where}: {struck(kafka, text)}")


def struck(kafka: KafkaConfig, text: str) -> str:
    """librdkafka's words without the values of secret options, and without its thread and state."""
    for name, value in kafka.options.items():
        if any(part in str(name) for part in _SECRET) and str(value).strip():
            text = text.replace(str(value), "***")
    return logs.redacted_text(_short(text))


PASSING = (
    KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError._NOENT,  # the last: no leaders found
)
"""What a broker answers that has just started, or has just made a topic."""


def patiently(call: Callable[[], Any], seconds_max: float = PATIENCE_S_MAX) -> Any:
    """The answer of a request that is asked again for a while where the broker is not ready for it; the last KafkaException."""
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            return call()
        except KafkaException as error:
            if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(a: str, b: str) -> bool:
    """Whether two texts are one value to librdkafka."""
    a, b = a.strip().lower(), b.strip().lower()
    return a == b or _SAME.get(a, a) == _SAME.get(b, b)


def _short(said: str) -> str:
    """librdkafka's words without its thread and state."""
    said = _STATE.sub("", said.removeprefix("Failed to get metadata: ").removeprefix("Local: "))
    return said.split(" (after ")[0].split(": broker's supported")[0][:SAID_LENGTH_MAX]
