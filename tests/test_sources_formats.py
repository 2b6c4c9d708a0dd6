"""Formats are recognised by content: Binance's dumps in their variants, containers, our own tables, names of files."""

import gzip
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from schemas.codec import to_arrow
from schemas.errors import UserError
from schemas.tables import ALL_SYMBOLS, BARS, BEATS, QUOTES, TRADES
from sources.names import interval_of, symbol_of
from sources.tape import open_tape
from tests.sources_files import START_NS, same, some_rows, whole, write_rows

T_MS = 1_704_067_200_000
TRADE_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"
AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
KLINE_HEADER = ("open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
                "taker_buy_quote_volume,ignore")  # fmt: skip


def trade_lines(unit, extra=""):
    per = {"ms": 1, "us": 1000}[unit]
    return [f"{7 + k},{100 + k}.5,0.25,25.1,{(T_MS + k) * per},{k % 2 == 0!s}{extra}" for k in range(5)]


def agg_lines(unit, extra=""):
    per = {"ms": 1, "us": 1000}[unit]
    return [f"{7 + k},{100 + k}.5,0.25,1,2,{(T_MS + k) * per},{str(k % 2 == 0).lower()}{extra}" for k in range(5)]


def kline_lines(unit):
    per = {"ms": 1, "us": 1000}[unit]
    return [f"{(T_MS + k * 60_000) * per},10,12,9,11,4,{(T_MS + (k + 1) * 60_000) * per - 1},42,3,1.5,16,0" for k in range(5)]


def packed(path, text, how):
    if how == "csv":
        path.write_bytes(text)
    elif how == "gz":
        path.write_bytes(gzip.compress(text))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.stem + ".csv", text)
    return str(path)


@pytest.mark.parametrize("how", ["csv", "gz", "zip"])
@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("dump", ["trades", "spot trades", "aggTrades", "spot aggTrades"])
def test_binance_trades(tmp_path, how, unit, header, dump):
    spot = ",True" if dump.startswith("spot") else ""
    lines = agg_lines(unit, spot) if "agg" in dump else trade_lines(unit, spot)
    head = [(AGG_HEADER if "agg" in dump else TRADE_HEADER) + (",is_best_match" if spot else "")] if header else []
    name = f"ETHUSDT-{dump.split()[-1]}-2024-01-01.{how}"
    tape = open_tape([packed(tmp_path / name, "\n".join(head + lines).encode() + b"\n", how)])
    assert (tape.symbols, tape.kinds) == (("ETHUSDT",), ("trades",))
    rows = whole(tape.frames(3))["trades"]
    assert rows["ts_event_ns"].tolist() == [(T_MS + k) * 10**6 for k in range(5)]
    assert rows["price"].tolist() == [100.5, 101.5, 102.5, 103.5, 104.5] and (rows["size"] == 0.25).all()
    assert rows["side"].tolist() == [2, 1, 2, 1, 2], "the buyer made: the seller was the aggressor"
    assert rows["trade_id"].tolist() == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("header", [True, False])
def test_binance_klines(tmp_path, unit, header):
    lines = ([KLINE_HEADER] if header else []) + kline_lines(unit)
    tape = open_tape([packed(tmp_path / "BTCUSDT-1m-2024-01.zip", "\n".join(lines).encode(), "zip")])
    assert (tape.symbols, tape.kinds, tape.recorded_ns) == (("BTCUSDT",), ("recorded",), (60 * 10**9,))
    bar = whole(tape.frames(100))["recorded"][1]
    opened = (T_MS + 60_000) * 10**6
    assert (bar["ts_open_ns"], bar["ts_close_ns"], bar["ts_event_ns"]) == (opened, opened + 60 * 10**9, opened + 60 * 10**9)
    assert (bar["volume"], bar["notional"], bar["vwap"], bar["trades"], bar["buy_volume"]) == (4, 42, 10.5, 3, 1.5)


def test_one_bar_takes_its_interval_from_the_name(tmp_path):
    text = "date,open,high,low,close,volume\n2024-01-01,1,2,1,2,5\n"
    (tmp_path / "BTCUSDT-4h-2024-01.csv").write_text(text)
    assert open_tape([str(tmp_path / "BTCUSDT-4h-2024-01.csv")]).recorded_ns == (4 * 3600 * 10**9,)
    (tmp_path / "BTCUSDT.csv").write_text(text)
    with pytest.raises(UserError, match=r"BTCUSDT\.csv: its bars give no end"):
        open_tape([str(tmp_path / "BTCUSDT.csv")])


