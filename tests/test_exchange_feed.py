"""Live prices from a local exchange that misbehaves: no trade lost, none doubled, in order, and every trouble said."""

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from schemas.config_live import ExchangeConfig
from schemas.errors import PenstockError, UserError
from sources.exchange_events import Timings
from sources.exchange_frames import live_frames
from tests.exchange_server import ExchangeServer, recorded

QUICK = Timings(hole_s=0.1, connect_s=1.0, repair_hold_s=5.0, overlap_s=0.3, overlap_s_max=5.0, failover_s=1.0, probe_s=0.3, healthy_s=1.0,
                clock_s=0.5, funding_s=0.5, tick_s=0.02)
MESSAGES = recorded(1500)
WAIT_S_MAX = 60


@pytest.fixture
def server():
    with ExchangeServer() as one:
        yield one


class Client:
    """Takes frames in a thread; what came is looked at from the test."""

    def __init__(self, config, timings=QUICK, first_number=0):
        self.rows = {"trades": [], "quotes": [], "beats": []}
        self.order, self.failed, self.feed = [], None, None
        self._stop = threading.Event()
        self._arguments = config, first_number, timings
        self._thread = threading.Thread(target=self._take)

    def _take(self):
        config, first, timings = self._arguments
        try:
            for frame in live_frames(config, first, self._stop.is_set, timings=timings, said=self._said):
                for name, rows in frame.tables.items():
                    self.rows[name] += rows.tolist()
                    self.order += [(int(s), name, int(t)) for s, t in zip(rows["seq"], rows["ts_event_ns"], strict=True)]
        except PenstockError as error:
            self.failed = error

    def _said(self, feed):
        self.feed = feed

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def until(self, what, why=""):
        deadline = time.monotonic() + WAIT_S_MAX
        while not what():
            assert self.failed is None, self.failed
            assert time.monotonic() < deadline, why or f"{ {k: len(v) for k, v in self.rows.items()} }"
            time.sleep(0.01)

    @property
    def ids(self):
        return [row[6] for row in self.rows["trades"]]


def configured(server, **more):
    return ExchangeConfig(**{"symbols": ("BTC/USDT",), "beat_s": 0.1, "timeout_s": 2.0, "options": server.options, **more})


@contextmanager
def connected(server, **more):
    with Client(configured(server, **more)) as client:
        wanted = 1 + ("quotes" in more.get("tables", ("trades", "quotes")))
        client.until(lambda: sum(bool(s.streams) for s in server.sockets) >= wanted, "not subscribed")
        server.play(MESSAGES[:30])
        client.until(lambda: client.rows["trades"], "no trades")
        yield client


def trades_of(server, symbol="BTCUSDT"):
    return [(t["a"], float(t["p"]), float(t["q"]), 2 if t["m"] else 1, t["T"] * 10**6) for t in server.trades[symbol]]


def whole(client, server):
    """Every trade that the exchange published is there once, in its order, as it was; and the numbers have no gap."""
    published = trades_of(server)
    client.until(lambda: client.ids and client.ids[-1] == published[-1][0], f"last {client.ids[-1:]} of {published[-1][0]}")
    found = [(r[6], r[3], r[4], r[5], r[0]) for r in client.rows["trades"]]
    first = next(k for k, t in enumerate(published) if t[0] == found[0][0])
    assert found == published[first:]
    assert [s for s, _, _ in sorted(client.order)] == list(range(len(client.order)))


def beats_never_run_ahead(client):
    """No trade comes after a heartbeat that said its time had passed."""
    reached = 0
    for _, table, ts in sorted(client.order):
        if table == "beats":
            assert ts > reached
            reached = ts
        elif table == "trades":
            assert ts >= reached, (ts, reached)


def test_prices_as_they_come(server):
    with connected(server) as client:
        server.play(MESSAGES[30:600])
        whole(client, server)
        client.until(lambda: len(client.rows["beats"]) > 3)
    beats_never_run_ahead(client)
    quotes = [(r[3], r[4], r[5], r[6]) for r in client.rows["quotes"]]
    sent = [(float(m["b"]), float(m["a"]), float(m["B"]), float(m["A"])) for m in MESSAGES[:600] if "b" in m and "t" not in m]
    changed = [q for k, q in enumerate(sent) if k == 0 or q != sent[k - 1]]
    assert quotes == changed[len(changed) - len(quotes):] and len(quotes) > 300
    assert client.feed.fetched == client.feed.duplicates == 0


def test_two_symbols_are_kept_apart(server):
    with Client(configured(server, symbols=("BTC/USDT", "ETH/USDT"), tables=("trades",))) as client:
        client.until(lambda: any(s.streams for s in server.sockets))
        for k in range(50):
            server.publish({"t": 100 + k, "p": "1.5", "q": "2", "m": False}, "ETHUSDT")
            server.publish({"t": 900 + k, "p": "3.5", "q": "4", "m": True}, "BTCUSDT")
        client.until(lambda: len(client.ids) == 100)
    for code, first, price in ((0, 900, 3.5), (1, 100, 1.5)):
        mine = [r for r in client.rows["trades"] if r[2] == code]
        assert [r[6] for r in mine] == list(range(first, first + 50)) and {r[3] for r in mine} == {price}


