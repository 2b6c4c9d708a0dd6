"""Catch-up: the pipeline is killed and the market goes on without it; started again, how old is what it sends, and what is not sent any more."""

import os
import signal
import socket
import threading
import time
from typing import Any

import numpy as np

from bench._broker import ABSENT, BROKER, Site, site
from bench._harness import Absent, Result
from bench.latency import SYMBOLS as NAMES
from bench.latency import Feed
from research.parity_records import KafkaRecorded
from schemas.codec_json import decode_json
from schemas.tables_live import APPROVED, REPORT_STATES, REPORTS
from sinks.ingest_writer import Writer
from sources.kafka_topics import polls_of

ROWS = 300_000
"""Ticks while it is down, at RATE a second: ten minutes."""
RATE, AGE_S_MAX, BEFORE_S, AFTER_S, CATCH_UP_S_MAX = 500, 5.0, 20.0, 15.0, 180.0
STRATEGY = {"name": "each_second", "timeframe": "1s", "entry": "close > open", "exit": "close < open", "hold_bars": 3}
POLICY = {"positions_max": 100, "orders_max": 500, "daily_trades_max": 1_000_000, "cooldown_after_loss": "0 s", "notional_per_trade": "0.01 %",
          "capital": 1_000_000, "daily_loss_max": "90 %", "weekly_loss_max": "90 %", "drawdown_reduce": "80 %", "drawdown_halt": "90 %"}
RUN = "paused"


def measure(runs: int, rows: int) -> Result | Absent:
    """Ticks are stamped with the time at which they are handed over. seconds: how long it was down."""
    servers = os.environ.get(BROKER)
    if not servers:
        return Absent("pause", ABSENT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    document = {"bars": {"time": ["1s"]}, "strategies": [STRATEGY], "policy": POLICY,
                "venue": {"name": "fake", "age_s_max": AGE_S_MAX, "options": {"url": f"http://127.0.0.1:{port}"}}}
    with site(servers, "pause", document) as here, Writer(here.kafka, "bench", ("trades",), linger_ms=0.0) as writer:
        feed = Feed(writer)
        here.run("run", "paper", "--once", "--run", "warm")  # compiles what is not compiled yet
        here.run("control", "enable")
        prices = [word for name, price in zip(NAMES, feed.price.tolist(), strict=True) for word in ("--price", f"{name}={price:.4f}")]
        pipeline = ("run", "live", "--run", RUN, "--from", "earliest")
        children = [here.start_bare("exchange", "fake", "--port", str(port), *prices), here.start("execute"), here.start(*pipeline)]
        over = threading.Event()
        thread = threading.Thread(target=_feed_until, args=(feed, over), daemon=True)
        thread.start()
        try:
            time.sleep(BEFORE_S)
            children[-1].kill()
            children[-1].wait()
            began = time.time_ns()
            time.sleep(rows / RATE)
            ended = time.time_ns()
            children[-1] = here.start(*pipeline)
            caught_up = _caught_up(here, ended)
            time.sleep(AFTER_S)
        finally:
            over.set()
            thread.join()
            for child in reversed(children):
                child.send_signal(signal.SIGTERM)
                child.wait(120)
        return Result("pause", rows, [(ended - began) / 1e9], f"the age of an order when it is sent, from the tick that caused it; {AGE_S_MAX:g} s at most",
                      {}, {**_sent(here, began, ended), "caught_up_s": round(caught_up, 1)})


def _feed_until(feed: Feed, over: threading.Event) -> None:
    while not over.is_set():
        feed.run(RATE, 1.0)


def _caught_up(here: Site, since_ns: int) -> float:
    """Seconds until an approval is caused by a tick that came after the pipeline ran again."""
    began = time.monotonic()
    while time.monotonic() - began < CATCH_UP_S_MAX:
        recorded = KafkaRecorded(here.kafka, RUN)
        rows = recorded.rows(APPROVED, recorded.symbols(()), ("each_second",))
        if len(rows) and int(rows["ts_event_ns"].max()) > since_ns:
            break
        time.sleep(0.5)
    return time.monotonic() - began


def _sent(here: Site, began: int, ended: int) -> dict[str, Any]:
    recorded = KafkaRecorded(here.kafka, RUN)
    approved = recorded.rows(APPROVED, recorded.symbols(()), ("each_second",))
    reports = decode_json(REPORTS, [p.payload(i) for p in polls_of(here.kafka, [REPORTS.name]) for i in range(len(p))], NAMES, ())
    caused = dict(zip(approved["order_id"].tolist(), approved["ts_event_ns"].tolist(), strict=True))
    last = {int(r["order_id"]): r for r in reports[np.lexsort((reports["report_no"], reports["order_id"]))]}
    ages = [(int(r["ts_sent_ns"]) - caused[k]) / 1e9 for k, r in last.items() if r["ts_sent_ns"]]
    states = [REPORT_STATES[int(r["state"])] for r in last.values()]
    paused = [k for k, ts in caused.items() if began <= ts < ended]
    return {"orders": len(caused), "sent": len(ages), "oldest_sent_s": round(max(ages), 3), "states": {s: states.count(s) for s in sorted(set(states))},
            "caused_while_it_was_down": len(paused), "of_them_expired": sum(k in last and not last[k]["ts_sent_ns"] for k in paused),
            "without_report": len(caused) - len(last)}
