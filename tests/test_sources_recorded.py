"""Every recorded file of the data folder is recognised by its content: table, symbol, rows, first and last of them."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.errors import UserError
from sources.tape import open_tape
from tests.sources_files import whole

DATA = Path(os.environ.get("PENSTOCK_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no recorded data in {DATA}; set PENSTOCK_DATA")

MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9


def ns(text):
    return int(np.datetime64(text, "ns").astype(np.int64))


@pytest.mark.parametrize(
    ("folder", "symbols", "rows", "interval_ns"),
    [
        ("bars/spot_1m_2021-04_05", 16, 980_404, MINUTE),
        ("bars/spot_1h_2017_2021", 15, 359_165, HOUR),
        ("bars/perp_1m_2025-05_06", 9, 388_794, MINUTE),
    ],
)
def test_folders_of_bars(folder, symbols, rows, interval_ns):
    tape = open_tape([str(DATA / folder)])
    assert tape.kinds == ("recorded",)
    assert tape.symbols == tuple(sorted(p.stem for p in (DATA / folder).glob("*.parquet"))) and len(tape.symbols) == symbols
    assert tape.recorded_ns == (interval_ns,)
    expected = sum(pq.ParquetFile(p).metadata.num_rows for p in (DATA / folder).glob("*.parquet"))
    assert tape.rows_total == rows == expected
    last, n, low = 0, 0, None
    for frame in tape.frames(50_000):
        bars = frame.tables["recorded"]
        n += len(bars)
        low = int(bars["ts_event_ns"][0]) if low is None else low
        assert (np.diff(bars["ts_event_ns"]) >= 0).all() and bars["ts_event_ns"][0] >= last
        assert (bars["ts_close_ns"] == bars["ts_event_ns"]).all() and (bars["interval_ns"] == interval_ns).all()
        assert (bars["ts_close_ns"] - bars["ts_open_ns"] == interval_ns).all()
        last = int(bars["ts_event_ns"][-1])
    assert n == rows
    assert tape.ts_range == (low, last)


def test_bars_are_known_at_their_close():
    rows = whole(open_tape([str(DATA / "bars/spot_1m_2021-04_05/BTCUSDT.parquet")]).frames(65_536))["recorded"]
    first = rows[0]
    assert (first["ts_open_ns"], first["ts_event_ns"]) == (ns("2021-04-02T00:00"), ns("2021-04-02T00:01"))
    assert (first["open"], first["high"], first["low"], first["close"]) == (58720.45, 58840.43, 58720.44, 58760.34)
    assert first["volume"] == 61.685675 and first["notional"] == first["volume"] * first["close"]
    assert first["vwap"] == first["close"] and first["trades"] == 0 and np.isnan(first["buy_volume"])
    assert np.isnan(rows["bid"]).all() and (rows["first_seq"] == rows["seq"]).all()


@pytest.mark.parametrize(
    ("path", "symbol", "kind", "rows", "first", "last"),
    [
        ("trades/XRPETH_20191011_13.parquet", "XRPETH", "trades", 12_477,
         ("2019-10-11T00:00:11.620", {"price": 0.00141342, "size": 23.0, "side": 2, "trade_id": 13_519_807}),
         ("2019-10-13T11:19:28.844", {"price": 0.00152787, "size": 130.0, "side": 2, "trade_id": 13_532_283})),
        ("trades/IBM_20131007_11.parquet", "IBM", "trades", 125_519,
         ("2013-10-07T13:30:01.031", {"price": 181.85, "size": 111.0, "side": 0, "trade_id": -1}),
         ("2013-10-11T20:01:13.722", {"price": 186.16, "size": 181_242.0, "side": 0, "trade_id": -1})),
        ("trades/XRPETH_bars_1m.parquet", "XRPETH", "recorded", 2_469,
         ("2019-10-11T00:01", {"interval_ns": MINUTE, "volume": 1482.0}), ("2019-10-13T11:20", {"close": 0.00152787})),
        ("trades/XRPETH_bars_5m.parquet", "XRPETH", "recorded", 706,
         ("2019-10-11T00:05", {"interval_ns": 5 * MINUTE, "volume": 3478.0}), ("2019-10-13T11:20", {"volume": 11_786.0})),
        ("quotes/IBM_20131007_11.parquet", "IBM", "quotes", 575_594,
         ("2013-10-07T08:00:00.054", {"bid": 0.0, "ask": 183.63, "ask_size": 100.0}),
         ("2013-10-12T00:00:00.064", {"flags": 0})),
        ("quotes/EURUSD_201405.parquet", "EURUSD", "quotes", 532_903,
         ("2014-05-01T00:00:00.292", {"bid": 1.38676, "ask": 1.38686}), ("2014-05-15T23:59:56.324", {"bid": 1.37164})),
        ("quotes/BTCUSDT_book_top_20260615.parquet", "BTCUSDT", "quotes", 8_377,
         ("2026-06-15T05:45:31.053108", {"bid": 65725.99, "ask": 65726.0, "bid_size": 13.51761, "ask_size": 9.0506}),
         ("2026-06-15T22:16:34.158888", {"bid": 66373.98, "ask": 66373.99})),
        ("indicators/quotes/bitcoin.csv", "BITCOIN", "recorded", 1_246, ("2017-08-17", {"open": 4261.48}), ("2021-01-13", {})),
        ("indicators/quotes/default.csv", "DEFAULT", "recorded", 502, ("2017-01-04", {"close": 212.8}), ("2019-01-01", {})),
        ("indicators/quotes/compare.csv", "COMPARE", "recorded", 502, ("2017-01-04", {"close": 216.99}), ("2019-01-01", {})),
        ("indicators/quotes/intraday.csv", "INTRADAY", "recorded", 1_564,
         ("2020-12-15T09:31", {"interval_ns": MINUTE}), ("2020-12-18T16:01", {})),
        ("indicators/quotes/longish.csv", "LONGISH", "recorded", 5_285, ("1999-09-08", {"interval_ns": DAY}), ("2020-09-05", {})),
        ("indicators/quotes/msft.csv", "MSFT", "recorded", 8_111, ("1990-01-03", {"volume": 0.0}), ("2022-03-11", {})),
        ("indicators/quotes/spx.csv", "SPX", "recorded", 8_111, ("1990-01-03", {"open": 353.4}), ("2022-03-11", {})),
    ],
)  # fmt: skip
def test_files(path, symbol, kind, rows, first, last):
    tape = open_tape([str(DATA / path)])
    assert (tape.symbols, tape.kinds) == ((symbol,), (kind,))
    found = whole(tape.frames(65_536))[kind]
    assert len(found) == rows and tape.rows_total in (None, rows)
    assert (found["seq"] == np.arange(rows)).all() and (found["symbol"] == 0).all()
    for row, (time, values) in ((found[0], first), (found[-1], last)):
        assert row["ts_event_ns"] == ns(time)
        assert {k: row[k] for k in values} == values
    assert tape.ts_range == (found["ts_event_ns"].min(), found["ts_event_ns"].max())


def test_one_sided_quotes_of_exchanges_become_a_book():
    """The built book is two-sided after the first rows, hardly ever empty, never crossed, and trades print in it."""
    quotes = whole(open_tape([str(DATA / "quotes/IBM_20131007_11.parquet")]).frames(65_536))["quotes"]
    clean = quotes[quotes["flags"] == 0]
    assert len(quotes) - len(clean) == 6
    two_sided = clean[(clean["bid"] > 0) & (clean["ask"] > 0)]
    assert len(two_sided) > 0.999 * len(clean) and (two_sided["bid"] <= two_sided["ask"]).all()
    assert np.median(two_sided["ask"] - two_sided["bid"]) <= 0.02
    trades = whole(open_tape([str(DATA / "trades/IBM_20131007_11.parquet")]).frames(65_536))["trades"]
    at = np.searchsorted(quotes["ts_event_ns"], trades["ts_event_ns"], side="right") - 1
    middle = (quotes["bid"][at] + quotes["ask"][at]) / 2
    assert np.median(np.abs(trades["price"] - middle)) <= 0.02


def test_unknown_sizes_of_quotes_are_nan():
    quotes = whole(open_tape([str(DATA / "quotes/EURUSD_201405.parquet")]).frames(1 << 20))["quotes"]
    assert np.isnan(quotes["bid_size"]).all() and np.isnan(quotes["ask_size"]).all()


@pytest.mark.parametrize(
    ("path", "symbol", "quotes", "trades", "depth", "first_trade"),
    [
        ("usdm_btcusdt_20240808.gz", "BTCUSDT", 66_089, 21_313, 6_551, (61_800.3, 0.006, 1, 5_266_583_935)),
        ("usdm_ethusdt_20240808.gz", "ETHUSDT", 53_992, 14_076, 6_586, (2_681.62, 1.0, 2, 4_308_068_523)),
        ("spot_btcusdt_20240809.gz", "BTCUSDT", 45_134, 10_147, 3_044, (61_685.99, 0.00017, 2, 3_735_693_016)),
    ],
)
def test_frames(path, symbol, quotes, trades, depth, first_trade):
    tape = open_tape([str(DATA / "frames" / path)])
    assert (tape.symbols, tape.kinds) == ((symbol,), ("quotes", "trades"))
    assert tape.skipped["depthUpdate"] == depth and tape.rows_total == quotes + trades
    found = whole(tape.frames(65_536))
    assert (len(found["quotes"]), len(found["trades"])) == (quotes, trades)
    row = found["trades"][0]
    assert (row["price"], row["size"], row["side"], row["trade_id"]) == first_trade
    for rows in found.values():
        assert (np.diff(rows["ts_event_ns"]) >= 0).all() and (np.diff(rows["seq"]) > 0).all()


def test_trades_and_bars_of_one_symbol_contradict_each_other():
    with pytest.raises(UserError, match=r"XRPETH_20191011_13.parquet \(trades\) and .*XRPETH_bars_1m.parquet \(bars\) both"):
        open_tape([str(DATA / "trades")])
