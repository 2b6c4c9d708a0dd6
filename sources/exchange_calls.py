"""Every HTTP request to one exchange goes through here: one budget, one timeout, and silence while a ban lasts.

A 429 or 418 bans the whole process from that exchange until the time that it names; nothing is sent before. Who waits for
an answer gets `Banned` at once, with the time at which to come back.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.errors import PenstockError
from telemetry import logs

BAN_S, BAN_S_MAX = 10.0, 3_600.0
"""Where an exchange bans without saying for how long: at first, and at most; it doubles in between."""
log = logs.get("ingest")


class Banned(PenstockError):
    """The exchange wants no requests until `until_s`, by the monotonic clock."""

    def __init__(self, name: str, until_s: float, text: str) -> None:
        super().__init__(f"{name} wants no requests until {text}")
        self.until_s = until_s


class Backoff:
    """Waits that double from `first_s` to `most_s`, each with jitter: between half and all of it."""

    def __init__(self, first_s: float = 0.5, most_s: float = 60.0) -> None:
        self._first_s, self._most_s, self._tries = first_s, most_s, 0
        self._chance = random.Random()

    def next_s(self) -> float:
        whole = min(self._most_s, self._first_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return whole * (0.5 + self._chance.random() / 2)

    def reset(self) -> None:
        self._tries = 0


class Calls:
    """The budget of one exchange, shared by all its sessions in this process."""

    def __init__(self, name: str, per_minute: float, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.timeout_s = name, timeout_s
        self.requests = 0
        self._per_s = per_minute / 60.0
        self._burst = max(1.0, min(per_minute / 6.0, 50.0))
        self._tokens, self._at_s = self._burst, clock()
        self._clock = clock
        self._until_s = 0.0
        self._bans = 0

    def guard(self, exchange: Any) -> None:
        """Puts the budget under a ccxt exchange: all its HTTP, its own retries and snapshots too."""
        fetch, seen = exchange.fetch, exchange.on_rest_response

        async def guarded(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            await self._admit()
            return await asyncio.wait_for(fetch(url, method, headers, body), self.timeout_s)

        def noted(code: int, reason: str, url: str, method: str, response_headers: Mapping[str, str], *rest: Any) -> Any:
            self._note(code, response_headers)
            return seen(code, reason, url, method, response_headers, *rest)

        exchange.fetch, exchange.on_rest_response = guarded, noted
        exchange.timeout = int(self.timeout_s * 1000)

    @property
    def banned_s(self) -> float:
        """Seconds that a ban still lasts, 0 for none."""
        return max(0.0, self._until_s - self._clock())

    async def clear(self) -> None:
        """Return when no ban is in force."""
        while self.banned_s > 0:
            await asyncio.sleep(self.banned_s)

    async def _admit(self) -> None:
        if self.banned_s > 0:
            raise Banned(self.name, self._until_s, self._until())
        while True:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._per_s)
            self._at_s = now
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                self.requests += 1
                return
            await asyncio.sleep((1.0 - self._tokens) / self._per_s)
            if self.banned_s > 0:
                raise Banned(self.name, self._until_s, self._until())

    def _note(self, code: int, headers: Mapping[str, str]) -> None:
        if code not in (418, 429):
            if code < 400:
                self._bans = 0
            return
        told = next((value for key, value in headers.items() if key.lower() == "retry-after"), "")
        wait_s = float(told) if told.replace(".", "", 1).isdigit() else min(BAN_S_MAX, BAN_S * 2.0 ** min(self._bans, 20))
        self._bans += 1
        self._until_s = max(self._until_s, self._clock() + wait_s)
        log.warning("the exchange wants no requests for a while", exchange=self.name, status=code, until=self._until())

    def _until(self) -> str:
        at = datetime.fromtimestamp(time.time() + self.banned_s, UTC)
        return at.isoformat(timespec="seconds").replace("+00:00", "Z")
