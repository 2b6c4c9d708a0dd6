"""A broker that is killed and comes back: what the sink was given is on the log once, in order, and nothing was given up."""

import os
import threading

import numpy as np
import pytest

from schemas.config_live import KafkaConfig
from schemas.tables_desk import CONTROL
from sinks.kafka import KafkaSink
from tests.kafka.broker import JAVA_MIN, LIBS, Broker, free_ports, java_version
from tests.kafka_reading import messages, rows_in

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif("PENSTOCK_TEST_KAFKA" not in os.environ or java_version() < JAVA_MIN or not any(LIBS.glob("kafka_*.jar")),
                       reason="`make test-kafka` runs it: it starts brokers of its own"),
]


@pytest.mark.parametrize("kill", [True, False], ids=["kill -9", "stop"])
def test_a_bounced_broker_loses_and_doubles_nothing(kill: bool) -> None:
    rows = CONTROL.empty(3000)
    rows["seq"], rows["symbol"] = np.arange(3000), -1
    with Broker() as broker:
        kafka = KafkaConfig(broker.servers)
        with KafkaSink(kafka, "r", "paper") as sink:
            sink.write(CONTROL, rows[:1000])
            sink.flush()
            bounce = threading.Thread(target=broker.restart, args=(kill,))
            bounce.start()
            for start in range(1000, 3000, 100):
                sink.write(CONTROL, rows[start : start + 100])
                sink.poll(0.01)
            bounce.join()
            sink.flush()
        assert np.concatenate(rows_in(CONTROL, messages(kafka, "control"), ()))["seq"].tolist() == list(range(3000))
        folder = broker.directory
    assert broker.process is None and not folder.exists()


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
