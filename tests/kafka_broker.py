"""A Kafka for tests: the broker that PENSTOCK_TEST_KAFKA names, else librdkafka's mock cluster in this process.

Each test takes a topic prefix of its own, so that they share a broker. The mock makes topics on first use, with four
partitions; on a real broker they are made here.
"""

import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.config_live import KafkaConfig

_numbers = count()


@pytest.fixture(scope="session")
def servers() -> Iterator[str]:
    """Bootstrap addresses of a broker that takes every request of these tests."""
    given = os.environ.get("PENSTOCK_TEST_KAFKA")
    if given:
        yield given
        return
    mock: Any = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    brokers = mock.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{b.host}:{b.port}" for b in brokers)
    mock.flush(1)


@pytest.fixture
def kafka(servers: str) -> KafkaConfig:
    """A configuration with a prefix that no other test has."""
    return KafkaConfig(servers=servers, prefix=f"t{os.getpid()}-{next(_numbers)}.")
