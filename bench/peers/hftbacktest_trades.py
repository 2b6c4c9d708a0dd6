"""hftbacktest on the shared trades with a top of book around them: bars and EMA 10/30 in numba, orders through its engine.

hftbacktest needs market depth, so every trade comes with depth events: 2 where the touch stands still, 4 where it moved.
Timed: the numba strategy, both processors of every event (1 ms feed latency, 5 + 5 ms order latency), the queue model,
fees, orders and fills. Not timed: making the event array, compilation (one warm-up run), building the backtest object.
On a cross: a market order to flatten and a post-only limit order at the touch to open, which is sent as a market order
where it has not filled by the next bar. --mode elapse wakes the strategy once a minute with the minute's trades, feed at
every event. The depth is ROIVectorMarketDepth, the faster of the two. Prints one JSON line.
"""

import argparse
import json
import statistics
import time

import hftbacktest
import numpy as np
from hftbacktest import (
    BUY_EVENT,
    DEPTH_EVENT,
    EXCH_EVENT,
    GTC,
    GTX,
    LIMIT,
    LOCAL_EVENT,
    MARKET,
    SELL_EVENT,
    TRADE_EVENT,
    BacktestAsset,
    ROIVectorMarketDepthBacktest,
)
from hftbacktest.types import event_dtype
from numba import njit

MINUTE = 60_000_000_000
QUANTITY = 0.01
BID = DEPTH_EVENT | BUY_EVENT | EXCH_EVENT | LOCAL_EVENT
ASK = DEPTH_EVENT | SELL_EVENT | EXCH_EVENT | LOCAL_EVENT
BOUGHT = TRADE_EVENT | BUY_EVENT | EXCH_EVENT | LOCAL_EVENT
SOLD = TRADE_EVENT | SELL_EVENT | EXCH_EVENT | LOCAL_EVENT


@njit
def put(out, k, ev, ts, px, qty):
    out[k].ev = ev
    out[k].exch_ts = ts
    out[k].local_ts = ts + 1_000_000
    out[k].px = px
    out[k].qty = qty
    return k + 1


@njit
def fill(out, trades):
    k = 0
    bid = trades[0].bid
    k = put(out, k, BID, trades[0].ts_event_ns, bid, 1.0)
    k = put(out, k, ASK, trades[0].ts_event_ns, bid + 1.0, 1.0)
    n = len(trades)
    for i in range(n):
        t = trades[i]
        ts = t.ts_event_ns
        q1 = 0.5 + t.size * 10
        q2 = 0.5 + trades[n - 1 - i].size * 10
        if t.bid > bid:
            k = put(out, k, ASK, ts, t.bid + 1.0, q2)
            k = put(out, k, ASK, ts, t.bid, 0.0)
            k = put(out, k, BID, ts, t.bid, q1)
            k = put(out, k, BID, ts, bid, 0.0)
        elif t.bid < bid:
            k = put(out, k, BID, ts, t.bid, q1)
            k = put(out, k, BID, ts, bid, 0.0)
            k = put(out, k, ASK, ts, t.bid + 1.0, q2)
            k = put(out, k, ASK, ts, bid + 1.0, 0.0)
        else:
            k = put(out, k, BID, ts, bid, q1)
            k = put(out, k, ASK, ts, bid + 1.0, q2)
        bid = t.bid
        k = put(out, k, BOUGHT if t.buy else SOLD, ts, t.price, t.size)
    return k


@njit
def on_bar(hbt, close, st, f):
    # st: 0 bars, 1 side, 2 next order id, 3 resting id (0 none), 4 orders sent, 5 crosses; f: 0 fast, 1 slow
    if st[0] == 0:
        f[0] = close
        f[1] = close
    else:
        f[0] += 2 / 11 * (close - f[0])
        f[1] += 2 / 31 * (close - f[1])
    st[0] += 1
    hbt.clear_inactive_orders(0)
    if st[3]:
        o = hbt.orders(0)
        if st[3] in o:
            if o.get(st[3]).cancellable:
                hbt.cancel(0, st[3], False)
            d = hbt.depth(0)
            if st[1] > 0:
                hbt.submit_buy_order(0, st[2], d.best_ask, QUANTITY, GTC, MARKET, False)
            else:
                hbt.submit_sell_order(0, st[2], d.best_bid, QUANTITY, GTC, MARKET, False)
            st[2] += 1
            st[4] += 1
        st[3] = 0
    if st[0] < 30:
        return
    side = 1 if f[0] > f[1] else -1
    if side != st[1]:
        d = hbt.depth(0)
        if st[1]:
            if side > 0:
                hbt.submit_buy_order(0, st[2], d.best_ask, QUANTITY, GTC, MARKET, False)
            else:
                hbt.submit_sell_order(0, st[2], d.best_bid, QUANTITY, GTC, MARKET, False)
            st[2] += 1
            st[4] += 1
        if side > 0:
            hbt.submit_buy_order(0, st[2], d.best_bid, QUANTITY, GTX, LIMIT, False)
        else:
            hbt.submit_sell_order(0, st[2], d.best_ask, QUANTITY, GTX, LIMIT, False)
        st[3] = st[2]
        st[2] += 1
        st[4] += 1
        st[1] = side
        st[5] += 1


