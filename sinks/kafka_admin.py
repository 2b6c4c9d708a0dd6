"""Topics on a broker: make them as the table of topics says, compare those that are there, count what they hold.

Nothing is changed that would move a symbol's rows to another partition or delete a record: a topic with other partitions
than wanted is an error, a finite retention on history is reported and mended only when asked.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from brokers.client import CONNECT_S_MAX, PASSING, Noted, client_settings, connected, explained, opened
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError, unknown
from schemas.topics import FOR_EVER, TOPICS, Topic

REQUEST_S_MAX = 15.0
IN_SYNC_MIN = 2
"""Replicas that must have a message before it counts, where there are three or more."""


@dataclass(frozen=True)
class PartitionState:
    """first: the first offset that is there. end: one past the last."""

    partition: int
    first: int
    end: int
    leader: int
    replicas: int

    @property
    def messages(self) -> int:
        return self.end - self.first


@dataclass(frozen=True)
class TopicState:
    """A topic as it is on the broker. settings: those that `wanted_settings` names; empty where the broker does not tell."""

    topic: Topic
    name: str
    partitions: tuple[PartitionState, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return bool(self.partitions)

    @property
    def messages(self) -> int:
        """Offsets between the first and the end; what transactions or compaction took is counted."""
        return sum(p.messages for p in self.partitions)

    def differences(self) -> list[str]:
        """Where its settings are not what the table of topics says."""
        wanted = wanted_settings(self.topic)
        return [f"{key} is {self.settings[key]}, wanted {value}" for key, value in wanted.items()
                if key in self.settings and self.settings[key] != value]


def wanted_settings(topic: Topic) -> dict[str, str]:
    """The settings of a topic that Penstock cares about."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(topic.retention_ms),
        "retention.bytes": "-1",
        # a producer that stamps its messages with event times must not have them deleted, or kept, by that time
        "message.timestamp.type": "CreateTime" if topic.retention_ms == FOR_EVER else "LogAppendTime",
    }


