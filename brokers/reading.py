"""The settings of a reader that keeps its own offsets.

It joins no group and commits nothing, and an offset that is gone is an error, never a silent jump to another.
"""

from collections.abc import Mapping

from brokers.client import settings
from schemas.config_live import KafkaConfig

FAST: Mapping[str, object] = {
    # a full queue is looked at again after 10 ms, not after 1 s, and holds 64 MB
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 4_194_304,
    # a message is sent on as soon as it is there, and a partition that was resumed waits no longer than this for its turn
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 20,
    "socket.nagle.disable": True,
    "reconnect.backoff.ms": 100,
}
"""Settings of librdkafka that make a reader quick; the options of the configuration win over them."""
PATIENT: Mapping[str, object] = {**FAST, "fetch.min.bytes": 262_144, "fetch.wait.max.ms": 250}
"""The same for a reader that may wait."""
OWN_OFFSETS: Mapping[str, object] = {
    "group.id": "penstock",  # librdkafka has no consumer queue without a name of one
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "auto.offset.reset": "error",
    "check.crcs": True,
}


def reader_settings(kafka: KafkaConfig, patient: bool = False) -> dict[str, str]:
    """Quick or patient, and without a group. UserError where an option contradicts that."""
    return settings(kafka, OWN_OFFSETS, PATIENT if patient else FAST)
