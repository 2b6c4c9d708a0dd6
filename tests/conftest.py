"""How the tests run: Hypothesis gives the same examples every time, and no test is judged by its speed.

A test that takes the fixtures of `tests/kafka_broker.py` is marked `kafka` by that.
"""

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka_broker import kafka, servers  # noqa: F401

settings.register_profile("penstock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to a Kafka."""
    for item in items:
        if {"servers", "kafka"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")
