"""The exchange's clock, as far as this machine can tell: its own clock plus a measured offset, never going back.

The offset is taken from the answer with the shortest round trip, at half of it. `passed_ns` is the time of which it may be
said that everything that happened before has arrived: what a heartbeat carries.
"""

import time
from collections.abc import Callable
from typing import Any

from schemas.errors import PenstockError
from sources.exchange_rate import Lag
from telemetry import metrics

SAMPLES = 3


class ExchangeClock:
    """One exchange's clock."""

    def __init__(self, name: str, offset_s_max: float, wall_ns: Callable[[], int] = time.time_ns,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.offset_s, self.lag = name, 0.0, Lag()
        self._max_s, self._wall_ns, self._clock = offset_s_max, wall_ns, clock
        self._highest_ns = 0

    async def measure(self, exchange: Any) -> None:
        """Ask for the exchange's time; PenstockError where this machine's differs by too much."""
        if not exchange.has.get("fetchTime"):
            return
        best: tuple[float, float] | None = None
        for _ in range(SAMPLES):
            before_s, began = self._wall_ns() / 1e9, self._clock()
            told_ms = await exchange.fetch_time()
            trip_s = self._clock() - began
            if told_ms and (best is None or trip_s < best[0]):
                best = trip_s, told_ms / 1e3 - (before_s + trip_s / 2)
        if best is None:
            return
        trip_s, offset_s = best
        metrics.CLOCK_OFFSET_SECONDS.labels(exchange=self.name).set(offset_s)
        if abs(offset_s) > self._max_s + trip_s / 2:
            raise PenstockError(
                f"this machine's clock is {abs(offset_s):.2f} s {'behind' if offset_s > 0 else 'ahead of'} that of {self.name}, more than "
                f"clock_offset_s_max ({self._max_s:g} s); set it, for example with chrony or systemd-timesyncd")
        self.offset_s = offset_s

    def now_ns(self) -> int:
        """The exchange's time now, by this machine's clock and the measured offset."""
        return self._wall_ns() + round(self.offset_s * 1e9)

    def arrived(self, ts_ns: int) -> None:
        """A live event of that time came: how late it was."""
        self._highest_ns = max(self._highest_ns, ts_ns)
        self.lag.see((self.now_ns() - ts_ns) / 1e9, self._clock())

    def passed_ns(self) -> int:
        """Everything before this has arrived, as far as the usual delay tells."""
        return self.now_ns() - round(self.lag.s * 1e9)

    def quoted_ns(self) -> int:
        """The time of a quote that carries none: the latest that the exchange showed, or what has surely passed."""
        return max(self._highest_ns, self.passed_ns())
