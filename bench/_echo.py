"""The bare way from a tick to an answer: a consumer that produces a message for every so many ticks, and does nothing else."""

import sys
import time
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from brokers.reading import FAST, OWN_OFFSETS

EVERY = 50
"""One answer for so many ticks; at 1,000 ticks a second that is about as many as the pipeline has orders."""


def assigned(servers: str, topic: str) -> Any:
    """A consumer of all partitions of a topic from now on, set up as ours is."""
    count = len(AdminClient({"bootstrap.servers": servers}).list_topics(topic, 10).topics[topic].partitions)
    reader = Consumer({"bootstrap.servers": servers, **OWN_OFFSETS, **FAST})
    reader.assign([TopicPartition(topic, p, -1) for p in range(count)])
    return reader


def main(servers: str, ticks: str, answers: str) -> None:
    """Answer until it is ended."""
    reader = assigned(servers, ticks)
    writer: Any = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "acks": "all", "linger.ms": 0.5})
    n = 0
    while True:
        for message in reader.consume(1000, 0) or [m for m in [reader.poll(0.05)] if m is not None]:
            if message.error() is not None:
                continue
            n += 1
            if n % EVERY == 0:
                writer.produce(answers, str(orjson.loads(message.value())["ts_event_ns"]).encode(), partition=0)
        writer.poll(0)


def watch(servers: str, answers: str, held: list[tuple[int, int]], over: Any) -> None:
    """Note when each answer came, and to a tick of which time, until `over` is set."""
    reader = assigned(servers, answers)
    while not over.is_set():
        message = reader.poll(0.05)
        if message is not None and message.error() is None:
            held.append((time.time_ns(), int(message.value())))
    reader.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
