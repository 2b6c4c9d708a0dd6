"""NautilusTrader on the shared trades: 1-minute bars built by its engine, EMA 10/30 cross, market orders, simulated fills.

Timed: BacktestEngine.run() alone, that is its dispatch of each tick, the simulated venue, its bar aggregation, the
strategy's on_bar, orders, fills, account and portfolio. Not timed: building the TradeTick objects, add_data. --engine
cython is the engine of the documented Python API with the bundled EMACross, without its tick callback; rust is
nautilus_pyo3's BacktestEngine with a Python strategy that does the same. One run a process. Prints one JSON line.
"""

import argparse
import json
import time
from decimal import Decimal

import nautilus_trader
import numpy as np


def cython(trades):
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.examples.strategies.ema_cross import EMACross, EMACrossConfig
    from nautilus_trader.model.currencies import USDT
    from nautilus_trader.model.data import BarType, TradeTick
    from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType
    from nautilus_trader.model.identifiers import TradeId, TraderId, Venue
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    inst = TestInstrumentProvider.btcusdt_binance()
    pp, sp = inst.price_precision, inst.size_precision
    ticks = [
        TradeTick(
            inst.id,
            Price(t["price"], pp),
            Quantity(t["size"], sp),
            AggressorSide.BUYER if t["buy"] else AggressorSide.SELLER,
            TradeId(str(i)),
            int(t["ts_event_ns"]),
            int(t["ts_event_ns"]),
        )
        for i, t in enumerate(trades)
    ]
    engine = BacktestEngine(BacktestEngineConfig(trader_id=TraderId("T-1"), logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        Venue("BINANCE"),
        OmsType.NETTING,
        AccountType.MARGIN,
        starting_balances=[Money(10_000_000, USDT)],
        base_currency=None,
    )
    engine.add_instrument(inst)
    engine.add_data(ticks)
    engine.add_strategy(
        EMACross(
            EMACrossConfig(
                instrument_id=inst.id,
                bar_type=BarType.from_str(f"{inst.id}-1-MINUTE-LAST-INTERNAL"),
                fast_ema_period=10,
                slow_ema_period=30,
                trade_size=Decimal("0.01"),
                subscribe_trade_ticks=False,
            )
        )
    )
    started, used = time.perf_counter(), time.process_time()
    engine.run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    if getattr(engine, "iteration", len(trades)) < len(trades):
        raise SystemExit(f"the engine stopped after {engine.iteration} of {len(trades)} trades")
    return seconds, cpu, len(engine.cache.orders())


def rust(trades):
    from nautilus_trader.core import nautilus_pyo3 as p
    from nautilus_trader.test_kit.rust.instruments_pyo3 import TestInstrumentProviderPyo3

    inst = TestInstrumentProviderPyo3.btcusdt_binance()
    pp, sp = inst.price_precision, inst.size_precision
    ticks = [
        p.TradeTick(
            inst.id,
            p.Price(float(t["price"]), pp),
            p.Quantity(float(t["size"]), sp),
            p.AggressorSide.BUYER if t["buy"] else p.AggressorSide.SELLER,
            p.TradeId(str(i)),
            int(t["ts_event_ns"]),
            int(t["ts_event_ns"]),
        )
        for i, t in enumerate(trades)
    ]
    bar_type = p.BarType.from_str(f"{inst.id}-1-MINUTE-LAST-INTERNAL")

    class Cross(p.Strategy):
        def __init__(self, config=None):
            super().__init__()
            self.fast, self.slow = p.ExponentialMovingAverage(10), p.ExponentialMovingAverage(30)
            self.bars = self.side = 0
            self.quantity = p.Quantity(0.01, sp)

        def on_start(self):
            self.subscribe_bars(bar_type)

        def on_bar(self, bar):
            self.bars += 1
            close = bar.close.as_double()
            self.fast.update_raw(close)
            self.slow.update_raw(close)
            if self.bars < 30:
                return
            side = 1 if self.fast.value >= self.slow.value else -1
            if side != self.side:
                for _ in range(2 if self.side else 1):  # close, then open, as EMACross does
                    self.submit_order(
                        self.order_factory.market(
                            inst.id, p.OrderSide.BUY if side > 0 else p.OrderSide.SELL, self.quantity
                        )
                    )
                self.side = side

    engine = p.BacktestEngine(
        p.BacktestEngineConfig(
            trader_id=p.TraderId("T-001"), bypass_logging=True, logging=p.LoggerConfig(bypass_logging=True)
        )
    )
    engine.add_venue(
        p.Venue("BINANCE"),
        p.OmsType.NETTING,
        p.AccountType.MARGIN,
        [p.Money(10_000_000.0, p.Currency.from_str("USDT"))],
    )
    engine.add_instrument(inst)
    engine.add_data(ticks)
    engine.add_strategy(Cross())
    started, used = time.perf_counter(), time.process_time()
    engine.run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    if getattr(engine, "iteration", len(trades)) < len(trades):
        raise SystemExit(f"the engine stopped after {engine.iteration} of {len(trades)} trades")
    return seconds, cpu, len(engine.cache.orders())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--engine", choices=["cython", "rust"], default="rust")
    parser.add_argument("--rows", type=int, default=500_000)
    given = parser.parse_args()
    trades = np.load(given.path)[: given.rows]
    seconds, cpu, orders = (cython if given.engine == "cython" else rust)(trades)
    what = (
        "documented engine, bundled EMACross" if given.engine == "cython" else "Rust engine, strategy in Python on bars"
    )
    print(
        json.dumps(
            {
                "version": nautilus_trader.__version__,
                "rows": len(trades),
                "seconds": round(seconds, 4),
                "cpu_seconds": round(cpu, 4),
                "rows_per_second": round(len(trades) / seconds),
                "work": f"trades, internal 1-minute bars, EMAs, market orders, simulated venue, portfolio ({what})",
                "orders": orders,
            }
        )
    )


main()
