"""vectorbt on the shared closes: EMA 10/30 cross, Portfolio.from_signals with fees, total return. No gate, no ledger.

Timed: indicators, crossings, simulation and the total return; not the making of the series, nor compilation.
Prints one JSON line.
"""

import argparse
import json
import statistics
import time

import numpy as np
import pandas as pd
import vectorbt as vbt


def once(closes):
    started, used = time.perf_counter(), time.process_time()
    fast, slow = vbt.MA.run(closes, 10, ewm=True), vbt.MA.run(closes, 30, ewm=True)
    made = vbt.Portfolio.from_signals(
        closes, fast.ma_crossed_above(slow), fast.ma_crossed_below(slow), fees=0.001, init_cash=1e7, freq="1min"
    )
    made.total_return()
    return time.perf_counter() - started, time.process_time() - used, made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    values = np.load(given.path)
    closes = pd.Series(values, index=pd.date_range("2020", periods=len(values), freq="min"))
    once(closes)
    runs = [once(closes) for _ in range(given.runs)]
    seconds = statistics.median(r[0] for r in runs)
    print(
        json.dumps(
            {
                "version": vbt.__version__,
                "rows": len(values),
                "seconds": round(seconds, 4),
                "rows_per_second": round(len(values) / seconds),
                "work": "EMAs, crossings, portfolio simulation with fees, total return; long only, no gate, no ledger",
                "cpu_seconds": round(statistics.median(r[1] for r in runs), 4),
                "runs": [round(r[0], 4) for r in runs],
                "orders": len(runs[-1][2].orders.records),
            }
        )
    )


main()