class KafkaAdmin:
    """A connection for looking at topics and making them. PenstockError where the broker does not answer."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self.kafka = kafka
        self._noted = Noted()
        self._client: Any = opened(AdminClient, kafka, client_settings(kafka, self._noted))
        connected(self._client, kafka, self._noted)

    def states(self, tables: Iterable[str] | None = None, settings: bool = True) -> list[TopicState]:
        """Every topic of these tables (all of them), there or not."""
        found = self._metadata().topics
        wanted = [TOPICS[table] for table in (TOPICS if tables is None else tables)]
        names = {topic.named(self.kafka.prefix): topic for topic in wanted}
        there = [name for name in names if name in found and found[name].error is None]
        bounds = self._bounds({name: list(found[name].partitions) for name in there})
        told = self._settings(there) if settings else {}
        made = []
        for name, topic in names.items():
            partitions = tuple(
                PartitionState(p.id, *bounds.get((name, p.id), (0, 0)), p.leader, len(p.replicas))
                for p in sorted(found[name].partitions.values(), key=lambda p: p.id)
            ) if name in there else ()  # fmt: skip
            made.append(TopicState(topic, name, partitions, told.get(name, {})))
        return made

    def create(self, partitions: Mapping[str, int] | None = None, replication: int = 1, update: bool = False) -> dict[str, list[str]]:
        """Make every topic that is missing; {"created", "existing", "updated", "differences"}, each a list of sentences or names.

        UserError, and nothing made, where one is there with another number of partitions. `update`: set the settings of those
        that are there to what the table says.
        """
        given = dict(partitions or {})
        for table, count in given.items():
            if table not in TOPICS:
                raise unknown("topic", table, TOPICS)
            if count < 1:
                raise UserError(f"--partitions {table}={count}: a topic has at least one partition")
        if replication < 1:
            raise UserError(f"--replication {replication}: a topic has at least one replica")
        brokers = len(self._metadata().brokers)
        if replication > brokers:
            raise UserError(f"--replication {replication}: the cluster has {brokers} broker{'s' if brokers > 1 else ''}")
        states = self.states()
        wrong = [_wrong_count(s, given.get(s.topic.table.name, s.topic.partitions), s.topic.table.name in given)
                 for s in states if s.exists and len(s.partitions) != given.get(s.topic.table.name, s.topic.partitions)]
        if wrong:
            raise UserError("; ".join(wrong))
        missing = [s for s in states if not s.exists]
        self._make([
            NewTopic(s.name, given.get(s.topic.table.name, s.topic.partitions), replication, config={
                **wanted_settings(s.topic), **({"min.insync.replicas": str(IN_SYNC_MIN)} if replication > IN_SYNC_MIN else {}),
            }) for s in missing
        ])  # fmt: skip
        differing = [s for s in states if s.exists and s.differences()]
        if update:
            self._update(differing)
        return {
            "created": [s.name for s in missing],
            "existing": [s.name for s in states if s.exists],
            "updated": [s.name for s in differing] if update else [],
            "differences": [] if update else [f"{s.name}: {said}" for s in differing for said in s.differences()],
        }

    def delete(self, tables: Sequence[str]) -> None:
        """Delete the topics of these tables, with all that they hold. For tests and rehearsals: no command calls this."""
        names = [TOPICS[table].named(self.kafka.prefix) for table in tables]
        self._results(self._client.delete_topics(names, request_timeout=REQUEST_S_MAX))

    def _metadata(self) -> Any:
        try:
            return self._client.list_topics(timeout=CONNECT_S_MAX)
        except KafkaException as error:
            self._client.poll(0)
            raise explained(self.kafka, error, self._noted) from None

    def _bounds(self, partitions: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """(first, end) of every partition."""
        asked = [TopicPartition(name, p) for name, found in partitions.items() for p in found]
        firsts, ends = self._offsets(asked, OffsetSpec.earliest()), self._offsets(asked, OffsetSpec.latest())
        return {key: (first, ends[key]) for key, first in firsts.items()}

    def _offsets(self, asked: Sequence[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        """One offset of every partition; asked again for a while where a partition is just being given its leader."""
        made: dict[tuple[str, int], int] = {}
        deadline = time.monotonic() + REQUEST_S_MAX
        waiting = list(asked)
        while waiting:
            again = []
            for place, answer in self._client.list_offsets(dict.fromkeys(waiting, spec), request_timeout=REQUEST_S_MAX).items():
                try:
                    made[place.topic, place.partition] = answer.result().offset
                except KafkaException as error:
                    if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                        raise explained(self.kafka, error, self._noted) from None
                    again.append(TopicPartition(place.topic, place.partition))
            waiting = again
            if waiting:
                time.sleep(0.1)
                self._metadata()
        return made

    def _settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """What the broker says of its topics' settings; nothing where it does not answer such questions."""
        if not names:
            return {}
        asked = self._client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=REQUEST_S_MAX)
        told: dict[str, dict[str, str]] = {}
        for resource, answer in asked.items():
            try:
                entries = answer.result()
            except KafkaException as error:
                if error.args[0].code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._TIMED_OUT):
                    continue
                raise explained(self.kafka, error, self._noted) from None
            told[resource.name] = {key: entry.value for key, entry in entries.items()}
        return told

    def _make(self, topics: Sequence[NewTopic]) -> None:
        if not topics:
            return
        for name, answer in self._client.create_topics(list(topics), request_timeout=REQUEST_S_MAX).items():
            try:
                answer.result()
            except KafkaException as error:
                # another process made it at the same time: as wanted, or the next call says in what it differs
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise PenstockError(f"topic {name} could not be made: {explained(self.kafka, error, self._noted)}") from None
        # made means that every partition answers: a client that came at once would be told that it has no leader
        self._bounds({topic.topic: range(topic.num_partitions) for topic in topics})

    def _update(self, states: Sequence[TopicState]) -> None:
        for state in states:
            entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                       for key, value in wanted_settings(state.topic).items()]
            asked = [ConfigResource(ResourceType.TOPIC, state.name, incremental_configs=entries)]
            self._results(self._client.incremental_alter_configs(asked, request_timeout=REQUEST_S_MAX))

    def _results(self, answers: Mapping[Any, Any]) -> None:
        for answer in answers.values():
            self._result(answer)

    def _result(self, answer: Any) -> Any:
        try:
            return answer.result()
        except KafkaException as error:
            raise explained(self.kafka, error, self._noted) from None


def _wrong_count(state: TopicState, wanted: int, asked: bool) -> str:
    """What is the matter with a topic of another number of partitions, and the ways out."""
    have, table = len(state.partitions), state.topic.table.name
    shown = f"topic {state.name} has {have} partition{'s' if have > 1 else ''}, {wanted} wanted"
    if state.messages:
        held = f"it holds {state.messages:,} messages, those of a {state.topic.key} in partition hash({state.topic.key}) mod {have}"
        why = "another number would put what follows elsewhere, and partitions cannot be taken away"
    else:
        held, why = "it is empty", "partitions cannot be taken away, and a running process has counted them"
    keep = "leave out --partitions for it" if asked and have == state.topic.partitions else f"keep it with --partitions {table}={have}"
    return f"{shown}: {held}; {why}: {keep}, or delete the topic"