@njit
def take(hbt, bars, nb, bar, st, f, minute):
    tr = hbt.last_trades(0)
    for j in range(len(tr)):
        m = tr[j].exch_ts // MINUTE
        px = tr[j].px
        if m != minute:
            if minute >= 0:
                bars[nb, :] = bar
                nb += 1
                on_bar(hbt, bar[3], st, f)
            minute = m
            bar[0] = bar[1] = bar[2] = bar[3] = px
            bar[4] = 0.0
        if px > bar[1]:
            bar[1] = px
        if px < bar[2]:
            bar[2] = px
        bar[3] = px
        bar[4] += tr[j].qty
    hbt.clear_last_trades(0)
    return nb, minute


@njit
def run_feed(hbt, bars, st, f):
    nb = 0
    minute = -1
    bar = np.zeros(5)
    while hbt.wait_next_feed(False, MINUTE) != 1:
        nb, minute = take(hbt, bars, nb, bar, st, f, minute)
    return take(hbt, bars, nb, bar, st, f, minute)[0]


@njit
def run_elapse(hbt, bars, st, f):
    nb = 0
    minute = -1
    bar = np.zeros(5)
    while hbt.elapse(MINUTE) == 0:
        nb, minute = take(hbt, bars, nb, bar, st, f, minute)
    return take(hbt, bars, nb, bar, st, f, minute)[0]


def once(data, minutes, mode):
    asset = (
        BacktestAsset()
        .data(data)
        .linear_asset(1.0)
        .constant_order_latency(5_000_000, 5_000_000)
        .power_prob_queue_model(3.0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0002, 0.0007)
        .tick_size(1.0)
        .lot_size(0.001)
        .last_trades_capacity(10_000)
        .roi_lb(data["px"].min() - 100)
        .roi_ub(data["px"].max() + 100)
    )
    hbt = ROIVectorMarketDepthBacktest([asset])
    bars = np.zeros((minutes + 10, 5))
    st = np.zeros(8, "int64")
    st[2] = 1
    started, used = time.perf_counter(), time.process_time()
    made = (run_feed if mode == "feed" else run_elapse)(hbt, bars, st, np.zeros(2))
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    state = hbt.state_values(0)
    found = {"bars": int(made), "crosses": int(st[5]), "orders": int(st[4]), "fills": int(state.num_trades)}
    hbt.close()
    return seconds, cpu, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--mode", choices=["feed", "elapse"], default="elapse")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    trades = np.load(given.path)
    events = np.zeros(len(trades) * 5 + 2, event_dtype)
    events = events[: fill(events, trades)]
    minutes = int((trades["ts_event_ns"][-1] - trades["ts_event_ns"][0]) // MINUTE)
    once(events[: min(len(events), 80_000)].copy(), minutes, given.mode)
    runs = [once(events, minutes, given.mode) for _ in range(given.runs)]
    seconds = statistics.median(r[0] for r in runs)
    print(
        json.dumps(
            {
                "version": hftbacktest.__version__,
                "rows": len(trades),
                "seconds": round(seconds, 4),
                "rows_per_second": round(len(trades) / seconds),
                "work": f"trades and top of book, bars and EMAs in numba, latency, queue model, fees ({given.mode}, ROI vector depth)",
                "cpu_seconds": round(statistics.median(r[1] for r in runs), 4),
                "events": len(events),
                "runs": [round(r[0], 4) for r in runs],
                **runs[-1][2],
            }
        )
    )


main()
