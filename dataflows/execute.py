"""The execute flow: the approved topic of an account → a venue → its reports topic, as a process of its own.

It is wiring: what it does with each order is in `sinks/execute_order.py`. It is not a Bytewax flow, since its state is the log
and the venue, and an order must not wait for an epoch.
"""

import asyncio
import signal
import time
from collections.abc import Callable

from schemas.config_live import KafkaConfig, VenueConfig
from sinks.execute import Executor, Outcome
from sinks.execute_chain import Approval
from sinks.execute_clock import MarketClock
from sinks.execute_log import KafkaLog
from sinks.execute_order import Pace
from sinks.venue_open import open_venue

GUARD_S = 1.0


def pace_of(venue: VenueConfig) -> Pace:
    """The times of an executor, from the configuration."""
    return Pace(age_s_max=venue.age_s_max, guard_s=min(GUARD_S, venue.recv_window_s), recv_window_s=venue.recv_window_s,
                margin_s=venue.margin_s)


def execute(kafka: KafkaConfig, venue: VenueConfig, account: str, *, live: bool = False, dry_run: bool = False, drain: bool = False,
            skip: frozenset[int] = frozenset(), told: Callable[[Approval, str], None] = lambda approval, what: None) -> Outcome:
    """Run until SIGTERM or Ctrl-C, or, with `drain`, until every order on the log is final. Secrets are already filled in."""
    executor = Executor(
        KafkaLog(kafka, account), None if dry_run else open_venue(venue, live), account, MarketClock(time.time_ns), pace_of(venue),
        skip=skip, told=told,
    )  # fmt: skip

    async def run() -> Outcome:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, executor.stop)
        return await executor.run(drain)

    return asyncio.run(run())
