"""An exchange's prices on the input topics: numbered without gaps over restarts, and the command's own mistakes and words."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from dataflows.ingest import ingest_live
from sinks.ingest_writer import writer_id
from tests.children import running
from tests.exchange_server import ExchangeServer, recorded
from tests.ingest_topics import make_topics, on_topics
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.test_exchange_feed import QUICK, configured

MESSAGES = recorded(900)
WAIT_S_MAX = 60


@pytest.fixture
def server():
    with ExchangeServer() as one:
        yield one


def until(what):
    deadline = time.monotonic() + WAIT_S_MAX
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ids_on(found):
    """Trade ids in the order of the numbers."""
    return [int(row[6]) for _, row in sorted(found.items()) if row[0] == "trades"]


def test_numbers_go_on_over_restarts(kafka, server):  # noqa: F811
    make_topics(kafka)
    done, published = [], []
    for k in range(2):
        stop = threading.Event()
        config = configured(server, tables=("trades", "quotes"))
        thread = threading.Thread(target=lambda stop=stop, config=config: done.append(
            ingest_live(config, kafka, "live", stopping=stop.is_set, timings=QUICK)))
        thread.start()
        until(lambda: sum(bool(s.streams) for s in server.sockets) == 2)
        server.play(MESSAGES[300 * k : 300 * k + 300])
        published += [t["a"] for t in server.trades["BTCUSDT"]][len(published):]
        until(lambda last=published[-1:]: ids_on(on_topics(kafka, writer_id("live"), ("BTC/USDT",)))[-1:] == last)
        stop.set()
        thread.join(30)
        until(lambda: not server.sockets)
    found = on_topics(kafka, writer_id("live"), ("BTC/USDT",))
    assert sorted(found) == list(range(len(found))) and ids_on(found) == published
    assert done[1]["resumed_from"] == sum(done[0]["rows"].values()) and done[1]["filled"] == 0
    assert all(d["rows"]["quotes"] > 50 and d["rows"]["beats"] > 0 and d["stopped"] for d in done)


@pytest.mark.skipif("PENSTOCK_TEST_KAFKA" not in os.environ, reason="needs a broker that outlives a process: set PENSTOCK_TEST_KAFKA")
def test_killed_while_it_streams_every_number_is_there_in_the_end(kafka, server, tmp_path):  # noqa: F811
    make_topics(kafka)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "kafka": {"servers": kafka.servers, "prefix": kafka.prefix},
        "exchange": {"names": ["binance"], "symbols": ["BTC/USDT"], "beat_s": 0.05, "options": server.options},
    }))
    command = [sys.executable, "-m", "cli.main", "ingest", "--config", str(config), "--writer", "live", "--linger-ms", "50"]
    for attempt in range(4):
        with running(command) as child:
            until(lambda child=child: child.poll() is not None or sum(bool(s.streams) for s in server.sockets) == 2)
            server.play(MESSAGES[200 * attempt : 200 * attempt + 200], rate=200)
            child.send_signal(signal.SIGKILL if attempt < 3 else signal.SIGTERM)
            said, errors = child.communicate(timeout=60)
        until(lambda: not server.sockets)
    assert child.returncode == 0, errors
    found = on_topics(kafka, writer_id("live"), ("BTC/USDT",))
    assert sorted(found) == list(range(len(found)))
    ids = ids_on(found)
    assert ids == sorted(set(ids)) and ids[-1] == server.trades["BTCUSDT"][-1]["a"]
    there = [t["a"] for t in server.trades["BTCUSDT"]]
    assert ids == there[there.index(ids[0]):]  # what was traded while no process ran was fetched too
    assert said.startswith("stopped: ") and "resumed from number" in said


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "name one source: --file PATH"),
    (["--file", "a", "--simulate", "1:1:1"], "these are --file, --simulate"),
    (["--file", "no-such-file.parquet"], "no-such-file.parquet: no such file"),
    (["--simulate", "20:x:7"], "write it like 20:24:7"),
    (["--simulate", "2:1:7", "--pace", "fast"], "1x, 60x or max"),
    (["--simulate", "2:1:7", "--beat", "soon"], "--beat"),
    (["--simulate", "2:1:7", "--codec", "avro"], "is not json or arrow"),
    (["--simulate", "2:1:7", "--writer", "a/b"], "other characters"),
    (["--simulate", "2:1:7", "--symbols", "A/B"], "--symbols is for --exchange"),
    (["--simulate", "2:1:7", "--from", "2024-01-01"], "are for recordings"),
    (["--exchange", "binance", "--pace", "60x"], "an exchange comes as it comes"),
    (["--exchange", "binance", "--symbols", "A/B,A/B"], 'symbol "A/B" is named twice'),
])  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, said, capsys):
    from cli.errors import guarded
    from cli.main import app
    assert guarded(lambda: app(["ingest", *arguments], standalone_mode=False)) == 2
    assert said in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_said(tmp_path, capsys):
    from cli.errors import guarded
    from cli.main import app
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"kafka": {"servers": "127.0.0.1:9"}}))
    assert guarded(lambda: app(["ingest", "--simulate", "2:0.1:7", "--config", str(config)], standalone_mode=False)) == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err
