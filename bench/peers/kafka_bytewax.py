"""Bytewax with its own connector: KafkaSource, orjson, one-minute bars by stateful_map, a sink that counts.

Timed: from the first message that the dataflow is given to the last write to the sink or the last message decoded,
whichever is later; the set-up of consumers is not. One worker, no recovery. One run a process. Prints one JSON line.
"""

import argparse
import json
import time
from importlib.metadata import version

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

MINUTE_NS = 60 * 10**9
seen = {"rows": 0, "first": 0.0, "cpu": 0.0, "last": 0.0, "bars": 0}


class Counting(StatelessSinkPartition):
    def write_batch(self, items):
        seen["bars"] += len(items)
        seen["last"] = time.perf_counter()


class Sink(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Counting()


def decode(message):
    if not seen["rows"]:
        seen["first"], seen["cpu"] = time.perf_counter(), time.process_time()
    seen["rows"] += 1
    seen["last"] = time.perf_counter()
    trade = orjson.loads(message.value)
    return trade["symbol"], trade


def bar(state, trade):
    """State: minute, open, high, low, close, volume. The closed bar comes out, or None."""
    minute, price = trade["ts_event_ns"] // MINUTE_NS, trade["price"]
    if state is None or minute != state[0]:
        return [minute, price, price, price, price, trade["size"]], None if state is None else tuple(state)
    if price > state[2]:
        state[2] = price
    if price < state[3]:
        state[3] = price
    state[4] = price
    state[5] += trade["size"]
    return state, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("rows", type=int)
    given = parser.parse_args()
    flow = Dataflow("peer")
    tuned = {"fetch.queue.backoff.ms": "10", "queued.min.messages": "1000000"}
    stream = op.input("in", flow, KafkaSource([given.servers], [given.topic], tail=False, batch_size=1000, add_config=tuned))
    stream = op.stateful_map("bars", op.map("decode", stream, decode), bar)
    op.output("out", op.filter_map("closed", stream, lambda item: item if item[1] is not None else None), Sink())
    run_main(flow)
    seconds, cpu = seen["last"] - seen["first"], time.process_time() - seen["cpu"]
    if seen["rows"] != given.rows:
        raise SystemExit(f"it read {seen['rows']} of {given.rows} messages")
    print(
        json.dumps(
            {
                "version": version("bytewax"),
                "rows": seen["rows"],
                "seconds": round(seconds, 3),
                "rows_per_second": round(seen["rows"] / seconds),
                "cpu_seconds": round(cpu, 3),
                "work": "KafkaSource, orjson, 1-minute bars by stateful_map, one worker",
                "bars": seen["bars"],
            }
        )
    )


main()
