"""What every Kafka client of this room shares: its settings, its connection check, and what a broker's error means to the user.

Options come with their `${NAME}` values already filled in (`cli.secrets`), and no message repeats one of them: what
is shown is the address and librdkafka's own words.
"""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from telemetry import logs

CONNECT_S_MAX = 10.0
CREATED_S_MAX = 10.0
"""How long a topic that the broker makes on first use may take."""
PATIENCE_S_MAX = 30.0
IDLE_S_MAX = 3600.0
"""A broker forgets a producer's numbers in a partition a day after its last message; long before that we take it for forgotten."""
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


def client_settings(kafka: KafkaConfig, noted: Noted, **own: object) -> dict[str, Any]:
    """librdkafka settings: the user's options, then `own` ones (`_` for `.`), which correctness hangs on and which therefore win."""
    return {
        "bootstrap.servers": kafka.servers,
        "client.id": "penstock",
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 0,  # its errors arrive through `noted`
        **kafka.options,
        **{name.replace("_", "."): value for name, value in own.items()},
        "error_cb": noted,
    }


def opened(kind: Any, settings: dict[str, Any]) -> Any:
    """A client; UserError where a setting has a name or a value that librdkafka does not know."""
    try:
        return kind(settings)
    except KafkaException as error:
        raise UserError(f"kafka options: {error.args[0].str()}; see librdkafka's CONFIGURATION.md for names and values") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"kafka options: {error}") from None


def explained(kafka: KafkaConfig, error: KafkaException | KafkaError, noted: Noted | None = None) -> PenstockError:
    """What a failure means to the user; what the client reported meanwhile says more than the call that timed out."""
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    told = noted.latest if noted is not None else {}
    where = f"the Kafka broker at {kafka.servers}"
    if "_AUTHENTICATION" in told or cause.name() in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"):
        said = told.get("_AUTHENTICATION", cause.str())
        return UserError(f"{where} refuses the login: {_short(said)}; check security.protocol and sasl.* in kafka options")
    if "_SSL" in told or cause.name() == "_SSL":
        said = told.get("_SSL", cause.str())
        return UserError(f"{where} and this client do not agree on TLS: {_short(said)}; check security.protocol and ssl.* in kafka options")
    if "_RESOLVE" in told or cause.name() == "_RESOLVE":
        said = told.get("_RESOLVE", cause.str())
        return UserError(f"{where}: {_short(said)}; check kafka servers, written like host:port,host:port")
    if cause.name() in ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"):
        return UserError(f"{where}: {cause.str()}; the user in kafka options lacks the right")
    if cause.name() in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_MSG_TIMED_OUT"):
        said = _short(told.get("_TRANSPORT", cause.str()))
        return PenstockError(f"{where} does not answer: {said}; check that it runs, and that kafka servers is its address")
    return PenstockError(f"{where}: {_short(cause.str())}")


def connected(client: Any, kafka: KafkaConfig, noted: Noted) -> Any:
    """The cluster's metadata; PenstockError where no broker answers, UserError where it is asked in a wrong way."""
    try:
        found = client.list_topics(timeout=CONNECT_S_MAX)
    except KafkaException as error:
        client.poll(0)
        raise explained(kafka, error, noted) from None
    noted.healthy()
    noted.connected = True
    return found


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


class FirstAlone:
    """Has the first message of a producer to a partition acknowledged before the second goes out. Call it after every `produce`.

    While a broker has no number of an idempotent producer in a partition it takes any. Where the first of two messages on
    their way is put off (the partition is just being made, or changes its leader) the second is taken, and when the first
    comes again it is called a duplicate: the client reports it as delivered, and it is nowhere. One at a time until
    the broker has a number, that cannot happen; afterwards a message that overtakes another is refused and sent again.
    """

    def __init__(self, wait: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._wait, self._clock = wait, clock
        self._last: dict[tuple[str, int], float] = {}

    def __call__(self, topic: str, partition: int) -> None:
        """`wait` until everything is acknowledged, where this was the first one, or the first for a long time."""
        now = self._clock()
        last = self._last.get((topic, partition))
        if last is None or now - last > IDLE_S_MAX:
            self._wait()
        self._last[topic, partition] = now


def partition_count(client: Any, topic: str, kafka: KafkaConfig, noted: Noted) -> int:
    """How many partitions a topic has. A broker that makes topics on first use may make it now; elsewhere it is a UserError."""
    deadline = time.monotonic() + CREATED_S_MAX
    asked = False
    while True:
        try:
            found = client.list_topics(topic, timeout=CONNECT_S_MAX).topics.get(topic)
        except KafkaException as error:
            client.poll(0)
            raise explained(kafka, error, noted) from None
        if found is not None and found.error is None and found.partitions:
            return len(found.partitions)
        failed = found.error if found is not None else None
        passing = failed is None or failed.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE)
        if failed is not None and not passing:
            raise explained(kafka, failed, noted)
        if time.monotonic() > deadline or (asked and not _appears(client, topic)):
            raise UserError(f"the Kafka broker at {kafka.servers} has no topic {topic}; make it with `penstock topics create`")
        asked = True


def _appears(client: Any, topic: str) -> bool:
    """Whether a topic that was just asked for is being made."""
    for pause_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        time.sleep(pause_s)
        if topic in client.list_topics(timeout=CONNECT_S_MAX).topics:
            return True
    return False


def _short(said: str) -> str:
    """librdkafka's words without its thread and state."""
    return said.removeprefix("Failed to get metadata: ").removeprefix("Local: ").split(" (after ")[0].split(": broker's supported")[0][:300]
