"""Where a group has come to, kept by the broker: read at the start, written after what was read has been stored elsewhere.

There is no membership, so a process that was killed is followed by the next one at once. Two that run at the same time
read the same messages twice, which must be harmless to whoever uses this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from brokers.client import CONNECT_S_MAX, Noted, client_settings, explained, opened, patiently
from schemas.config_live import KafkaConfig
from schemas.topics import TOPICS

Place = tuple[str, int]
"""A table and a partition of its topic."""


class GroupOffsets:
    """The offsets of a group: one past the last message that is done, by table and partition."""

    def __init__(self, kafka: KafkaConfig, group: str) -> None:
        self.kafka, self.group = kafka, group
        self._noted = Noted()
        self._client: Any = opened(
            Consumer, kafka, client_settings(kafka, self._noted, {"group.id": group, "enable.auto.commit": False}))
        self._committed: dict[Place, int] = {}

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        """What the broker has of these; a partition that was never committed is left out."""
        asked = [self._at(place) for place in places]
        try:
            found = patiently(lambda: self._client.committed(asked, timeout=CONNECT_S_MAX))
        except KafkaException as error:
            raise explained(self.kafka, error, self._noted) from None
        self._committed = {place: f.offset for place, f in zip(places, found, strict=True) if f.offset != OFFSET_INVALID}
        return dict(self._committed)

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Tell the broker; returns when it has them. Those that did not change are not sent."""
        changed = {place: offset for place, offset in offsets.items() if self._committed.get(place) != offset}
        if not changed:
            return
        told = [self._at(place, offset) for place, offset in changed.items()]

        def commit() -> None:
            for answer in self._client.commit(offsets=told, asynchronous=False):
                if answer.error is not None:
                    raise KafkaException(answer.error)

        try:
            patiently(commit)
        except KafkaException as error:
            raise explained(self.kafka, error, self._noted) from None
        self._committed.update(changed)

    def close(self) -> None:
        """Let go of the broker."""
        self._client.close()

    def _at(self, place: Place, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(TOPICS[place[0]].named(self.kafka.prefix), place[1], offset)
