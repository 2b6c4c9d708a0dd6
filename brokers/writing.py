"""What makes a write to Kafka count: settings that a producer must have, its first message alone, and where a message came to be.

A message that was reported as delivered is on the log once, in the order in which it was given, on all replicas.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from brokers.client import Noted, client_settings
from schemas.config_live import KafkaConfig

IDLE_S_MAX = 3600.0
"""A broker forgets a producer's numbers in a partition a day after its last message; long before that we take it for forgotten."""
DURABLE: Mapping[str, object] = {"enable.idempotence": True, "acks": "all"}
"""What no option of the configuration may change."""


def producer_settings(kafka: KafkaConfig, noted: Noted, *, fixed: Mapping[str, object] | None = None,
                      defaults: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The settings of a producer: `defaults` are the user's to change, `fixed` and `DURABLE` are not."""
    return client_settings(kafka, noted, {**DURABLE, **(fixed or {})}, defaults)


def offset_of(message: Any) -> int | None:
    """Where a delivered message is; None where the broker had it already and did not say where, and it is there once."""
    offset = message.offset()
    return None if offset is None or offset < 0 else int(offset)


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
