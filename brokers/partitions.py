"""The topics of tables on a broker, and how many partitions each has.

Reading asks for a topic and never makes one by asking; writing waits for one that the broker makes on first use.
"""

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from brokers import client as clients
from brokers.client import Noted, client_settings, connected, explained, opened
from schemas.config_live import KafkaConfig
from schemas.errors import UserError, unknown
from schemas.topics import TOPICS

CREATED_S_MAX = 10.0
"""How long a topic that the broker makes on first use may take."""
JUST_MADE_S = (0.1, 0.3)
"""A topic that was made a moment ago is not known to every broker yet: it is asked for again after so long."""


def topic_of(kafka: KafkaConfig, table: str) -> str:
    """The name of a table's topic on this broker; UserError where there is no such table."""
    if table not in TOPICS:
        raise unknown("table", table, TOPICS)
    return TOPICS[table].named(kafka.prefix)


def check_broker(kafka: KafkaConfig, timeout_s: float | None = None) -> None:
    """Nothing where the broker answers; else UserError (address, TLS, login, options) or PenstockError (it is down)."""
    _metadata(kafka, timeout_s)


def partitions_of(kafka: KafkaConfig, table: str) -> int:
    """How many partitions the topic of a table has; UserError where it is not there. It is never made by asking."""
    return partitions(kafka, (table,))[table]


def partitions(kafka: KafkaConfig, tables: tuple[str, ...]) -> dict[str, int]:
    """The same for several tables with one request."""
    wanted = {table: topic_of(kafka, table) for table in tables}
    for pause_s in (*JUST_MADE_S, None):
        topics = _metadata(kafka).topics
        missing = [topic for topic in wanted.values() if topic not in topics or not topics[topic].partitions]
        if not missing:
            break
        if pause_s is None:
            raise _no_topic(kafka, missing[0])
        time.sleep(pause_s)
    return {table: len(topics[topic].partitions) for table, topic in wanted.items()}


def partition_count(client: Any, topic: str, kafka: KafkaConfig, noted: Noted) -> int:
    """How many partitions a topic has that is to be written. A broker that makes topics on first use may make it now; elsewhere it is
    a UserError."""
    deadline = time.monotonic() + CREATED_S_MAX
    asked = False
    while True:
        try:
            found = client.list_topics(topic, timeout=clients.CONNECT_S_MAX).topics.get(topic)
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
            raise _no_topic(kafka, topic)
        asked = True


def _appears(client: Any, topic: str) -> bool:
    """Whether a topic that was just asked for is being made."""
    for pause_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        time.sleep(pause_s)
        if topic in client.list_topics(timeout=clients.CONNECT_S_MAX).topics:
            return True
    return False


def _metadata(kafka: KafkaConfig, timeout_s: float | None = None) -> Any:
    noted = Noted()
    return connected(opened(AdminClient, kafka, client_settings(kafka, noted)), kafka, noted, timeout_s)


def _no_topic(kafka: KafkaConfig, topic: str) -> UserError:
    return UserError(f"the Kafka broker at {kafka.servers} has no topic {topic}; make it with `penstock topics create`")
