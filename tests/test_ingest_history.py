"""History from a local exchange with holes: fetched within its limits, resumed after any end, its holes asked for twice and listed."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest

from schemas.config_live import ExchangeConfig
from schemas.errors import PenstockError, UserError
from sources import history
from sources.history import fetch_history
from sources.history_pages import Pages
from sources.tape import open_tape
from tests.exchange_server import MINUTE_MS, ExchangeServer, recorded
from tests.ingest_topics import make_topics, on_topics
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.sources_files import whole

START_MS = 1_723_161_600_000


@pytest.fixture
def server():
    with ExchangeServer() as one:
        one.klines["BTCUSDT"] = [candle(k) for k in range(5000)]
        yield one


def candle(k):
    opened = START_MS + k * MINUTE_MS
    return [opened, str(100 + k), str(101 + k), str(99 + k), f"{100.5 + k}", "2.5", opened + MINUTE_MS - 1, "0", 1, "0", "0", "0"]


def configured(server, **more):
    return ExchangeConfig(**{"symbols": ("BTC/USDT",), "timeout_s": 2.0, "requests_per_minute_max": 60_000.0, "options": server.options, **more})


def fetch(server, out, what="candles", first=0, last=5000, **more):
    return fetch_history(configured(server), what, "1m", START_MS + first * MINUTE_MS, START_MS + last * MINUTE_MS, out, **more)


def test_candles_are_a_tape_of_bars(server, tmp_path):
    done = fetch(server, tmp_path)
    assert done["rows"] == 5000 and done["missing"] == 0 and not done["stopped"]
    tape = open_tape([str(tmp_path)])
    assert tape.symbols == ("BTC/USDT",) and tape.kinds == ("recorded",) and tape.recorded_ns == (60 * 10**9,)
    rows = whole(tape.frames(1000))["recorded"]
    assert (rows["ts_open_ns"] // 10**6 == START_MS + np.arange(5000) * MINUTE_MS).all() and (rows["gap"] == 0).all()
    assert (rows["open"] == 100 + np.arange(5000)).all() and (rows["close"] == 100.5 + np.arange(5000)).all() and (rows["volume"] == 2.5).all()
    assert json.loads((tmp_path / "gaps.json").read_text()) == {"BTC-USDT-1m.parquet": []}
    assert sum(path == "klines" for _, path, _ in server.requests) <= 7


def test_holes_are_asked_for_again_and_what_stays_is_listed_and_marked(server, tmp_path):
    """One hole is filled the second time, one stays, the history begins late and ends early."""
    kept = server.klines["BTCUSDT"]
    missing = {*range(700, 710), *range(3000, 3003), *range(0, 50), *range(4990, 5000)}
    server.klines["BTCUSDT"] = [k for n, k in enumerate(kept) if n not in missing]

    def progress(share, note):
        if share > 0.99:
            server.klines["BTCUSDT"] = [k for n, k in enumerate(kept) if n not in missing - set(range(3000, 3003))]

    done = fetch(server, tmp_path, progress=progress)
    assert done["rows"] == 4930 and done["missing"] == 70
    gaps = done["files"][0]["gaps"]
    assert [g["missing"] for g in gaps] == [50, 10, 10] or sorted(g["missing"] for g in gaps) == [10, 10, 50]
    assert {"from": "2024-08-09T11:40:00Z", "to": "2024-08-09T11:50:00Z", "missing": 10} in gaps
    assert json.loads((tmp_path / "gaps.json").read_text())["BTC-USDT-1m.parquet"] == gaps
    rows = whole(open_tape([str(tmp_path)]).frames(1000))["recorded"]
    assert len(rows) == 4930 and rows["gap"].sum() == 10 and rows["gap"][rows["ts_open_ns"] // 10**6 == START_MS + 710 * MINUTE_MS] == 10


def test_an_unfinished_candle_is_left_out(server, tmp_path):
    now = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
    server.klines["BTCUSDT"] = [[now + (k - 9) * MINUTE_MS, *candle(0)[1:]] for k in range(10)]
    done = fetch_history(configured(server), "candles", "1m", now - 9 * MINUTE_MS, None, tmp_path)
    assert done["rows"] in (9, 10) and done["missing"] == 0


@pytest.mark.parametrize("what", ["candles", "trades"])
def test_ended_at_any_moment_it_goes_on_to_the_same_file(server, tmp_path, what, monkeypatch):
    play(server)
    fetch(server, tmp_path / "once", what)
    name = "BTC-USDT-1m.parquet" if what == "candles" else "BTC-USDT-trades.parquet"
    wanted = (tmp_path / "once" / name).read_bytes()
    monkeypatch.setattr(history, "FLUSH_S", -1.0)
    runs = 0
    while True:
        asked = []
        done = fetch(server, tmp_path / "often", what, stopping=lambda asked=asked: asked.append(1) or len(asked) > 2)
        runs += 1
        if not done["stopped"]:
            break
    assert runs > 1 and done["files"][0]["resumed_from_rows"] > 0
    rows = [whole(open_tape([str(tmp_path / d / name)]).frames(1000)) for d in ("once", "often")]
    for table in rows[0]:
        assert rows[0][table].tobytes() == rows[1][table].tobytes()
    before = len(server.requests)
    again = fetch(server, tmp_path / "once", what)
    assert again["files"][0]["already"] and (tmp_path / "once" / name).read_bytes() == wanted
    assert not any(path in ("klines", "aggTrades") for _, path, _ in server.requests[before:])


def play(server, lost=()):
    """Trades over three hours with consecutive ids, several in one ms."""
    messages = [m for m in recorded(9000) if "t" in m]
    ids = range(1000, 1000 + len(messages))
    server.trades["BTCUSDT"] = [
        {"a": i, "p": m["p"], "q": m["q"], "f": i, "l": i, "T": START_MS + 4_000_000 + k // 3 * 9_000, "m": m["m"], "M": True}
        for k, (i, m) in enumerate(zip(ids, messages, strict=True)) if k not in lost]


def test_trades_are_a_tape_and_their_holes_are_numbers(server, tmp_path):
    play(server, lost={100, 101, 500})
    done = fetch(server, tmp_path, "trades")
    found = whole(open_tape([str(tmp_path)]).frames(1000))["trades"]
    there = server.trades["BTCUSDT"]
    assert found["trade_id"].tolist() == [t["a"] for t in there] and len(there) > 1200
    assert found["price"].tolist() == [float(t["p"]) for t in there] and found["size"].tolist() == [float(t["q"]) for t in there]
    assert (found["ts_event_ns"] // 10**6).tolist() == [t["T"] for t in there] and found["side"].tolist() == [2 if t["m"] else 1 for t in there]
    assert done["files"][0]["gaps"] == [{"from_id": 1100, "to_id": 1101, "missing": 2}, {"from_id": 1500, "to_id": 1500, "missing": 1}]


def test_a_cut_in_time_is_kept_to_the_millisecond(server, tmp_path):
    play(server)
    first, end = START_MS + 4_000_000 + 9_000 * 50, START_MS + 4_000_000 + 9_000 * 400
    fetch_history(configured(server), "trades", "1m", first, end, tmp_path)
    found = whole(open_tape([str(tmp_path)]).frames(1000))["trades"]
    assert found["trade_id"].tolist() == [t["a"] for t in server.trades["BTCUSDT"] if first <= t["T"] < end] and len(found) == 1050


def test_a_ban_is_waited_for(server, tmp_path):
    server.refuse = (429, "2")
    threading.Timer(1.0, lambda: setattr(server, "refuse", None)).start()
    began = time.monotonic()
    assert fetch(server, tmp_path)["rows"] == 5000
    assert time.monotonic() - began >= 1.9 and sum(code == 429 for _, _, code in server.requests) == 1


def test_an_exchange_that_stays_away_ends_it_and_what_came_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "TRIES", 2)
    monkeypatch.setattr(history, "FLUSH_S", -1.0)
    calls = []

    def progress(share, note):
        calls.append(share)
        server.maintenance = len(calls) == 2

    with pytest.raises(PenstockError, match="did not answer 2 times .* what was fetched is kept, run the same command again"):
        fetch(server, tmp_path, progress=progress)
    server.maintenance = False
    done = fetch(server, tmp_path)
    assert done["rows"] == 5000 and done["files"][0]["resumed_from_rows"] == 2000


class Elsewhere:
    """An exchange whose trades are asked for by time alone, a few at once, with ids that are no numbers."""

    id, limit = "elsewhere", 4

    def __init__(self, times):
        self.trades = [{"id": f"t{k}", "timestamp": t, "price": 1.0, "amount": float(k), "side": "buy"} for k, t in enumerate(times)]

    async def fetch_trades(self, symbol, since, limit):
        return [t for t in self.trades if t["timestamp"] >= since][: self.limit]


@pytest.mark.parametrize("times", [
    [10, 10, 11, 12, 12, 12, 13, 14, 14, 15], [10] * 3 + [11] * 3 + [12] * 3, [10], [10, 20, 30, 40, 50, 60, 70, 80], [10, 11, 11, 11],
])  # fmt: skip
def test_trades_of_one_millisecond_are_not_lost_on_the_border_of_pages(times):
    pages = Pages(Elsewhere(times), "A/B", "trades", "1m", 10, 75)
    cursor, done, sizes = pages.start(), False, []
    while not done:
        page = asyncio.run(pages.page(cursor, 100))
        cursor, done = page.cursor, page.done
        sizes += page.rows["size"].tolist()
        assert len(sizes) <= len(times)
    assert sizes == [float(k) for k, t in enumerate(times) if t < 75]


def test_history_on_topics(server, kafka, tmp_path, monkeypatch, capsys):  # noqa: F811
    from cli.errors import guarded
    from cli.main import app
    monkeypatch.chdir(tmp_path)
    make_topics(kafka)
    play(server)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"exchange": {"options": server.options, "requests_per_minute_max": 60_000},
                                  "kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    command = ["fetch-history", "--exchange", "binance", "--symbols", "BTC/USDT", "--what", "trades", "--from", "2024-08-09", "--to", "2024-08-12",
               "--out", "kafka", "--config", str(config), "--json"]
    for attempt in range(2):
        assert guarded(lambda: app(command, standalone_mode=False)) == 0
        done = json.loads(capsys.readouterr().out)
        found = on_topics(kafka, done["writer_id"], ("BTC/USDT",))
        assert [int(r[6]) for _, r in sorted(found.items()) if r[0] == "trades"] == [t["a"] for t in server.trades["BTCUSDT"]]
        assert (sum(done["rows"].values()) == 0) == (attempt == 1)


@pytest.mark.parametrize(("change", "arguments", "said"), [
    ({"names": ("binanse",)}, {}, 'did you mean "binance"?'),
    ({"symbols": ("BTCUSDT",)}, {}, 'did you mean "BTC/USDT"?'),
    ({"symbols": ()}, {}, "no symbols"),
    ({}, {"what": "candle"}, 'did you mean "candles"?'),
    ({}, {"timeframe": "1n"}, 'unknown timeframe of binance "1n"'),
    ({}, {"from_ms": START_MS, "to_ms": START_MS}, "--from is not before --to"),
])  # fmt: skip
def test_what_is_asked_wrongly(server, tmp_path, change, arguments, said):
    with pytest.raises(UserError) as raised:
        fetch_history(configured(server, **change), out=tmp_path,
                      **{"what": "candles", "timeframe": "1m", "from_ms": START_MS, "to_ms": START_MS + 1000, **arguments})
    assert said in str(raised.value)


def test_another_range_into_the_same_file_is_refused(server, tmp_path):
    fetch(server, tmp_path, last=100)
    with pytest.raises(UserError, match="was begun with to_ms .* choose another --out"):
        fetch(server, tmp_path, last=200)


def test_the_command_says_what_came_and_what_is_missing(server, tmp_path, capsys):
    from cli.errors import guarded
    from cli.main import app
    server.klines["BTCUSDT"] = [k for n, k in enumerate(server.klines["BTCUSDT"]) if n not in (5, 6)]
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"exchange": {"options": server.options, "requests_per_minute_max": 60_000}}))
    command = ["fetch-history", "--exchange", "binance", "--symbols", "BTC/USDT", "--from", "2024-08-09", "--to", "2024-08-09T01:00",
               "--out", str(tmp_path / "h"), "--config", str(config)]
    assert guarded(lambda: app(command, standalone_mode=False)) == 0
    said = capsys.readouterr().out
    assert "does not have 2 between 2024-08-09T00:05:00Z and 2024-08-09T00:07:00Z" in said
    assert guarded(lambda: app([*command, "--json"], standalone_mode=False)) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["rows"] == 58 and done["missing"] == 2 and done["files"][0]["already"]
    assert guarded(lambda: app([*command[:-4], "--out", str(tmp_path / "g"), "--what", "fundings"], standalone_mode=False)) == 2
