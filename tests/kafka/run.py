"""`python tests/kafka/run.py [pytest's words]`: start a broker, run the tests that are marked `kafka` on it, stop it.

The exit code is pytest's. What failed is run once more by itself, and said to have been: a broker, the tests' processes and what else
the machine does share its processors, and some of the tests wait for one another's clocks. Where Java is missing or too old it says so, loudly, and ends with 0: the same tests have run
on librdkafka's mock cluster in `make test`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.kafka.broker import JAVA_MIN, LIBS, ROOT, Broker, java_version


def main(words: list[str]) -> int:
    """Run them."""
    version = java_version()
    if version < JAVA_MIN:
        found = f"Java {version} is here" if version else "there is no Java"
        print(f"SKIPPED, nothing was tested on a real Kafka: it needs Java {JAVA_MIN}, and {found}", file=sys.stderr)
        return 0
    if not any(LIBS.glob("kafka_*.jar")):
        print(f"SKIPPED, nothing was tested on a real Kafka: no jars in {LIBS.relative_to(ROOT)}; `make test-kafka` fetches them", file=sys.stderr)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the broker goes with us
    with Broker() as broker:
        print(f"Apache Kafka at {broker.servers}", flush=True)

        def tests(*more: str) -> int:
            return subprocess.run([sys.executable, "-m", "pytest", "-m", "kafka", *more, *words], cwd=ROOT, check=False,
                                  env={**os.environ, "PENSTOCK_TEST_KAFKA": broker.servers}).returncode

        code = tests()
        if code != 1:  # all passed, or it was not the tests that went wrong
            return code
        print("FAILED once; what failed is run again, alone", file=sys.stderr, flush=True)
        return tests("--last-failed", "--last-failed-no-failures", "none")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
