"""Tick on Kafka to order on Kafka: 100 symbols at several rates, with feeder, broker, pipeline and archive on one machine, beside a bare echo."""

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from bench._broker import ABSENT, BROKER, Site, site
from bench._echo import watch
from bench._harness import ROOT, Absent, Result
from brokers.partitions import partitions_of
from schemas.codec import from_arrow, names_in
from schemas.frame import Frame
from schemas.messages import decode_arrow
from schemas.tables import BEATS, TRADES
from schemas.tables_desk import ORDERS
from sinks.ingest_writer import Writer
from sources.kafka_batch import END, BatchReader, Position

ROWS = 1_000_000
"""Not used: a rate is measured for SECONDS."""
SYMBOLS = tuple(f"S{k:03d}/USDT" for k in range(100))
RATES = (1_000, 5_000, 20_000)
SECONDS, SETTLE_S = 20.0, 8.0
STEP_S = 0.002
"""What is due is handed over so often: the feeder shares the two cores with what it measures."""
STRATEGY = {"name": "each_second", "timeframe": "1s", "entry": "close > open", "exit": "close < open", "hold_bars": 3}
POLICY = {"positions_max": 100, "orders_max": 500, "daily_trades_max": 1_000_000, "cooldown_after_loss": "0 s", "notional_per_trade": "0.5 %",
          "capital": 1_000_000_000, "daily_loss_max": "90 %", "weekly_loss_max": "90 %", "drawdown_reduce": "80 %", "drawdown_halt": "90 %"}


def measure(runs: int, rows: int) -> Result | Absent:
    """From the moment that a tick is given to the producer to the moment that a consumer holds the order that it caused."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("latency", ABSENT)
    document = {"bars": {"time": ["1s"]}, "strategies": [STRATEGY], "policy": POLICY}
    rates: dict[str, Any] = {}
    bare = _bare(servers)
    with site(servers, "latency", document) as here:
        here.run("run", "paper", "--once", "--run", "warm")  # compiles what is not compiled yet
        here.run("control", "enable")
        children = [here.start("run", "paper", "--from", "earliest"), here.start("archive")]
        try:
            watch = _Watch(here)
            with Writer(here.kafka, "bench", ("trades",), linger_ms=0.0) as writer:
                feed = Feed(writer)
                feed.run(1_000, 30.0)  # processes start, kernels load
                for rate in RATES:
                    feed.run(rate, SETTLE_S)
                    watch.since()
                    sent = feed.run(rate, SECONDS)
                    time.sleep(0.5)
                    rates[str(rate)] = {"ticks_per_second": round(sent / SECONDS), **watch.percentiles(), "bare": bare[rate]}
            watch.close()
        finally:
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                child.wait(60)
    return Result("latency", int(SECONDS * RATES[0]), [SECONDS],
                  "producing the tick, the broker, sequencing, the journal, bars, strategy, gate, producing the order, a consumer's poll; JSON, "
                  "a row a message. bare: a consumer that parses and a producer that answers, nothing between", {}, {"unit": "ms", "rates": rates})


def _bare(servers: str) -> dict[int, dict[str, Any]]:
    """The same ticks, answered by a bare consumer and producer with nobody else on the broker: what the way itself takes."""
    found: dict[int, dict[str, Any]] = {}
    held: list[tuple[int, int]] = []
    over = threading.Event()
    with site(servers, "echo", {}) as here, Writer(here.kafka, "bench", ("trades",), linger_ms=0.0) as writer:
        ticks, answers = (here.kafka.prefix + name for name in ("trades", "control"))
        echo = subprocess.Popen([sys.executable, "-m", "bench._echo", servers, ticks, answers], cwd=ROOT)
        thread = threading.Thread(target=watch, args=(servers, answers, held, over), daemon=True)
        thread.start()
        try:
            feed = Feed(writer)
            for rate in RATES:
                feed.run(rate, SETTLE_S)
                held.clear()
                feed.run(rate, SECONDS)
                found[rate] = _percentiles([(now - ts) / 1e6 for now, ts in list(held)])
        finally:
            over.set()
            thread.join(5)
            echo.kill()
            echo.wait()
    return found


def _percentiles(found: list[float]) -> dict[str, Any]:
    """Milliseconds, and of how many."""
    if len(found) < 10:
        return {"orders": len(found)}
    cut = statistics.quantiles(found, n=100)
    return {"orders": len(found), "p50": round(cut[49], 3), "p95": round(cut[94], 3), "p99": round(cut[98], 3), "max": round(max(found), 3)}


class Feed:
    """Ticks at a rate, each stamped with the time at which it is handed over; a beat a second."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.n, self.number = writer, 0, 0
        self.random = np.random.default_rng(1)
        self.price = 100.0 * np.exp(self.random.normal(0, 0.3, len(SYMBOLS)))
        self.beat_ns = 0

    def run(self, rate: int, seconds: float) -> int:
        """So many ticks a second for so long; how many they were."""
        began, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            due = int(passed * rate) - sent
            if due:
                self._send(due)
                sent += due
            time.sleep(STEP_S)
        self.writer.flush()
        return sent

    def _send(self, n: int) -> None:
        now = time.time_ns()
        tables: dict[str, Any] = {}
        if now - self.beat_ns >= 10**9:
            self.beat_ns = now
            beats = BEATS.empty(1)
            beats["ts_event_ns"], beats["symbol"], beats["seq"] = now, -1, self.n
            tables["beats"] = beats
            self.n += 1
        rows = TRADES.empty(n)
        symbol = self.random.integers(0, len(SYMBOLS), n)
        self.price[symbol] *= np.exp(self.random.normal(0, 2e-4, n))
        rows["symbol"], rows["price"], rows["size"] = symbol, np.round(self.price[symbol], 4), 5.0
        rows["ts_event_ns"], rows["seq"], rows["trade_id"] = now, self.n + np.arange(n), self.n + np.arange(n)
        tables["trades"] = rows
        self.n += n
        self.writer.write_frame(Frame("bench", self.number, now, SYMBOLS, tables))
        self.number += 1
        self.writer.poll()


class _Watch:
    """A consumer of `orders`: for each new order, how long ago the tick that caused it was handed over. It keeps messages with the time at
    which it held them, and reads them when nothing is measured."""

    def __init__(self, here: Site) -> None:
        count = partitions_of(here.kafka, ORDERS.name)
        self.reader = BatchReader(here.kafka, [Position(ORDERS.name, p, END) for p in range(count)])
        self.held: list[tuple[int, bytes]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        while not self.over.is_set():
            polled = self.reader.poll(10_000, 0.05)
            now = time.time_ns()
            self.held += [(now, bytes(polled.payload(i))) for i in range(len(polled))]

    def since(self) -> None:
        self.held = []

    def percentiles(self) -> dict[str, Any]:
        found: list[float] = []
        for now, payload in list(self.held):
            table = decode_arrow(payload)
            rows = from_arrow(ORDERS, table, names_in(table), names_in(table, "strategy"))
            found += ((now - rows["ts_event_ns"][rows["state"] == 0]) / 1e6).tolist()
        return _percentiles(found)

    def close(self) -> None:
        self.over.set()
        self.thread.join(5)
        self.reader.close()