def misbehave(server, client, name):
    if name == "drops":
        for k in range(30, 900, 150):
            server.play(MESSAGES[k : k + 75])
            server.drop()
            server.play(MESSAGES[k + 75 : k + 150])
    elif name == "garbage":
        server.garbage_every = 7
    elif name == "losses":
        server.losing_every = 5
    elif name == "duplicates":
        server.duplicating = True
    elif name == "reorders":
        server.reordering = True
    if name != "drops":
        server.play(MESSAGES[30:900])
    server.garbage_every = server.losing_every = 0
    server.duplicating = server.reordering = False
    server.play(MESSAGES[900:1000])


@pytest.mark.parametrize("name", ["drops", "garbage", "losses", "duplicates", "reorders"])
def test_whatever_its_sockets_do_no_trade_is_lost_or_doubled(server, name):
    with connected(server) as client:
        misbehave(server, client, name)
        whole(client, server)
    beats_never_run_ahead(client)
    if name in ("drops", "garbage", "losses"):
        assert client.feed.fetched > 0
    if name == "drops":
        assert client.feed.reconnects > 0 and server.connections > 4
    if name == "duplicates":
        assert client.feed.duplicates > 100


def test_a_stalled_socket_is_found_by_the_symbols_own_rhythm(server, monkeypatch):
    monkeypatch.setattr("sources.exchange_rate.SILENT_S_MIN", 0.5)
    with connected(server, tables=("trades",), silence=3.0) as client:
        server.play(MESSAGES[30:300])
        client.until(lambda: len(client.ids) > 60)
        before = server.connections
        server.stalled = True
        server.play(MESSAGES[300:600], rate=3000)
        client.until(lambda: server.connections > before, "it never subscribed again")
        server.stalled = False
        server.play(MESSAGES[600:700])
        whole(client, server)
    assert client.feed.fetched > 0


def test_a_rotation_neither_loses_nor_doubles(server):
    with connected(server, rotate_s=1.0) as client:
        server.play(MESSAGES[30:1400], rate=300)
        whole(client, server)
        client.until(lambda: server.connections >= 6)
    assert client.feed.rotations >= 2 and client.feed.reconnects == 0
    beats_never_run_ahead(client)
    quotes = [(r[3], r[4], r[5], r[6]) for r in client.rows["quotes"]]
    sent = [(float(m["b"]), float(m["a"]), float(m["B"]), float(m["A"])) for m in MESSAGES[:1400] if "b" in m and "t" not in m]
    changed = [q for k, q in enumerate(sent) if k == 0 or q != sent[k - 1]]
    assert quotes == changed[len(changed) - len(quotes):]


@pytest.mark.parametrize("status", [429, 418])
def test_a_ban_is_kept_to_the_second(server, status, caplog):
    with connected(server, tables=("trades",)) as client, caplog.at_level(logging.WARNING, "penstock"):
        server.play(MESSAGES[30:100])
        asked = len(server.requests)
        server.refuse = (status, "3")
        server.losing_every = 4
        server.play(MESSAGES[100:200])
        server.losing_every = 0
        client.until(lambda: any(code == status for _, _, code in server.requests[asked:]))
        banned_at = next(at for at, _, code in server.requests[asked:] if code == status)
        server.refuse = None
        whole(client, server)
    after = [at for at, _, code in server.requests if at > banned_at]
    assert after and min(after) - banned_at >= 2.9
    assert sum(code == status for _, _, code in server.requests) == 1
    assert "wants no requests" in caplog.text


def test_maintenance_is_waited_for_and_said(server, caplog):
    with connected(server, tables=("trades",)) as client, caplog.at_level(logging.WARNING, "penstock"):
        server.play(MESSAGES[30:100])
        server.maintenance = True
        server.drop()
        server.play(MESSAGES[100:300])
        client.until(lambda: "a connection was lost" in caplog.text)
        beats = len(client.rows["beats"])
        time.sleep(1.0)
        assert len(client.rows["beats"]) <= beats + 1
        server.maintenance = False
        server.play(MESSAGES[300:400])
        whole(client, server)
    beats_never_run_ahead(client)
    assert sum(code == 503 for _, _, code in server.requests) < 20


def test_a_slow_answer_is_given_up_and_asked_for_again(server):
    with connected(server, tables=("trades",), timeout_s=0.5) as client:
        server.slow_s = 2.0
        server.losing_every = 10
        server.play(MESSAGES[30:130])
        server.losing_every = 0
        time.sleep(1.0)
        server.slow_s = 0.0
        server.play(MESSAGES[130:200])
        whole(client, server)


