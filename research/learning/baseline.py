"""What the rules alone would have earned on the same bars: the baseline that a model has to be better than.

The strategies run as in the pipeline, without those that name a model. Their positions follow from their signals: what is entered at a
bar's close earns from the next bar on, and pays its costs when it changes; nothing is known before it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from operators.market.bars import Bars, BarsConfig
from operators.market.features import Features
from operators.market.quality import Quality, QualityConfig
from operators.protocol import Chain
from operators.strategies.orchestrator import Strategies, allocations
from operators.strategies.rules import StrategySpec, references, required_features
from research.learning.evaluation import Floats, Ints
from schemas.frame import Frame
from schemas.tables import BARS, ENTER_LONG, ENTER_SHORT, SIGNALS, Rows

FRAME_ROWS = 65_536


@dataclass(frozen=True)
class Baseline:
    """Bars with the position held from their close on: (bars,) each, by symbol, then time. stance: -1 to 1, a share of what a symbol may
    have."""

    name: str
    ts_ns: Ints
    symbol: Ints
    close: Floats
    stance: Floats

    def returns(self, ts_from_ns: int, ts_to_ns: int, period_ns: int, cost_bps: float) -> tuple[Floats, int]:
        """Return on the capital of every period in [from, to], and how often a position changed."""
        first, last = ts_from_ns // period_ns, ts_to_ns // period_ns
        inside = (self.ts_ns >= ts_from_ns) & (self.ts_ns <= ts_to_ns)
        ts, symbol, close = self.ts_ns[inside], self.symbol[inside], self.close[inside]
        stance = self.stance[inside]
        same = symbol[1:] == symbol[:-1]
        earned, before = np.zeros(len(ts)), np.zeros(len(ts))
        earned[1:][same] = (stance[:-1] * (close[1:] / close[:-1] - 1.0))[same]
        before[1:][same] = stance[:-1][same]
        changed = np.abs(stance - before)
        net = earned - changed * cost_bps / 1e4
        symbols = max(1, len(np.unique(symbol)))
        per = np.bincount((ts // period_ns - first).astype(np.int64), net / symbols, int(last - first) + 1)
        return per.astype(np.float64), int(np.count_nonzero(changed))


def rules_alone(specs: Sequence[StrategySpec], models: Iterable[str]) -> tuple[StrategySpec, ...]:
    """The strategies that name no model."""
    names = tuple(f"{name}." for name in models)
    return tuple(spec for spec in specs if not any(ref.name.startswith(names) for ref in references(spec)))


def baseline_of_frames(specs: Sequence[StrategySpec], frames: Iterable[Frame], interval_ns: int, quality: QualityConfig | None = None,
                       conflict: str = "independent") -> Baseline:
    """Run the rules over a tape. interval_ns: the bars on which they are valued."""
    needed = dict(required_features(specs))
    for spec in specs:
        needed.setdefault(spec.interval_ns, ())
    intervals = tuple(sorted({interval_ns, *needed}))
    chain = Chain([Quality(quality), Bars(BarsConfig(intervals)), Features(needed), Strategies(specs, conflict=conflict)])
    bars: list[Rows] = []
    signals: list[Rows] = []
    for frame in frames:
        made = chain.step(frame)
        rows = made.rows(BARS)
        bars.append(rows[(rows["interval_ns"] == interval_ns) & (rows["bar_kind"] == 0)])
        signals.append(made.rows(SIGNALS))
    return baseline_of_signals(specs, np.concatenate(bars), np.concatenate(signals))


def baseline_of_signals(specs: Sequence[StrategySpec], bars: Rows, signals: Rows) -> Baseline:
    """From bars of one interval and the signals of `specs`, in the order of the tape, with codes into the same symbols."""
    bars = bars[np.lexsort((bars["seq"], bars["symbol"]))]
    stance = np.zeros(len(bars))
    starts = np.searchsorted(bars["symbol"], np.arange(int(bars["symbol"].max(initial=-1)) + 2))
    shares = allocations(specs) if specs else ()
    for code in range(len(starts) - 1):
        seqs = bars["seq"][starts[code]:starts[code + 1]]
        for k, share in enumerate(shares):
            mine = signals[(signals["symbol"] == code) & (signals["strategy"] == k) & (signals["strength"] > 0)]
            side = np.select([mine["action"] == ENTER_LONG, mine["action"] == ENTER_SHORT], [1.0, -1.0], 0.0)
            # the last signal at or before the bar says what is held from its close on
            at = np.searchsorted(mine["seq"], seqs, side="right") - 1
            stance[starts[code]:starts[code + 1]] += share * np.where(at >= 0, side[np.maximum(at, 0)] if len(side) else 0.0, 0.0)
    return Baseline(", ".join(spec.name for spec in specs) or "nothing", bars["ts_event_ns"].copy(), bars["symbol"].astype(np.int64),
                    bars["close"].copy(), stance)
