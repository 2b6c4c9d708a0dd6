"""One Apache Kafka broker as a child process: started on free ports of loopback, killed and started again on the same ones.

`start` returns when the broker answers. What it acknowledged survives `kill` and `restart`, since its folder stays; the
folder goes with `close`.
"""

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ROOT = Path(__file__).resolve().parents[2]
LIBS = ROOT / ".kafka" / "libs"
JAVA_MIN = 17
START_S_MAX = 120.0
STOP_S_MAX = 60.0
HEAP = "-Xmx512m"

SERVER = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.partitions=4
"""
"""Topics appear on first use with four partitions, as librdkafka's mock cluster makes them, so tests see one behaviour."""

LOGGING = """\
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m%n
"""


class BrokerError(RuntimeError):
    """The broker did not come up or go down; the text has the last lines of its log."""


def java_version() -> int:
    """The major version of the Java on the path; 0 where there is none."""
    java = shutil.which("java")
    if java is None:
        return 0
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now; each is another."""
    held = [socket.socket() for _ in range(count)]
    try:
        for s in held:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in held]
    finally:
        for s in held:
            s.close()


class Broker:
    """A broker and its folder. `servers` is its bootstrap address."""

    def __init__(self, libs: Path = LIBS) -> None:
        self.libs = libs
        if not any(libs.glob("kafka_*.jar")):
            raise BrokerError(f"no Kafka in {libs}; `make test-kafka` fetches it")
        self.port, self._controller = free_ports(2)
        self.servers = f"127.0.0.1:{self.port}"
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-kafka-"))
        self.process: subprocess.Popen[bytes] | None = None
        (self.directory / "log4j2.properties").write_text(LOGGING)
        (self.directory / "server.properties").write_text(
            SERVER.format(port=self.port, controller=self._controller, data=self.directory / "data"))
        cluster = self._java("kafka.tools.StorageTool", "random-uuid").strip().splitlines()[-1]
        self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.directory / "server.properties"))

    def start(self) -> Self:
        """Start it, and return when it answers."""
        if self.process is not None:
            raise BrokerError("the broker runs already")
        with self._log().open("ab") as log:
            self.process = subprocess.Popen(self._command("kafka.Kafka", str(self.directory / "server.properties")), stdout=log, stderr=log)
        deadline = time.monotonic() + START_S_MAX
        client: Any = AdminClient({"bootstrap.servers": self.servers, "log_level": 0, "reconnect.backoff.max.ms": 200})
        while True:
            if self.process.poll() is not None:
                raise BrokerError(f"the broker ended with {self.process.returncode} while starting:\n{self._tail()}")
            try:
                if client.list_topics(timeout=2).brokers:
                    return self
            except KafkaException:
                if time.monotonic() > deadline:
                    raise BrokerError(f"the broker did not answer within {START_S_MAX:.0f} s:\n{self._tail()}") from None

    def stop(self) -> None:
        """Let it finish what it does, and go."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self, kill: bool = False) -> Self:
        """Down and up again, on the same address with the same log."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        return self.start()

    def close(self) -> None:
        """Down for good, its folder with it; harmless when called twice."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _command(self, main: str, *words: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        return ["java", HEAP, log4j, "-cp", f"{self.libs}/*", main, *words]

    def _java(self, main: str, *words: str) -> str:
        done = subprocess.run(self._command(main, *words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"{main} {words[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def _log(self) -> Path:
        return self.directory / "log.txt"

    def _tail(self) -> str:
        return "\n".join(self._log().read_text(errors="replace").splitlines()[-20:])
