"""The parts of a live feed alone: the order of trades under any disorder, rhythms, delays, budgets, bans and clocks."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import PenstockError
from sources.exchange_calls import BAN_S, Backoff, Banned, Calls
from sources.exchange_clock import ExchangeClock
from sources.exchange_order import FALSE_ALARMS_MAX, SEEN_MAX, Trade, TradeOrder
from sources.exchange_rate import LAG_S_MIN, SILENT_S_MIN, Lag, Pulse


def trade(k, text=None):
    return Trade(str(k) if text is None else text, 10**9 * k, 1.0, 1.0, 1)


@given(st.lists(st.sampled_from("psdlrgh"), min_size=1, max_size=120), st.randoms(use_true_random=False))
def test_any_disorder_ends_in_the_exchanges_order(cues, chance):
    """p: a trade comes. s: it is lost. d: it comes twice. l: it comes later. g: a garbled copy comes again. h: the connection is lost.
    r: what was missed is fetched."""
    order, out, late, published = TradeOrder(), [], [], []
    for cue in ["p", *cues]:
        if cue == "h":
            order.hold()
            continue
        if cue == "r":
            if order.last is not None:
                out += order.repaired([t for t in published if t.number > order.last.number])
            continue
        published.append(trade(1000 + len(published)))
        if cue in "pd":
            for _ in range(1 + (cue == "d")):
                out += order.push(published[-1])
        elif cue == "l":
            late.append(published[-1])
        elif cue == "g":
            out += order.push(published[-1])
            out += order.push(chance.choice(published))
        if late and chance.random() < 0.3:
            out += order.push(late.pop(0))
        assert out == published[: len(out)]
    out += order.repaired([t for t in published if t.number > order.last.number])
    assert out == published and not order.open_hole


def test_ids_that_skip_by_nature_are_found_out():
    order, out = TradeOrder(), []
    for k in range(0, 60, 3):
        out += order.push(trade(k))
        if order.open_hole:
            out += order.repaired([trade(j) for j in range(0, k + 1, 3) if j > order.last.number])
    assert [t.number for t in out] == list(range(0, 60, 3)) and not order.counted
    assert order.push(trade(100)) == [trade(100)] and order.push(trade(90)) == [trade(90)] and order.push(trade(90)) == []
    assert order.duplicates == 1 and FALSE_ALARMS_MAX == 3


def test_ids_that_are_no_numbers_are_remembered():
    order = TradeOrder()
    names = [f"a{k}" for k in range(SEEN_MAX + 5)]
    for k, name in enumerate(names):
        assert order.push(trade(k, name)) == [trade(k, name)]
    assert order.push(trade(7, names[-1])) == [] and len(order._seen) == SEEN_MAX
    order.hold()
    assert order.push(trade(9, "late")) == [] and order.open_hole
    found = order.repaired([trade(8, "missed"), trade(9, "late"), trade(1, names[-2])])
    assert [t.id for t in found] == ["missed", "late"]


def test_trades_without_ids_are_all_kept():
    order = TradeOrder()
    assert [len(order.push(trade(k, ""))) for k in (1, 1, 2)] == [1, 1, 1]


def test_a_repair_is_whole_only_without_holes():
    order = TradeOrder()
    for k in (1, 2, 6):
        order.push(trade(k))
    assert order.held == 1
    assert not order.fills([trade(3)]) and not order.fills([]) and order.fills([trade(3), trade(4), trade(5)])


def test_a_symbol_is_silent_by_its_own_rhythm():
    quiet, busy = Pulse(3.0), Pulse(3.0)
    for k in range(40):
        quiet.beat(60.0 * k)
        busy.beat(0.1 * k)
    assert not quiet.silent(60 * 39 + 179) and quiet.silent(60 * 39 + 181)
    assert not quiet.silent(60 * 39 + 359) and quiet.silent(60 * 39 + 361)
    assert not busy.silent(3.9 + SILENT_S_MIN - 0.1) and busy.silent(3.9 + SILENT_S_MIN + 0.1)
    young = Pulse(3.0)
    young.beat(0.0)
    assert not young.silent(1e9) and young.limit_s is None


def test_the_lag_follows_the_longest_delay_and_forgets_it():
    lag = Lag()
    lag.see(1.0, 1000.0)
    assert lag.s == 1.25
    for k in range(300):
        lag.see(0.01, 1001.0 + k)
    assert lag.s == LAG_S_MIN * 1.25
    lag.see(100.0, 2000.0)
    assert lag.s == 5.0


def test_waits_double_with_jitter_up_to_a_bound():
    backoff = Backoff(1.0, 8.0)
    waits = [backoff.next_s() for _ in range(10)]
    for k, wait in enumerate(waits):
        assert min(8.0, 2.0**k) / 2 <= wait <= min(8.0, 2.0**k)
    backoff.reset()
    assert backoff.next_s() <= 1.0


class Exchange:
    """What `Calls` and the clock need of ccxt."""

    def __init__(self, status=200, headers=None, offset_ms=0):
        self.status, self.headers, self.offset_ms, self.calls = status, headers or {}, offset_ms, 0
        self.has, self.timeout = {"fetchTime": True}, 0

    async def fetch(self, url, method="GET", headers=None, body=None):
        self.calls += 1
        self.on_rest_response(self.status, "", url, method, self.headers, "")
        return "answer"

    def on_rest_response(self, code, reason, url, method, headers, text):
        return text


class Now:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "7"}, 7.0), ({}, BAN_S), ({"retry-after": "soon"}, BAN_S)])
def test_nothing_is_sent_while_a_ban_lasts(headers, seconds):
    async def go():
        now, one = Now(), Exchange(429, headers)
        calls = Calls("x", 600, 5.0, now)
        calls.guard(one)
        await one.fetch("u")
        assert calls.banned_s == seconds
        now.s += seconds - 0.1
        with pytest.raises(Banned, match="x wants no requests until .*Z"):
            await one.fetch("u")
        assert one.calls == 1
        now.s += 0.2
        one.status = 200
        assert await one.fetch("u") == "answer" and one.calls == 2
    asyncio.run(go())


def test_bans_that_name_no_end_double():
    async def go():
        now, one = Now(), Exchange(418)
        calls = Calls("x", 600, 5.0, now)
        calls.guard(one)
        for k in range(3):
            await one.fetch("u")
            assert calls.banned_s == BAN_S * 2**k
            now.s += calls.banned_s + 1
    asyncio.run(go())


def test_the_budget_is_shared(monkeypatch):
    async def go():
        now, slept = Now(), []

        async def sleep(s):
            slept.append(s)
            now.s += s
        monkeypatch.setattr("sources.exchange_calls.asyncio.sleep", sleep)
        calls, some = Calls("x", 60, 5.0, now), [Exchange(), Exchange()]
        for one in some:
            calls.guard(one)
        for k in range(70):
            await some[k % 2].fetch("u")
        assert calls.requests == 70 and sum(slept) == pytest.approx(60, abs=1)
    asyncio.run(go())


def test_a_call_has_a_timeout():
    async def go():
        one = Exchange()

        async def never(*_):
            await asyncio.Event().wait()
        one.fetch = never
        Calls("x", 60, 0.05).guard(one)
        with pytest.raises(asyncio.TimeoutError):
            await one.fetch("u")
    asyncio.run(go())


class Clocked(Exchange):
    """An exchange whose clock is off, and whose answers take a while."""

    def __init__(self, now, offset_s, trips):
        super().__init__()
        self.now, self.offset_s, self.trips = now, offset_s, list(trips)

    async def fetch_time(self):
        trip = self.trips.pop(0)
        self.now.s += trip / 2
        told = self.now.s + self.offset_s
        self.now.s += trip / 2
        return int(told * 1000)


def test_the_offset_comes_from_the_shortest_trip():
    now = Now()
    clock = ExchangeClock("x", 1.0, lambda: int(now.s * 1e9), now)
    asyncio.run(clock.measure(Clocked(now, 0.4, [2.0, 0.01, 1.0])))
    assert clock.offset_s == pytest.approx(0.4, abs=0.002)
    assert clock.now_ns() == pytest.approx((now.s + 0.4) * 1e9, abs=3e6)
    assert clock.passed_ns() < clock.now_ns() <= clock.quoted_ns() + 0.5e9
    clock.arrived(clock.now_ns() - 2 * 10**9)
    assert clock.passed_ns() == pytest.approx(clock.now_ns() - 2.5e9, abs=1e6)


@pytest.mark.parametrize(("offset", "word"), [(1.5, "behind"), (-1.5, "ahead of")])
def test_an_offset_beyond_the_limit_is_refused(offset, word):
    now = Now()
    clock = ExchangeClock("x", 1.0, lambda: int(now.s * 1e9), now)
    with pytest.raises(PenstockError, match=f"clock is 1.50 s {word} that of x"):
        asyncio.run(clock.measure(Clocked(now, offset, [0.01] * 3)))