def test_interval_is_the_most_common_step(tmp_path):
    minutes = [0, 1, 2, 3, 10, 11, 12, 40]
    text = "timestamp,symbol,open,high,low,close\n" + "".join(
        f"{T_MS + m * 60_000},{s},1,1,1,1\n" for m in minutes for s in ("B", "A")
    )
    (tmp_path / "two.csv").write_text(text)
    tape = open_tape([str(tmp_path / "two.csv")])
    assert tape.recorded_ns == (60 * 10**9,) and tape.symbols == ("A", "B")
    bars = whole(tape.frames(3))["recorded"]
    assert bars["symbol"].tolist() == [1, 0] * len(minutes), "the file's order stays"
    assert (bars["volume"] == 0).all() and (bars["vwap"] == 1).all()


TIMES = {
    "2024-01-01 00:00:01.5": "2024-01-01T00:00:01.5",
    "2024-01-01T00:00:01.250Z": "2024-01-01T00:00:01.25",
    "2024-01-01T02:00:01+02:00": "2024-01-01T00:00:01",
    "2024-01-01 00:00": "2024-01-01T00:00",
    "2024-01-01": "2024-01-01",
    "1/31/2024": "2024-01-31",
    "1/31/2024 13:05": "2024-01-31T13:05",
    "20240131": "2024-01-31",
    "1704067201": "2024-01-01T00:00:01",
    "1704067201.25": "2024-01-01T00:00:01.25",
    "1704067201250": "2024-01-01T00:00:01.25",
    "1704067201250001": "2024-01-01T00:00:01.250001",
    "1704067201250000001": "2024-01-01T00:00:01.250000001",
}


@pytest.mark.parametrize("text", TIMES)
def test_times_as_people_write_them(tmp_path, text):
    (tmp_path / "ABC.csv").write_bytes(b"\xef\xbb\xbf" + f"Timestamp,Price,Amount\r\n{text},1,2\r\n".encode())
    rows = whole(open_tape([str(tmp_path / "ABC.csv")]).frames(10))["trades"]
    assert np.datetime64(int(rows["ts_event_ns"][0]), "ns") == np.datetime64(TIMES[text], "ns")


def test_parquet_times_of_every_unit(tmp_path):
    for unit, value in (("s", 1_704_067_201), ("ms", T_MS + 1000), ("us", (T_MS + 1000) * 1000), ("ns", START_NS)):
        table = pa.table({"timestamp": pa.array([value], pa.timestamp(unit, "UTC")), "price": [1.0], "size": [1]})
        pq.write_table(table, tmp_path / f"X{unit}Y.parquet")
        tape = open_tape([str(tmp_path / f"X{unit}Y.parquet")])
        expected = START_NS if unit == "ns" else (T_MS + 1000) * 10**6
        assert whole(tape.frames(1))["trades"]["ts_event_ns"].tolist() == [expected]
        assert tape.ts_range == (expected, expected)


def test_own_tables_in_every_container(tmp_path):
    trades = some_rows(TRADES, range(100))
    trades["side"], trades["trade_id"], trades["symbol"] = np.arange(100) % 3, np.arange(100), np.arange(100) % 2
    table = to_arrow(TRADES, trades, ("AAA", "BBB"))
    paths = [tmp_path / n for n in ("a.parquet", "b.arrow", "c.arrows", "d.csv", "e.csv.gz", "f.csv.zip", "g.feather")]
    pq.write_table(table, paths[0])
    with pa.ipc.new_file(paths[1], table.schema) as file:
        file.write_table(table, max_chunksize=30)
    with pa.ipc.new_stream(paths[2], table.schema) as stream:
        stream.write_table(table, max_chunksize=30)
    pyarrow.csv.write_csv(table, paths[3])
    packed(paths[4], paths[3].read_bytes(), "gz")
    packed(paths[5], paths[3].read_bytes(), "zip")
    pyarrow.feather.write_feather(table, paths[6], compression="zstd")
    trades["seq"] = np.arange(100)
    for path in paths:
        tape = open_tape([str(path)])
        assert tape.symbols == ("AAA", "BBB")
        assert same(whole(tape.frames(33)), {"trades": trades}), path.name


