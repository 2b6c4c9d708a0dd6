"""The chain under kill -9: ticks → ingest → Kafka → pipeline → Kafka → archive → ClickHouse, every process killed, the broker bounced.

`python -m tests.kafka.chain [--ticks 100000] [--kills 3] [--seed 1]` prints what was lost, doubled or different against the same
ticks undisturbed, as one JSON object; exit code 1 where anything was. It starts a broker and a warehouse of its own.
"""

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from research.parity import STAGES
from research.parity_records import KafkaRecorded
from schemas.config_live import KafkaConfig
from schemas.tables import BEATS, TRADES
from sinks.clickhouse import connect, query_arrow
from sinks.warehouse import start_embedded
from sources.kafka_tape import KafkaTape, Stretch
from sources.simulator import simulate, write_tape
from tests.kafka.broker import ROOT, Broker

SYMBOLS = 10
RESTARTS_MAX = 60
TICKS_AN_HOUR = 2_400
"""Of one simulated symbol, about."""
MADE = [spec for _, specs in STAGES for spec in specs]


class Member:
    """A process of the chain, started again whenever it is killed."""

    def __init__(self, name: str, words: list[str], folder: Path, log: Path) -> None:
        self.name, self.words, self.folder, self.log = name, words, folder, log
        self.kills = self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "cli.main", *self.words], cwd=self.folder, stdout=log, stderr=log,
                                            env={**os.environ, "PYTHONPATH": str(ROOT)})

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.kills += 1
        self.process.wait()
        self.start()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def ended(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        if self.process.wait(120) not in (0, -signal.SIGTERM):  # the latter: it was still starting
            raise SystemExit(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")


def penstock(words: list[str], folder: Path) -> Any:
    """One command to its end; its JSON."""
    done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--json"], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"penstock {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def written(kafka: KafkaConfig) -> int:
    """Trades on their topic."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition
    consumer: Any = Consumer({"bootstrap.servers": kafka.servers, "group.id": "chain-count", "log_level": 0})
    try:
        topic = kafka.prefix + TRADES.name
        parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in parts)
    except (KafkaException, KeyError):
        return 0  # the broker is being bounced
    finally:
        consumer.close()


def chain(ticks: int, kills: int, seed: int, pace: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Undisturbed and disturbed, and what differs."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="penstock-chain-"))
    tape = folder / "tape.parquet"
    write_tape(simulate(SYMBOLS, ticks / TICKS_AN_HOUR / SYMBOLS, seed), str(tape))
    running = start_embedded(folder / "warehouse")
    try:
        with Broker() as broker:
            kafkas = {name: KafkaConfig(broker.servers, f"{name}.") for name in ("calm", "rough")}
            for name in kafkas:
                (folder / f"{name}.yaml").write_text(json.dumps({
                    "kafka": {"servers": broker.servers, "prefix": f"{name}."}, "warehouse": running.url,
                    "strategies": ["rsi_mean_reversion", "momentum", "bollinger_bounce"], "live": {"snapshot_s": 2, "state_dir": str(folder / name)}}))
                penstock(["topics", "create", "--config", f"{name}.yaml", "--partitions", "trades=4", "--partitions", "beats=4"], folder)
                penstock(["control", "enable", "--config", f"{name}.yaml"], folder)
            say("undisturbed …")
            begun = time.monotonic()
            counted = penstock(["ingest", "--file", str(tape), "--pace", "max", "--codec", "json", "--config", "calm.yaml"], folder)
            penstock(["run", "paper", "--run", "calm", "--once", "--config", "calm.yaml"], folder)
            calm_s = time.monotonic() - begun
            total = counted["rows"]["trades"]
            say(f"{total:,} ticks undisturbed in {calm_s:.0f} s; now with kills …")
            members = _rough(folder, tape, kafkas["rough"], total, kills, rng, broker, pace, say)
            return {"ticks": total, "kills": {m.name: m.kills for m in members},
                    "restarts": {m.name: m.restarts for m in members}, "broker_bounces": 1,
                    **_compared(folder, kafkas, running.url, total, counted["rows"]["beats"])}
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _rough(folder: Path, tape: Path, kafka: KafkaConfig, total: int, kills: int, rng: random.Random, broker: Broker, pace: float,
           say: Callable[[str], None]) -> list[Member]:
    members = [
        Member("ingest", ["ingest", "--file", str(tape), "--pace", f"{pace:g}x", "--config", "rough.yaml"], folder, folder / "ingest.log"),
        Member("pipeline", ["run", "paper", "--run", "rough", "--config", "rough.yaml"], folder, folder / "pipeline.log"),
        Member("archive", ["archive", "--config", "rough.yaml"], folder, folder / "archive.log"),
    ]
    plan = sorted([(rng.uniform(0.2, 0.95), m) for m in members for _ in range(kills)], key=lambda x: x[0])
    bounce = rng.uniform(0.4, 0.6)
    for m in members:
        m.start()
        atexit.register(m.end)
    while members[0].ended() is None or plan:
        share = written(kafka) / total
        if bounce and share >= bounce:
            bounce = 0.0
            say(f"{share:.0%}: broker killed and started again")
            broker.restart(kill=True)
        while plan and (share >= plan[0][0] or members[0].ended() == 0):
            _, m = plan.pop(0)
            say(f"{share:.0%}: kill -9 {m.name}")
            m.kill()
            time.sleep(rng.uniform(0.5, 3.0))
        for m in members:
            if m.ended() == 1 and m.restarts < RESTARTS_MAX:  # it came up while the broker was down: whoever supervises it starts it again
                m.restarts += 1
                time.sleep(1.0)
                m.start()
            elif m.ended() not in (None, 0):
                raise SystemExit(f"{m.name} ended by itself with {m.ended()}:\n{m.log.read_text()[-3000:]}")
        time.sleep(0.1)
    if bounce:
        broker.restart(kill=True)
    say("draining …")
    for m in members[1:]:
        m.stop()
    penstock(["run", "paper", "--run", "rough", "--once", "--config", "rough.yaml"], folder)
    penstock(["archive", "--once", "--config", "rough.yaml"], folder)
    return members


def _compared(folder: Path, kafkas: dict[str, KafkaConfig], url: str, total: int, beats: int) -> dict[str, Any]:
    tapes = {name: KafkaTape(kafka, Stretch(kafka.servers, ("trades", "beats"), "seen")) for name, kafka in kafkas.items()}
    on_topic = sum(len(f.rows(TRADES)) for f in tapes["rough"].frames(1 << 20))
    beats_there = sum(len(f.rows(BEATS)) for f in tapes["rough"].frames(1 << 20))
    differing, made = [], {}
    records = {name: KafkaRecorded(kafka, name) for name, kafka in kafkas.items()}
    symbols = records["calm"].symbols(tapes["calm"].symbols)
    strategies = ("rsi_mean_reversion", "momentum", "bollinger_bounce")
    client = connect(url, "penstock")
    lost = doubled = 0
    for spec in (*MADE, TRADES, BEATS):
        if spec in (TRADES, BEATS):
            expected, run = (total if spec is TRADES else beats), "market"
        else:
            one, two = ({bytes(r.tobytes()) for r in records[name].rows(spec, symbols, strategies)} for name in ("calm", "rough"))
            if one != two:
                differing.append(f"{spec.name}: {len(one - two)} only undisturbed, {len(two - one)} only disturbed")
            expected, run = len(one), "rough"
        key = ", ".join(f"`{k}`" for k in spec.key)
        where = f"SELECT count() AS n, uniqExact({key}) AS k FROM {spec.name} FINAL WHERE run_id = '{run}'"
        row = query_arrow(client, where).to_pylist()[0]
        lost, doubled = lost + max(0, expected - int(row["k"])), doubled + int(row["n"]) - int(row["k"])
        made[spec.name] = int(row["n"])
    client.close()
    parity = penstock(["parity", "rough", "--config", "rough.yaml"], folder)
    return {"ticks_on_topic": on_topic, "beats_on_topic": beats_there, "ticks_lost": total - len_unique(tapes["rough"], total),
            "ticks_doubled": on_topic - len_unique(tapes["rough"], total), "warehouse_rows": made, "warehouse_lost": lost,
            "warehouse_doubled_after_final": doubled, "tables_that_differ": differing, "parity_ok": parity["ok"],
            "parity": parity["difference"]}


def len_unique(tape: KafkaTape, total: int) -> int:
    """Different trades on the topic: by symbol, time and trade id."""
    seen: set[bytes] = set()
    for frame in tape.frames(1 << 20):
        rows = frame.rows(TRADES)
        seen |= {r.tobytes() for r in rows[["ts_event_ns", "symbol", "price", "size", "trade_id"]]}
    return min(len(seen), total)


def main() -> int:
    """Run it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=3, help="of each process, after 20 %% of the ticks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=90.0, help="times real time")
    given = parser.parse_args()
    result = chain(given.ticks, given.kills, given.seed, given.pace, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(result))
    return 0 if sound(result) else 1


def sound(result: dict[str, Any]) -> bool:
    """Nothing lost, nothing doubled, nothing different."""
    zeros = ("ticks_lost", "ticks_doubled", "warehouse_lost", "warehouse_doubled_after_final")
    return all(result[name] == 0 for name in zeros) and not result["tables_that_differ"] and bool(result["parity_ok"])



if __name__ == "__main__":
    sys.exit(main())
