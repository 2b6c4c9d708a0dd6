"""The executor: approvals from the log become orders at a venue, and what the venue makes of them becomes reports on the log.

Its start is its recovery: it reads the log from the beginning, checks the chain of approvals again, and takes every order that is not
final from where the log and the venue say it is. An approval that does not follow from the one before ends everything. A
process that sees a later one at work on the same account steps down.
"""

import asyncio
import base64
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.codec_json import encode_json
from schemas.errors import PenstockError, UserError
from schemas.messages import headers
from schemas.tables_live import CANCEL_REQUEST, DEAD_LETTER, R_CANCELLED, R_FILLED, R_SENT
from sinks.execute_chain import Approval, ApprovalChain, ChainBroken
from sinks.execute_clock import MarketClock
from sinks.execute_log import Log, Message
from sinks.execute_order import Counts, Courier, Pace, Step, pause
from sinks.execute_orders import AT_VENUE, Order, Writer, read_approvals, read_reports, report_message
from sinks.venue import Seen, Venue
from telemetry import logs, metrics

log = logs.get("execute")
LAST_S = 15.0
"""How long requests that are out may take to be answered when the process is to end."""
DONE = Order(state=R_FILLED)
"""Stands for every order that is final: of those only the id is kept."""


@dataclass(frozen=True)
class Outcome:
    """How it ended. broken: why the chain of approvals does not hold, empty where it does. orders_open: left to the next start."""

    counts: Counts
    orders_open: int
    broken: str = ""


class Superseded(PenstockError):
    """Another process executes this account's orders."""


