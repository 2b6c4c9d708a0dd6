"""An executor in the process of a test, with times short enough to wait for and long enough for a busy machine."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from schemas.config_live import VenueConfig
from sinks.execute import Executor, Outcome
from sinks.execute_clock import MarketClock
from sinks.execute_log import KafkaLog
from sinks.execute_order import Pace
from sinks.venue_open import open_venue
from tests.execute_setup import Desk, Exchange

PACE = Pace(age_s_max=600.0, guard_s=0.5, recv_window_s=2.0, margin_s=0.1, poll_s_min=0.02, poll_s_max=0.1)


def executor_of(desk: Desk, exchange: Exchange | None, pace: Pace = PACE, timeout_s: float = 5.0, **more: Any) -> Executor:
    venue = None
    if exchange is not None:
        section = VenueConfig(name="fake", options={"url": exchange.url}, recv_window_s=pace.recv_window_s, timeout_s=timeout_s)
        venue = open_venue(section, False)
    return Executor(KafkaLog(desk.kafka, desk.account), venue, desk.account, MarketClock(time.time_ns), pace, **more)


def execute(desk: Desk, exchange: Exchange | None, pace: Pace = PACE, **more: Any) -> Outcome:
    """Until every order is final."""
    return asyncio.run(executor_of(desk, exchange, pace, **more).run(drain=True))


async def until(holds: Callable[[], bool], tries: int = 2_000) -> None:
    """Wait for something that another thread does."""
    for _ in range(tries):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")
