"""The desk under test: a scripted day, row by row, and random tapes of everything that a desk reads."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from operators.desk.desk import DeskOperator
from schemas.frame import Frame
from schemas.policy import Policy
from schemas.tables import ACTIONS, BARS, BEATS, QUOTES, SIGNALS, TRADES, Rows, TableSpec
from schemas.tables_desk import (
    AUDIT,
    CAUSES,
    COMMANDS,
    CONTROL,
    DECISIONS,
    EQUITY,
    FILLS,
    FUNDING_RATES,
    LEDGER,
    LIMITS,
    ORDERS,
    POSITIONS,
    REASONS,
)

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
MONDAY = 1_704_067_200 * SECOND
"""2024-01-01 00:00 UTC."""
ONE = 100_000_000
MADE = (DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, AUDIT)
READ = (TRADES, QUOTES, BARS, FUNDING_RATES, BEATS, CONTROL, SIGNALS)
Tape = dict[str, Rows]

PLAIN = {
    "latency": "0 ns", "slippage": "0 bps", "impact": "0 bps", "fee_taker": "0 bps", "fee_maker": "0 bps",
    "participation": "100 %", "position_notional_max": "100 %", "position_risk_max": "100 %", "heat_max": "100 %",
    "exposure_max": "2000 %", "leverage_max": "20 x", "daily_loss_max": "100 %", "weekly_loss_max": "100 %",
    "drawdown_reduce": "100 %", "drawdown_halt": "100 %", "cooldown_after_loss": "0 s", "price_age_max": "30 d",
}
"""A market without friction and a gate whose limits are far away, so that a test names what it is about."""


def plain(**values: str) -> Policy:
    return Policy({**PLAIN, **values})


def concat(spec: TableSpec, frames: Iterable[Frame]) -> Rows:
    return np.concatenate([spec.empty(0), *(frame.rows(spec) for frame in frames)])


class ScriptedDesk:
    """A desk that gets one row a frame; what it has made so far can be looked at after each."""

    def __init__(self, policy: Policy, strategies: Sequence[str] = ("alpha",), symbols: Sequence[str] = ("AAA", "BBB", "CCC"),
                 weights: Sequence[float] | None = None, ts: int = MONDAY, enabled: bool = True) -> None:
        self.operator = DeskOperator(policy, strategies, weights or [1.0] * len(strategies))
        self.symbols = tuple(symbols)
        self.ts, self.seq = ts, 0
        self.frames: list[Frame] = []
        if enabled:
            self.control("enable")

    def _step(self, spec: TableSpec, after: int, same_place: bool = False, **values: Any) -> Frame:
        self.ts += after
        self.seq += 0 if same_place else 1
        row = spec.empty(1)
        for name, value in {"ts_event_ns": self.ts, "seq": self.seq, **values}.items():
            row[name] = value
        self.frames.append(self.operator.step(Frame("day", len(self.frames), self.ts, self.symbols, {spec.name: row})))
        return self.frames[-1]

    def trade(self, price: float, size: float = 1e6, symbol: int = 0, after: int = SECOND) -> Frame:
        return self._step(TRADES, after, price=price, size=size, symbol=symbol, trade_id=-1)

    def quote(self, bid: float, ask: float, size: float = 1e6, symbol: int = 0, after: int = SECOND) -> Frame:
        return self._step(QUOTES, after, bid=bid, ask=ask, bid_size=size, ask_size=size, symbol=symbol)

    def bar(self, opened: float, high: float, low: float, close: float, volume: float = 1e6, symbol: int = 0) -> Frame:
        return self._step(BARS, MINUTE, open=opened, high=high, low=low, close=close, volume=volume, symbol=symbol, interval_ns=MINUTE,
                          ts_open_ns=self.ts, ts_close_ns=self.ts + MINUTE)

    def funding(self, rate: float, mark: float = 0.0, symbol: int = 0, after: int = SECOND) -> Frame:
        return self._step(FUNDING_RATES, after, rate=rate, mark=mark, symbol=symbol)

    def beat(self, after: int) -> Frame:
        return self._step(BEATS, after, symbol=-1)

    def control(self, command: str, after: int = 0) -> Frame:
        return self._step(CONTROL, after, command=COMMANDS.index(command), symbol=-1)

    def signal(self, action: str, symbol: int = 0, strategy: int = 0, stop: float = np.nan, target: float = np.nan, trail: float = np.nan,
               strength: float = 1.0, slot: int = 0, after: int = 0) -> Any:
        """A signal on the row before; the decision that it led to."""
        frame = self._step(SIGNALS, after, same_place=after == 0, action=ACTIONS.index(action), symbol=symbol, strategy=strategy, stop=stop,
                           target=target, trail=trail, strength=strength, slot=slot, interval_ns=MINUTE, ts_open_ns=self.ts - MINUTE,
                           cause=CAUSES.index("exit" if action == "exit" else "entry"))
        return frame.rows(DECISIONS)[0]

    def made(self, spec: TableSpec) -> Rows:
        return concat(spec, self.frames)

    @property
    def fills(self) -> Rows:
        return self.made(FILLS)

    @property
    def account(self) -> Any:
        return self.operator.desk.account[0]

    def held(self, symbol: int = 0, strategy: int = 0) -> float:
        """Signed base units in the book."""
        return float(self.operator.desk.books[strategy, symbol]["quantity"]) / ONE

    def buy(self, symbol: int = 0, *, stop: float = np.nan, target: float = np.nan, trail: float = np.nan, strength: float = 1.0) -> Any:
        """A long entry that is filled at once by a large print at the last price."""
        decision = self.signal("enter_long", symbol, stop=stop, target=target, trail=trail, strength=strength)
        self.trade(self.operator.desk.symbols[symbol]["last"] / ONE, symbol=symbol)
        return decision


def reason(decision: Any) -> str:
    return REASONS[int(decision["reason"])]


def measured(decision: Any, limit: str) -> tuple[int, int, int]:
    """Verdict, observation and bound of one limit."""
    k = LIMITS.index(limit)
    return int(decision["verdicts"][k]), int(decision["observed"][k]), int(decision["bounds"][k])


def cut(tape: Tape, symbols: Sequence[str], cuts: Iterable[int] = ()) -> list[Frame]:
    """The tape as frames, cut before each of these tape positions."""
    edges = [-1, *sorted(cuts), np.iinfo(np.int64).max]
    out = []
    for number, (low, high) in enumerate(pairwise(edges)):
        part = {name: rows[(rows["seq"] >= low) & (rows["seq"] < high)] for name, rows in tape.items()}
        out.append(Frame("test", number, 0, tuple(symbols), {name: rows for name, rows in part.items() if len(rows)}))
    return out


def run(operator: DeskOperator, frames: Iterable[Frame]) -> tuple[Rows, ...]:
    """Every table that the desk makes of the frames."""
    made = [operator.step(frame) for frame in frames]
    return tuple(concat(spec, made) for spec in MADE)


def same(left: Sequence[Rows], right: Sequence[Rows]) -> bool:
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


SYMBOLS = ("TRADED", "QUOTED", "BOTH", "BARRED", "ALSO")
"""What each symbol of a random tape shows: trades, quotes, trades and quotes, bars alone, trades and bars."""
STRATEGIES = ("alpha", "beta", "gamma")


def random_policy(random: np.random.Generator) -> Policy:
    """A policy under which a random tape trades, is refused, is stopped and is halted."""
    pick: Callable[[list[str]], str] = lambda values: str(random.choice(values))  # noqa: E731
    return Policy({
        "latency": pick(["0 ns", "1500 ms", "40 s"]), "participation": pick(["5 %", "25 %", "100 %"]),
        "fee_maker": pick(["-1 bps", "2 bps"]), "fee_taker": pick(["10 bps", "0 bps"]), "lot": pick(["0.00001", "0.00000001", "0.1"]),
        "cooldown_after_loss": pick(["0 s", "2 min"]), "positions_max": pick(["3", "10"]), "daily_trades_max": pick(["20", "1000"]),
        "drawdown_reduce": "3 %", "drawdown_halt": pick(["4 %", "15 %", "100 %"]), "daily_loss_max": pick(["3 %", "100 %"]),
        "weekly_loss_max": "100 %", "volatility_target": pick(["0 %", "0 %", "80 %"]), "position_notional_max": pick(["20 %", "60 %"]),
        "exposure_max": pick(["60 %", "300 %"]), "leverage_max": "3 x", "risk_per_trade": "5 %", "heat_max": "100 %",
        "position_risk_max": "100 %", "equity_interval": pick(["1 s", "1 min", "1 h"]), "price_age_max": pick(["1 min", "1 d"]),
    })


def random_operator(seed: int) -> DeskOperator:
    random = np.random.default_rng([seed, 1])
    return DeskOperator(random_policy(random), STRATEGIES, [0.4, 0.3, 0.3])


def random_tape(seed: int, n: int, restless: bool = True) -> Tape:
    """`n` market rows with signals, funding and control among them; prices wander and jump, sizes are small and large."""
    random = np.random.default_rng([seed, 2])
    seq = np.arange(n) * 2 + 10
    ts = MONDAY + 20 * 3600 * SECOND + np.cumsum(random.choice([1, SECOND // 3, 5 * SECOND, 45 * SECOND, 900 * SECOND], n, p=[.1, .3, .3, .25, .05]))
    walk = 100 * np.exp(np.cumsum(random.normal(0, 2e-3, n) + random.choice([0, -0.03, 0.03], n, p=[.96, .02, .02])))
    kind = random.choice(["trades", "quotes", "bars", "funding", "beats", "control"], n, p=[.55, .2, .18, .03, .03, .01])
    kind[0] = "control"
    homes = {"trades": [0, 2, 4], "quotes": [1, 2], "bars": [3, 4], "funding": [0, 1, 2, 3, 4], "beats": [-1], "control": [-1]}
    tape: Tape = {}
    for spec in (TRADES, QUOTES, BARS, FUNDING_RATES, BEATS, CONTROL):
        at = np.flatnonzero(kind == spec.name)
        rows = tape[spec.name] = spec.empty(len(at))
        rows["seq"], rows["ts_event_ns"], rows["symbol"] = seq[at], ts[at], random.choice(homes[spec.name], len(at))
        price = np.round(walk[at], 4)
        if spec is TRADES:
            rows["price"], rows["size"] = price, random.choice([0.001, 1.7, 50.0, 5000.0], len(at))
        elif spec is QUOTES:
            rows["bid"], rows["ask"] = price - 0.02, price + 0.02
            rows["bid_size"], rows["ask_size"] = random.choice([0.0, 3.0, 900.0], (2, len(at)))
            rows["bid"][random.random(len(at)) < 0.1] = 0.0
        elif spec is BARS:
            rows["interval_ns"], rows["ts_close_ns"], rows["ts_open_ns"] = MINUTE, ts[at], ts[at] - MINUTE
            rows["open"], rows["close"] = price, np.round(price * np.exp(random.normal(0, 3e-3, len(at))), 4)
            rows["high"] = np.maximum(rows["open"], rows["close"]) + 0.3
            rows["low"] = np.minimum(rows["open"], rows["close"]) - 0.3
            rows["volume"] = random.choice([0.0, 10.0, 1e5], len(at))
        elif spec is FUNDING_RATES:
            rows["rate"], rows["mark"] = random.normal(0, 1e-3, len(at)), np.where(random.random(len(at)) < 0.5, 0.0, price)
        elif spec is CONTROL:
            rows["command"] = random.choice([0, 1, 2, 3], len(at), p=[.6, .15, .15, .1]) if restless else 0
            rows["command"][0] = 0
    tape["signals"] = _signals(random, np.flatnonzero((kind == "trades") | (kind == "bars") | (kind == "quotes")), seq, ts, walk)
    return tape


def _signals(random: np.random.Generator, market: Any, seq: Any, ts: Any, walk: Any) -> Rows:
    """Signals on a third of the market rows, sometimes several on one."""
    at = np.sort(random.choice(market, len(market) // 3))
    rows = SIGNALS.empty(len(at))
    rows["seq"], rows["ts_event_ns"] = seq[at], ts[at]
    rows["symbol"], rows["strategy"] = random.integers(0, 5, len(at)), random.integers(0, 3, len(at))
    rows["slot"] = np.arange(len(at)) - np.searchsorted(at, at)
    rows["action"] = action = random.choice([0, 1, 2], len(at), p=[.4, .25, .35])
    rows["cause"] = np.where(action == 2, 1, 0)
    rows["interval_ns"], rows["ts_open_ns"] = MINUTE, ts[at] - MINUTE
    side = np.where(action == 1, -1.0, 1.0)
    rows["price"] = walk[at]
    for name, sign in (("stop", -1), ("target", 1)):
        level = walk[at] * (1 + sign * side * random.choice([0.002, 0.01, 0.05], len(at)))
        rows[name] = np.where((random.random(len(at)) < 0.6) & (action != 2), level, np.nan)
    rows["trail"] = np.where((random.random(len(at)) < 0.3) & (action != 2), walk[at] * 0.006, np.nan)
    rows["strength"] = random.choice([0.0, 0.4, 1.0, 1.0], len(at))
    return rows