def test_a_wrong_clock_is_refused(server):
    server.clock_offset_ms = 5_000
    with Client(configured(server)) as client:
        deadline = time.monotonic() + WAIT_S_MAX
        while client.failed is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert isinstance(client.failed, PenstockError) and not isinstance(client.failed, UserError)
    assert "s behind that of binance, more than clock_offset_s_max (1 s)" in str(client.failed)


def test_a_clock_that_goes_wrong_ends_the_feed(server):
    with Client(configured(server, tables=("trades",))) as client:
        client.until(lambda: any(s.streams for s in server.sockets))
        server.clock_offset_ms = -5_000
        deadline = time.monotonic() + WAIT_S_MAX
        while client.failed is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "ahead of that of binance" in str(client.failed)


def test_a_small_offset_moves_the_heartbeats(server):
    server.clock_offset_ms = -800
    with connected(server, tables=("trades",)) as client:
        client.until(lambda: client.rows["beats"])
        assert abs(client.rows["beats"][-1][0] / 1e9 - time.time() + 0.8 + 0.25) < 0.6


def test_another_exchange_takes_over_and_gives_back(server):
    with ExchangeServer() as second:
        config = configured(server, names=("binance", "binanceus"), tables=("trades",),
                            options={"binance": server.options, "binanceus": second.options})
        with Client(config) as client:
            client.until(lambda: any(s.streams for s in server.sockets))
            server.play(MESSAGES[:60])
            client.until(lambda: len(client.ids) == len(server.trades["BTCUSDT"]))
            server.maintenance = True
            server.drop()
            client.until(lambda: any(s.streams for s in second.sockets), "the second was not used")
            for k in range(40):
                second.publish({"t": 50 + k, "p": "7", "q": "1", "m": False})
            client.until(lambda: client.ids[-1] == 89)
            server.maintenance = False
            client.until(lambda: any(s.streams for s in server.sockets), "the first was not used again")
            client.until(lambda: not second.sockets)
            n = len(client.ids)
            server.play(MESSAGES[60:120])
            client.until(lambda: len(client.ids) > n and client.ids[-1] == server.trades["BTCUSDT"][-1]["a"])
        assert len(set(client.ids)) == len(client.ids)
        assert {r[3] for r in client.rows["trades"] if 50 <= r[6] < 90} == {7.0}


def test_what_came_faster_than_it_was_taken_is_fetched_again(server, monkeypatch):
    monkeypatch.setattr("sources.exchange_events.PENDING_MAX", 40)
    config = configured(server, tables=("trades",))
    done, started = threading.Event(), threading.Event()
    ids = []

    def take():
        for frame in live_frames(config, 0, done.is_set, timings=QUICK):
            ids.extend(frame.tables["trades"]["trade_id"].tolist() if "trades" in frame.tables else [])
            if ids and not started.is_set():
                started.set()
                time.sleep(2.0)

    thread = threading.Thread(target=take)
    thread.start()
    deadline = time.monotonic() + WAIT_S_MAX
    while not any(s.streams for s in server.sockets):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.play(MESSAGES[:600])
    assert started.wait(10)
    while ids[-1] != server.trades["BTCUSDT"][-1]["a"]:
        assert time.monotonic() < deadline, (len(ids), len(server.trades["BTCUSDT"]))
        time.sleep(0.01)
    done.set()
    thread.join(30)
    assert ids == [t["a"] for t in server.trades["BTCUSDT"]][-len(ids):] and len(ids) > 100


def test_numbers_begin_where_they_are_told(server):
    with Client(configured(server, tables=("trades",)), first_number=1000) as client:
        client.until(lambda: len(client.rows["beats"]) > 2)
    assert [s for s, _, _ in sorted(client.order)] == list(range(1000, 1000 + len(client.order)))


@pytest.mark.parametrize(("change", "said"), [
    ({"names": ("binanse",)}, 'unknown exchange "binanse"; did you mean "binance"?'),
    ({"names": ("btcmarkets",)}, "penstock fetch-history --exchange btcmarkets"),
    ({"symbols": ()}, "no symbols; give --symbols"),
    ({"symbols": ("BTCUSDT",)}, 'unknown symbol of binance "BTCUSDT"; did you mean "BTC/USDT"?'),
    ({"symbols": ("BTC/USDX",)}, 'did you mean "BTC/USDT"?'),
    ({"tables": ("trade",)}, 'did you mean "trades"?'),
    ({"beat_s": 0.0}, "exchange.beat_s is 0"),
])  # fmt: skip
def test_what_is_named_wrongly(server, change, said):
    with pytest.raises(UserError) as raised:
        for _ in live_frames(configured(server, **change), 0, lambda: False, timings=QUICK):
            pass
    assert said in str(raised.value)


def test_it_leaves_nothing_running(server):
    before = threading.active_count()
    with connected(server) as client:
        pass
    assert client.failed is None
    deadline = time.monotonic() + 10
    while server.sockets and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.sockets and threading.active_count() <= before
    assert np.all(np.diff([s for s, _, _ in client.order]) >= 0) or client.order