class Executor:
    """One account's orders to one venue. venue: None checks and counts, and sends and writes nothing (a dry run). skip: offsets of
    `approved` that someone looked at and wants left out. step: is told each step of the order path."""

    def __init__(self, journal: Log, venue: Venue | None, account: str, clock: MarketClock, pace: Pace, *,
                 skip: frozenset[int] = frozenset(), step: Step = lambda label: None,
                 told: Callable[[Approval, str], None] = lambda approval, what: None) -> None:
        self.journal, self.venue, self.account, self.clock, self.pace = journal, venue, account, clock, pace
        self.skip, self.step, self.told = skip, step, told
        self.counts = Counts()
        self.orders: dict[int, Order] = {}
        self.chain = ApprovalChain()
        self.writer: Writer = (0, "")
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._read_to = -1
        self._moved = asyncio.Condition()
        self._live = False
        self._epoch = 0
        self._open: deque[Order] = deque()
        self._courier = None if venue is None else Courier(
            venue, clock, pace, self.counts, step, self._stopping, self._report, self._claim)

    def stop(self) -> None:
        """End soon: requests that are out are waited for, open orders are left to the next start."""
        self._stopping.set()
        for order in self._open:
            order.wake()

    async def run(self, drain: bool = False) -> Outcome:
        """Until stopped, or, with `drain`, until every order that is on the log is final."""
        await self.journal.open()
        try:
            await self._connect()
            try:
                await self._recover()
                if not (drain and self._idle()):
                    await self._work(drain)
            except ChainBroken as broken:
                metrics.EXECUTE_STOPPED.set(1)
                await self._wind_up()
                return Outcome(self.counts, self._orders_open(), str(broken))
            await self._wind_up()
            return Outcome(self.counts, self._orders_open())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self.venue is not None:
                await self.venue.close()
            await self.journal.close()

    async def _connect(self) -> None:
        """Open the venue, as often as it takes; a user's mistake ends it at once."""
        pause_s = self.pace.poll_s_min
        while self.venue is not None and not self._stopping.is_set():
            try:
                await self.venue.open()
                return
            except UserError:
                raise
            except PenstockError as error:
                log.warning("trying again", said=str(error))
            await pause(self._stopping, pause_s)
            pause_s = min(2 * pause_s, self.pace.poll_s_max)

    async def _recover(self) -> None:
        while not self.journal.caught_up and not self._stopping.is_set():
            await self._take(await self.journal.read())
        # of two that start on the same log, the later one takes over; the word makes them two
        self.writer = (self._epoch + 1, f"{self.clock.wall_ns():016x}-{secrets.token_hex(4)}")
        self._live = True
        self._pass_final()
        waiting = [o for o in self._open if not o.final]
        log.info("recovered", approvals=self.chain.count, run=self.chain.run, open=len(waiting), epoch=self.writer[0])
        for order in waiting:
            self._begin(order, recovered=True)

    async def _work(self, drain: bool) -> None:
        """Take what comes, until it is time to stop or a task failed."""
        reading = asyncio.ensure_future(self.journal.read())
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set() and not (drain and self._idle()):
                await asyncio.wait([reading, stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                self._reap()
                if reading.done():
                    await self._take(reading.result())
                    reading = asyncio.ensure_future(self.journal.read())
                self._pass_final()
        finally:
            for task in (reading, stopped):
                task.cancel()

    def _reap(self) -> None:
        for task in [t for t in self._tasks if t.done()]:
            self._tasks.discard(task)
            task.result()

    async def _take(self, messages: list[Message]) -> None:
        # reports first: an order must know its claims before it is begun
        reports = [m for m in messages if m.table == "reports" and m.key in ("", self.account)]
        for m, row, writer in read_reports(reports):
            if isinstance(row, UserError):
                log.error("a report that cannot be read", offset=m.offset, said=str(row))
                await self._dead_letter(m, str(row))
            else:
                self._learn(m, row, writer)
        if any(m.table == "reports" for m in messages):
            async with self._moved:
                self._read_to = max(m.offset for m in messages if m.table == "reports")
                self._moved.notify_all()
        for m in messages:
            if m.table == "beats":
                self._beat(m)
        ours = [m for m in messages if m.table == "approved" and m.key in ("", self.account) and m.offset not in self.skip]
        for m, found, run in read_approvals(ours):
            self.step("read")
            await self._approve(m, found, run)

    def _learn(self, m: Message, row: Any, writer: Writer) -> None:
        if self._live and writer > self.writer:
            raise Superseded(f"another execute process (epoch {writer[0]}) trades account {self.account} now; this one stopped, "
                             "and sent nothing that the other did not know of")
        if self._live and writer == self.writer:
            return  # known when it was written; what matters is that it was read
        self._epoch = max(self._epoch, writer[0])
        order = self.orders.setdefault(int(row["order_id"]), Order())
        if order is DONE:
            return
        order.learn(row, m.ts_ms * 1_000_000 or self.clock.wall_ns(), writer)

    def _beat(self, m: Message) -> None:
        try:
            self.clock.see(m)
        except UserError as error:
            log.warning("a heartbeat that cannot be read", said=str(error))

    async def _approve(self, m: Message, found: Approval | UserError, run: str) -> None:
        try:
            if isinstance(found, UserError):
                raise ChainBroken(f"a record cannot be read: {found}")
            new = self.chain.take(found, run)
        except ChainBroken as broken:
            error = ChainBroken(f"approved offset {m.offset}: {broken}")
            await self._dead_letter(m, str(error))
            raise error from None
        if not new:
            self.counts.duplicates += 1
            return
        self.counts.approvals += 1
        self.step("verified")
        order = self.orders.setdefault(int(found.row["order_id"]), Order())
        if int(found.row["request"]) == CANCEL_REQUEST:
            self._cancel(order, found)
            return
        if order.approval is not None or order is DONE:
            # the same intent, approved by another run: it was, or is being, executed
            self.counts.duplicates += 1
            return
        order.approval, order.run, order.offset, order.written_ms = found, run, m.offset, m.ts_ms
        self._open.append(order)
        if self._live:
            self._begin(order, recovered=order.report_no > 0)
        if self.venue is None:
            self._dry(order)

    def _cancel(self, order: Order, found: Approval) -> None:
        """Whoever carries the order sees that it is to be cancelled; one that is final stays what it is."""
        self.counts.cancels += 1
        if order is not DONE:
            order.cancel = True
            order.wake()
        if self.venue is None:
            self.told(found, "was handled before" if order.final else "would be cancelled")

    def _dry(self, order: Order) -> None:
        assert order.approval is not None
        age_s = self.clock.age_s(int(order.row["ts_event_ns"]), order.written_ms)
        expired = age_s > self.pace.age_s_max and not order.final
        self.counts.expired += expired
        self.told(order.approval, "was handled before" if order.final else f"too old: {age_s:.1f} s" if expired else "would be sent")

    def _begin(self, order: Order, recovered: bool) -> None:
        if self._courier is not None and not order.final:
            order.nudge = asyncio.Event()
            if order.cancel:
                order.nudge.set()
            self._tasks.add(asyncio.create_task(self._courier.carry(order, recovered)))

    async def _claim(self, order: Order) -> bool:
        """Write that the order is about to be sent, and read it back: the first claim on the log has it. False where it is another's."""
        if order.claimed_ns:
            return False
        claimed_ns, ts_ns = self.clock.wall_ns(), self.clock.now_ns()
        offset = await self._write(order, R_SENT, order.seen, ts_ns)
        self.step("claimed")
        async with self._moved:
            await self._moved.wait_for(lambda: self._read_to >= offset)
        if order.claimed_ns:
            return False  # another process claimed it before us on the log
        order.claimed_ns, order.ts_sent_ns, order.claimer = claimed_ns, ts_ns, self.writer
        return True

    async def _report(self, order: Order, state: int, seen: Seen) -> None:
        """Write what became of an order."""
        await self._write(order, state, seen, order.ts_sent_ns)
        self.counts.filled += state == R_FILLED
        self.counts.cancelled += state == R_CANCELLED
        self.step("reported")

    async def _write(self, order: Order, state: int, seen: Seen, ts_sent_ns: int) -> int:
        payload, made = report_message(order, state, seen, self.clock.now_ns(), ts_sent_ns, self.writer)
        written = asyncio.ensure_future(self.journal.write("reports", payload, made))
        await asyncio.sleep(0)
        self.step("claim_given" if state == R_SENT else "report_given")
        offset = await written
        order.report_no += 1
        order.state, order.seen = state, Seen(state, seen.filled, seen.notional, seen.fee, seen.maker)
        order.was_at_venue = order.was_at_venue or state in AT_VENUE
        self.counts.reports += 1
        metrics.progressed()
        return offset

    def _pass_final(self) -> None:
        """Of the approvals up to the first that is not final, keep the ids alone."""
        while self._open and self._open[0].final:
            self.orders[int(self._open.popleft().row["order_id"])] = DONE
            self.step("passed")

    async def _dead_letter(self, m: Message, why: str) -> None:
        if self.venue is None:
            return
        record = {"ts_seen_ns": self.clock.wall_ns(), "topic": m.topic, "partition": m.partition, "offset": m.offset, "error": why,
                  "payload": base64.b64encode(m.value).decode()}
        metrics.DEAD_LETTERS.labels(topic=m.topic).inc()
        await self.journal.write("dead_letter", encode_json(DEAD_LETTER, [record])[0], headers(DEAD_LETTER, "json"))

    async def _wind_up(self) -> None:
        """Let requests that are out be answered, and their reports be written."""
        self.stop()
        if self._tasks:
            done, _ = await asyncio.wait(self._tasks, timeout=LAST_S)
            for task in done:
                self._tasks.discard(task)
                if not task.cancelled() and task.exception() is not None:
                    log.error("an order was left to the next start", said=str(task.exception()))

    def _idle(self) -> bool:
        return self.venue is None or (not self._tasks and self._orders_open() == 0)

    def _orders_open(self) -> int:
        return sum(not o.final for o in self._open)