def test_own_quotes_beats_and_bars(tmp_path):
    quotes = some_rows(QUOTES, range(5))
    quotes["ask"] = quotes["bid"] + 1
    beats = some_rows(BEATS, range(0, 9, 2), ALL_SYMBOLS)
    bars = some_rows(BARS, range(3, 8))
    bars["first_seq"], bars["last_seq"], bars["trades"], bars["gap"] = 3, 4, 5, 6
    quotes_at = write_rows(tmp_path / "q.parquet", QUOTES, quotes, ("AAA",))
    beats_at = write_rows(tmp_path / "b.parquet", BEATS, beats, ("AAA",))
    bars_at = write_rows(tmp_path / "bars.parquet", BARS, bars, ("AAA",))
    tape = open_tape([quotes_at, beats_at, bars_at])
    assert (tape.symbols, tape.kinds) == (("AAA",), ("quotes", "recorded", "beats"))
    found = whole(tape.frames(4))
    assert (found["beats"]["symbol"] == ALL_SYMBOLS).all()
    for name, rows in (("quotes", quotes), ("beats", beats), ("recorded", bars)):
        columns = [n for n in rows.dtype.names if n not in ("seq", "first_seq", "last_seq")]
        assert all(found[name][c].tobytes() == rows[c].tobytes() for c in columns)
    alone = tmp_path / "beats.csv"
    alone.write_text(f"ts_event_ns\n{START_NS}\n")
    assert whole(open_tape([str(alone)]).frames(1))["beats"]["symbol"].tolist() == [ALL_SYMBOLS]


def test_feature_exports_are_bars_by_their_open_time(tmp_path):
    opened = START_NS + np.arange(4) * 60 * 10**9
    table = pa.table({"symbol": ["A"] * 4, "ts_open_ns": opened, "open": [1.0] * 4, "high": [1.0] * 4, "low": [1.0] * 4,
                      "close": [1.0] * 4, "volume": [1.0] * 4, "rsi(14)": [None, None, 3.0, 4.0]})  # fmt: skip
    pq.write_table(table, tmp_path / "features.parquet")
    bars = whole(open_tape([str(tmp_path / "features.parquet")]).frames(10))["recorded"]
    assert bars["ts_event_ns"].tolist() == (opened + 60 * 10**9).tolist()


def test_wrong_prices_are_passed_on_for_the_quality_step(tmp_path):
    (tmp_path / "ABC.csv").write_text(f"time,price,size\n{T_MS},nan,1\n{T_MS},-1,0\n{T_MS - 5},,inf\n")
    rows = whole(open_tape([str(tmp_path / "ABC.csv")]).frames(10))["trades"]
    assert np.isnan(rows["price"][[0, 2]]).all() and rows["price"][1] == -1 and np.isinf(rows["size"][2])
    assert rows["ts_event_ns"][2] < rows["ts_event_ns"][1]


def test_one_sided_quotes(tmp_path):
    """Zero is no update; the best of the exchanges; sizes add up; a newer quote removes what it crosses."""
    table = pa.table({
        "timestamp": [T_MS + k for k in range(6)],
        "bid": [10.0, 0.0, 11.0, 11.0, 0.0, 99.0],
        "ask": [0.0, 12.0, 0.0, 0.0, 10.5, 0.0],
        "bid_size": [1, 0, 2, 3, 0, 9],
        "ask_size": [0, 5, 0, 0, 4, 0],
        "exchange": ["P", "Q", "Q", "P", "P", "Q"],
        "suspicious": [False] * 5 + [True],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "XYZ.parquet")
    rows = whole(open_tape([str(tmp_path / "XYZ.parquet")]).frames(2))["quotes"]
    assert rows["bid"].tolist() == [10, 10, 11, 11, 0, 99] and rows["ask"].tolist() == [0, 12, 12, 12, 10.5, 0]
    assert rows["bid_size"].tolist() == [1, 1, 2, 5, 0, 9] and rows["ask_size"].tolist() == [0, 5, 5, 5, 4, 0]
    assert rows["flags"].tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT-trades-2024-01-01.zip", "BTCUSDT"), ("BTCUSDT-1m-2024-01.csv", "BTCUSDT"), ("IBM_20131007_11.parquet", "IBM"),
        ("XRPETH_bars_1m.parquet", "XRPETH"), ("usdm_btcusdt_20240808.gz", "BTCUSDT"), ("spot_btcusdt_20240809.gz", "BTCUSDT"),
        ("BTCUSDT_book_top_20260615.parquet", "BTCUSDT"), ("msft.csv", "MSFT"), ("1000SHIBUSDT-aggTrades-2024-01.csv", "1000SHIBUSDT"),
        ("BTC-USDT.csv.gz", "BTC-USDT"), ("BTCUSD_PERP-trades-2024-01-01.zip", "BTCUSD"), ("folder/eurusd_201405.parquet", "EURUSD"),
    ],
)  # fmt: skip
def test_symbols_in_names(name, symbol):
    assert symbol_of(name) == symbol


def test_intervals_in_names():
    assert interval_of("BTCUSDT-1h-2024-01.csv") == 3600 * 10**9 and interval_of("BTCUSDT.csv") is None
