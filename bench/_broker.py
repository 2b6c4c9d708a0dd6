"""The broker of the benchmarks that need a real one, and what they run on it as a user would: `penstock` in processes of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench._harness import ROOT
from schemas.config_live import KafkaConfig
from schemas.topics import TOPICS
from sinks.kafka_admin import KafkaAdmin

BROKER = "PENSTOCK_TEST_KAFKA"
ABSENT = f"not measured: no broker is started here; name one, such as {BROKER}=127.0.0.1:9092"


class Site:
    """A folder, topics of its own on the broker, and a configuration for both."""

    def __init__(self, folder: Path, kafka: KafkaConfig, document: dict[str, Any]) -> None:
        self.folder, self.kafka = folder, kafka
        self.config = folder / "penstock.yaml"
        live = {"state_dir": str(folder / "live"), "snapshot_s": 2, **document.pop("live", {})}
        self.config.write_text(json.dumps({**document, "kafka": {"servers": kafka.servers, "prefix": kafka.prefix}, "live": live}))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A `penstock` command, running; what it says goes to a file."""
        return self.start_bare(*words, "--config", str(self.config))

    def start_bare(self, *words: str) -> subprocess.Popen[bytes]:
        """One that takes no configuration."""
        log = (self.folder / f"{words[0]}.log").open("ab")
        return subprocess.Popen([sys.executable, "-m", "cli.main", *words], cwd=self.folder, stdout=log, stderr=log,
                                env={**os.environ, "PYTHONPATH": str(ROOT)})

    def run(self, *words: str) -> Any:
        """A `penstock` command to its end; its JSON."""
        done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--config", str(self.config), "--json"], cwd=self.folder, check=False,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode:
            raise RuntimeError(f"penstock {' '.join(words)}: {done.stderr.decode()[-2000:]}")
        return json.loads(done.stdout)


@contextmanager
def site(servers: str, name: str, document: dict[str, Any], partitions: int = 2) -> Iterator[Site]:
    """Topics under a prefix of their own, deleted at the end."""
    kafka = KafkaConfig(servers, f"bench-{name}-{os.getpid()}.")
    admin = KafkaAdmin(kafka)
    admin.create({table: partitions if topic.partitions > 1 else 1 for table, topic in TOPICS.items()})
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        try:
            yield Site(Path(folder), kafka, document)
        finally:
            admin.delete(list(TOPICS))
