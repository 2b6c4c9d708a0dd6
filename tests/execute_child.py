"""A process that forks executors: one line of JSON in base64 on standard input each, its pid and its exit code on standard output.

An executor kills itself with -9 at the n-th time that it comes to a step.
"""

import asyncio
import base64
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from schemas.config_live import KafkaConfig, VenueConfig
from sinks.execute import Executor
from sinks.execute_clock import MarketClock
from sinks.execute_log import KafkaLog
from sinks.execute_order import Pace
from sinks.venue_open import open_venue


def run_executor(given: dict[str, Any]) -> int:
    """Until everything is final, or the kill."""
    left = {given["kill_at"]: given["kill_nth"]}

    def step(label: str) -> None:
        left[label] = left.get(label, 0) - 1
        if left[label] == 0 and label == given["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    pace = Pace(**given["pace"])
    venue = open_venue(VenueConfig(name="fake", options={"url": given["url"]}, recv_window_s=pace.recv_window_s, timeout_s=0.3), False)
    log = KafkaLog(KafkaConfig(servers=given["servers"], prefix=given["prefix"]), given["account"])
    executor = Executor(log, venue, given["account"], MarketClock(time.time_ns), pace, step=step)
    outcome = asyncio.run(executor.run(drain=True))
    return 3 if outcome.broken else 0


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = run_executor(json.loads(base64.b64decode(line)))
            finally:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
