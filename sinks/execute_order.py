"""The life of one order on its way to a venue: ask, claim, send, settle, follow; each change is a report on the log.

Exactly one order per intent comes of three rules. A claim is on the log before a request goes out. Nothing is sent while an earlier
request of the same order, anyone's, may still arrive. And where there is doubt, the venue is asked until it knows
the order or that time is over.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from schemas.tables_live import R_CANCELLED, R_EXPIRED, R_REJECTED, R_UNKNOWN
from sinks.execute_clock import MarketClock
from sinks.execute_orders import Order
from sinks.venue import NotTaken, Refused, Seen, Unanswered, Unreachable, Venue
from telemetry import logs, metrics

log = logs.get("execute")
Step = Callable[[str], None]
REFUSALS_KEPT = 50


@dataclass(frozen=True)
class Pace:
    """Times, in seconds. age_s_max: an older order is not sent. window_s: how long after its claim a request may be signed, and then
    how long the venue takes it. margin_s: clocks differ, and an order may be invisible at first. poll_s_min, poll_s_max: between
    questions. requests_max: at the venue at once."""

    age_s_max: float = 5.0
    guard_s: float = 1.0
    recv_window_s: float = 5.0
    margin_s: float = 1.0
    poll_s_min: float = 0.1
    poll_s_max: float = 5.0
    requests_max: int = 8

    @property
    def doubt_s(self) -> float:
        """How long after its claim a request may make an order appear."""
        return self.guard_s + self.recv_window_s + self.margin_s


@dataclass
class Counts:
    """What was done since the start, for the final line. approvals: records, `cancels` of them asked to cancel."""

    approvals: int = 0
    cancels: int = 0
    duplicates: int = 0
    sent: int = 0
    resent: int = 0
    filled: int = 0
    cancelled: int = 0
    rejected: int = 0
    expired: int = 0
    doubted: int = 0
    reports: int = 0
    refusals: dict[str, int] = field(default_factory=dict)


class Courier:
    """Takes orders through their lives. report, claim: write to the log; claim is False where another process claimed the order first.
    stopping: set where the process is to end."""

    def __init__(self, venue: Venue, clock: MarketClock, pace: Pace, counts: Counts, step: Step, stopping: asyncio.Event,
                 report: Callable[[Order, int, Seen], Awaitable[None]], claim: Callable[[Order], Awaitable[bool]]) -> None:
        self.venue, self.clock, self.pace, self.counts, self.step, self.stopping = venue, clock, pace, counts, step, stopping
        self.report, self.claim = report, claim
        self._requests = asyncio.Semaphore(pace.requests_max)

    async def carry(self, order: Order, recovered: bool) -> None:
        """From wherever it is to its end, or to the end of the process. recovered: someone may have had it before."""
        seen = await self._settle(order) if recovered or order.claimed_ns else None
        while seen is None and not order.final and not self.stopping.is_set():
            if order.cancel:
                await self.report(order, R_CANCELLED, order.seen)  # nothing of it is, or will be, at the venue
                return
            if self.clock.age_s(int(order.row["ts_event_ns"]), order.written_ms) > self.pace.age_s_max:
                await self._expire(order)
                return
            if not await self.claim(order):
                seen = await self._settle(order)
                continue
            if order.cancel:
                order.claimed_ns = 0  # the claim was ours and nothing was sent on it
                continue
            try:
                seen = await self._send(order)
            except Refused as refused:
                await self._reject(order, refused)
                return
            except NotTaken as error:
                log.warning("not taken", order=order.client_id, said=str(error), retry_s=error.retry_s)
                await pause(self.stopping, max(error.retry_s, self.pace.poll_s_min))
                order.claimed_ns = 0  # certainly no order came of it
            except Unanswered as error:
                log.warning("no answer, asking by id", order=order.client_id, said=str(error))
                seen = await self._doubt(order)
        if seen is not None:
            await self._follow(order, seen)

    async def _send(self, order: Order) -> Seen:
        """One request. Not after its time: whoever reads the claim knows until when the order may appear."""
        age_s = self.clock.age_s(int(order.row["ts_event_ns"]), order.written_ms)
        not_after_ns = order.claimed_ns + int(max(0.0, min(self.pace.guard_s, self.pace.age_s_max - age_s)) * 1e9)
        if order.report_no > 1:  # the claim that was just made is not the first report: there was a request before
            self.counts.resent += 1
        else:
            self.counts.sent += 1
            metrics.ORDERS_SENT.inc()
            metrics.ORDER_AGE_SECONDS.observe(max(0.0, age_s))
        async with self._requests:
            self.step("before_send")
            seen = await self.venue.send(order.intent(), not_after_ns)
        self.step("answered")
        return seen

    async def _doubt(self, order: Order) -> Seen | None:
        self.counts.doubted += 1
        await self.report(order, R_UNKNOWN, order.seen)
        return await self._settle(order)

    async def _settle(self, order: Order) -> Seen | None:
        """Ask until the venue knows the order; None once no request of it can arrive any more, or at the end of the process."""
        with metrics.ORDERS_UNKNOWN.track_inprogress():
            return await self._asked_until_certain(order)

    async def _asked_until_certain(self, order: Order) -> Seen | None:
        pause_s = self.pace.poll_s_min
        while not self.stopping.is_set():
            asked_ns = self.clock.wall_ns()
            try:
                async with self._requests:
                    seen = await self.venue.ask(order.intent())
            except Unreachable as error:
                log.warning("cannot ask", order=order.client_id, said=str(error))
                await pause(self.stopping, max(error.retry_s, pause_s))
            else:
                self.step("asked")
                if seen is not None:
                    return seen
                over_ns = order.claimed_ns + int(self.pace.doubt_s * 1e9) if order.claimed_ns else 0
                if asked_ns >= over_ns and not order.was_at_venue:
                    order.claimed_ns = 0
                    return None
                if order.was_at_venue:
                    log.error("the venue does not know an order that it had; it is not sent again", order=order.client_id)
                    pause_s = self.pace.poll_s_max
                await self._rest(order, min(pause_s, max((over_ns - self.clock.wall_ns()) / 1e9, self.pace.poll_s_min)))
            pause_s = min(2 * pause_s, self.pace.poll_s_max)
        return None

    async def _follow(self, order: Order, seen: Seen) -> None:
        """Report what the venue has until it cannot change any more."""
        pause_s = self.pace.poll_s_min
        while not order.final:
            if seen.filled < order.seen.filled:
                log.warning("the venue shows less filled than before; waiting", order=order.client_id, filled=seen.filled)
            elif replace(seen, maker=False) != replace(order.seen, maker=False):
                await self.report(order, seen.state, seen)
                pause_s = self.pace.poll_s_min
                if seen.final:
                    self.step("followed")
                    return
            await self._rest(order, pause_s)
            if self.stopping.is_set():
                return
            pause_s = min(1.5 * pause_s, self.pace.poll_s_max)
            try:
                async with self._requests:
                    # asked for as often as it takes: cancelling again does nothing
                    found = await (self.venue.cancel(order.intent()) if order.cancel else self.venue.ask(order.intent()))
            except Unreachable as error:
                log.warning("cannot ask", order=order.client_id, said=str(error))
                await pause(self.stopping, error.retry_s)
                continue
            self.step("asked")
            seen = found or seen

    async def _rest(self, order: Order, rest_s: float) -> None:
        """Wait, unless there is something new to do."""
        assert order.nudge is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await order.nudge.wait()
        if not self.stopping.is_set():
            order.nudge.clear()

    async def _expire(self, order: Order) -> None:
        age_s = self.clock.age_s(int(order.row["ts_event_ns"]), order.written_ms)
        log.warning("too old to be sent", order=order.client_id, age_s=round(age_s, 3), age_s_max=self.pace.age_s_max)
        metrics.ORDERS_EXPIRED.inc()
        self.counts.expired += 1
        await self.report(order, R_EXPIRED, order.seen)

    async def _reject(self, order: Order, refused: Refused) -> None:
        log.warning("refused", order=order.client_id, reason=refused.reason, said=str(refused))
        known = self.counts.refusals
        reason = refused.reason if refused.reason in known or len(known) < REFUSALS_KEPT else "other"
        known[reason] = known.get(reason, 0) + 1
        metrics.ORDERS_REJECTED.labels(reason=reason).inc()
        await self.report(order, R_REJECTED, order.seen)


async def pause(stopping: asyncio.Event, pause_s: float) -> None:
    """Wait, unless the process is to end."""
    if pause_s > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stopping.wait()
