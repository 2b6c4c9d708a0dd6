"""Runs of the live pipeline for tests: a simulated market onto topics, and the pipeline over it in this process."""

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from dataflows.ingest import ingest_tape
from operators.assembly import Plan
from research.replaying import make_plan, warm_up
from research.running import Running
from schemas.config import Config
from schemas.config_live import KafkaConfig, LiveConfig
from schemas.frame import Frame
from schemas.tables_desk import CONTROL
from schemas.topics import TOPICS
from sinks.kafka import KafkaSink
from sinks.kafka_admin import KafkaAdmin
from sources.simulator import simulate

STRATEGIES = ("rsi_mean_reversion", "momentum")
"""Both trade within an hour of the simulated market."""


@cache
def market(symbols: int = 3, hours: float = 1.0, seed: int = 7) -> Any:
    return simulate(symbols, hours, seed)


def plan_for(kafka: KafkaConfig | None, state: Path, live: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a test's run, compiled."""
    config = Config(kafka=kafka, live=LiveConfig(state_dir=str(state), **{"snapshot_s": 0.2, **(live or {})}))
    made = make_plan(config, STRATEGIES)
    warm_up(made)
    return made


def command(kafka: KafkaConfig, code: int = 0, ts: int = 0) -> None:
    """A control record on its topic."""
    rows = CONTROL.empty(1)
    rows["ts_event_ns"], rows["seq"], rows["symbol"], rows["command"] = ts, -1, -1, code
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(CONTROL, rows)


def ingest(kafka: KafkaConfig, source: Any = None, **options: Any) -> dict[str, Any]:
    """A market onto the topics, and the record that enables trading before it."""
    return ingest_tape(market() if source is None else source, kafka, "test", **options)


def ready(kafka: KafkaConfig, partitions: int = 4) -> None:
    """Topics as a test wants them: few partitions, so that the broker has little to do. The mock makes its own on first use."""
    if os.environ.get("PENSTOCK_TEST_KAFKA"):
        KafkaAdmin(kafka).create({name: partitions if topic.partitions > 1 else 1 for name, topic in TOPICS.items()})
        return
    client: Any = Producer({"bootstrap.servers": kafka.servers})
    for topic in TOPICS.values():
        client.list_topics(topic.named(kafka.prefix), timeout=10)


def run(made: Plan, name: str = "r", *, workers: int = 1, stop_after: int | None = None, **options: Any) -> list[Frame]:
    """Run it to the topics' end, or stop it in good order after so many frames; the frames that left."""
    stop = threading.Event()
    left: list[Frame] = []

    def seen(frame: Frame) -> None:
        left.append(frame)
        if stop_after is not None and len(left) >= stop_after:
            stop.set()

    follow: Callable[[Frame], None] = seen
    Running(made, name, once=True, workers=workers, stop=stop, seen=follow, **options).go()
    return left
