"""Quix Streams: JSON, one-minute bars per key by a tumbling window, to an output topic, with its defaults.

Defaults: at least once, commits every 5 s, state in RocksDB with a changelog topic. Timed: from the first message that the
application is given to the return of run(), which includes the last checkpoint. One run a process. Prints one JSON line.
"""

import argparse
import json
import os
import tempfile
import time
from datetime import timedelta
from importlib.metadata import version

from quixstreams import Application
from quixstreams.dataframe.windows import Count, First, Last, Max, Min, Sum

seen = {"rows": 0, "first": 0.0, "cpu": 0.0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("rows", type=int, help="it stops after so many")
    given = parser.parse_args()
    group = f"bench-quix-{os.getpid()}"

    def event_ms(value, headers, timestamp, timestamp_type):
        if not seen["first"]:
            seen["first"], seen["cpu"] = time.perf_counter(), time.process_time()
        return value["ts_event_ns"] // 1_000_000

    def done(topic, partition, offset):
        seen["rows"] += 1
        if seen["rows"] == given.rows:
            app.stop()

    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=given.servers, consumer_group=group, auto_offset_reset="earliest", state_dir=folder, loglevel="ERROR",
            on_message_processed=done,
        )
        source = app.topic(given.topic, value_deserializer="json", key_deserializer="str", timestamp_extractor=event_ms)
        window = app.dataframe(source).tumbling_window(timedelta(minutes=1))
        bars = window.agg(open=First("price"), high=Max("price"), low=Min("price"), close=Last("price"), volume=Sum("size"), trades=Count())
        bars.final().to_topic(app.topic(f"{given.topic}-{group}", value_serializer="json", key_serializer="str"))
        app.run()
        seconds, cpu = time.perf_counter() - seen["first"], time.process_time() - seen["cpu"]
    print(
        json.dumps(
            {
                "version": version("quixstreams"),
                "rows": seen["rows"],
                "seconds": round(seconds, 3),
                "rows_per_second": round(seen["rows"] / seconds),
                "cpu_seconds": round(cpu, 3),
                "work": "JSON, 1-minute bars by tumbling_window, output topic, its defaults",
            }
        )
    )


main()
