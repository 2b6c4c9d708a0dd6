"""The bare tuned loop: confluent_kafka's consume(10000), orjson.loads on every message, nothing made of it.

Timed: from assign() to the last message, the metadata asked before. Prefetch is large and a full queue is looked at every
10 ms, since librdkafka's defaults let a fast loop stand still. One run a process. Prints one JSON line.
"""

import argparse
import json
import time

import confluent_kafka
import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

BATCH = 10_000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("rows", type=int)
    given = parser.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": given.servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 262_144,
            "fetch.message.max.bytes": 4_194_304,
        }
    )
    partitions = list(consumer.list_topics(given.topic, timeout=10).topics[given.topic].partitions)
    loads, read = orjson.loads, 0
    started, used = time.perf_counter(), time.process_time()
    consumer.assign([TopicPartition(given.topic, p, OFFSET_BEGINNING) for p in partitions])
    while read < given.rows:
        messages = consumer.consume(BATCH, 0.1)
        for message in messages:
            loads(message.value())
        read += len(messages)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    consumer.close()
    print(
        json.dumps(
            {
                "version": confluent_kafka.__version__,
                "rows": read,
                "seconds": round(seconds, 3),
                "rows_per_second": round(read / seconds),
                "cpu_seconds": round(cpu, 3),
                "work": "consume(10000), orjson.loads of each message, tuned prefetch; no bars",
            }
        )
    )


main()
