"""Where a group has come to, kept by the broker: read at the start, written after what was read has been stored elsewhere.

There is no membership, so a process that was killed is followed by the next one at once. Two that run at the same time
read the same messages twice, which must be harmless to whoever uses this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.config_live import KafkaConfig
from sources.kafka_client import CONNECT_S, connection, explained, topic_of

Place = tuple[str, int]
"""A table and a partition of its topic."""


class GroupOffsets:
    """The offsets of a group: one past the last message that is done, by table and partition."""

    def __init__(self, kafka: KafkaConfig, group: str) -> None:
        self.kafka, self.group = kafka, group
        self._told: dict[str, str] = {}
        given: dict[str, Any] = {**connection(kafka, group_id=group, enable_auto_commit="false"), "error_cb": self._note}
        self._client: Any = Consumer(given)
        self._committed: dict[Place, int] = {}

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        """What the broker has of these; a partition that was never committed is left out."""
        asked = [TopicPartition(topic_of(self.kafka, table), partition) for table, partition in places]
        try:
            found = self._client.committed(asked, timeout=CONNECT_S)
        except KafkaException as error:
            raise self._explained(error.args[0]) from None
        self._committed = {place: f.offset for place, f in zip(places, found, strict=True) if f.offset != OFFSET_INVALID}
        return dict(self._committed)

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Tell the broker; returns when it has them. Those that did not change are not sent."""
        changed = {place: offset for place, offset in offsets.items() if self._committed.get(place) != offset}
        if not changed:
            return
        told = [TopicPartition(topic_of(self.kafka, table), partition, offset) for (table, partition), offset in changed.items()]
        try:
            for answer in self._client.commit(offsets=told, asynchronous=False):
                if answer.error is not None:
                    raise self._explained(answer.error)
        except KafkaException as error:
            raise self._explained(error.args[0]) from None
        self._committed.update(changed)

    def close(self) -> None:
        """Let go of the broker."""
        self._client.close()

    def _note(self, error: KafkaError) -> None:
        self._told[error.name()] = error.str()

    def _explained(self, error: KafkaError) -> Exception:
        return explained(self.kafka, error.name(), error.str(), self._told)
