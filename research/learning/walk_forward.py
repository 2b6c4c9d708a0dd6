"""Walk forward: train on a stretch of time, predict the next, move on; every prediction is of a model that had seen nothing of its rows.

Training rows are purged and kept an embargo away from each test window, and what decides when to stop adding trees is the end of the
training rows. So nothing is chosen by the rows that are reported; only the recipe is, by whoever looked at the report and came again.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.learners.boosted import LOADERS
from research.learning.boosting import Recipe
from research.learning.dataset import Dataset
from research.learning.evaluation import Outcomes, metrics, per_symbol, reliability
from research.learning.risk import period_returns, risk, trades_of
from research.learning.splits import Split, Window, duration_text, holdout, walk_forward_splits
from research.learning.training import check_rows, fit
from schemas.artefact import Artefact, Card
from schemas.errors import UserError
from schemas.intervals import interval_text

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Predict = Callable[[Floats], Floats]
Fit = Callable[[Dataset], tuple[Predict, int]]
"""From the training rows of a window to what predicts, and how many trees it has."""
DAY_NS = 86_400 * 10**9
WINDOWS_MAX = 1000


@dataclass(frozen=True)
class WalkForward:
    """What came out. outcomes: the predictions of all windows, by time, then symbol. document: everything else as plain values."""

    outcomes: Outcomes
    document: dict[str, Any]


def fit_by(recipe: Recipe, valid_share: float = 0.2, embargo_ns: int = 0) -> Fit:
    """The usual `fit`: boosted trees by a recipe, which stop on the purged end of the training rows."""
    def trained(data: Dataset) -> tuple[Predict, int]:
        split = holdout(data.ts_made_ns, data.ts_end_ns, valid_share, embargo_ns) if recipe.early_stopping else Split(
            np.arange(len(data)), np.arange(0), 0)
        check_rows(data, recipe.task, split.train, "to train a window on")
        payload, rounds = fit(data, recipe, split)
        card = Card("window", 0, recipe.model, recipe.task, data.interval_ns, data.features, data.label)
        return LOADERS[recipe.model](Artefact(card, payload)).predict, rounds
    return trained


@dataclass(frozen=True)
class _Terms:
    """What windows are cut and money is counted by."""

    train_ns: int
    test_ns: int
    embargo_ns: int
    anchored: bool
    cost_bps: float
    threshold: float
    period_ns: int


def walk_forward(data: Dataset, train_ns: int, test_ns: int, embargo_ns: int = 0, anchored: bool = False, fit: Fit | None = None, *,
                 task: str = "classify", name: str = "model", cost_bps: float = 10.0, threshold: float = 0.0, period_ns: int = DAY_NS,
                 progress: Callable[[int, int, str], None] | None = None) -> WalkForward:
    """Out-of-sample predictions of every window, measured window by window and in all.

    anchored: train on everything before, not on the last `train_ns`. fit: from training rows to what predicts, boosted trees by default
    recipe where it is left out. cost_bps: of one side of a trade; threshold: how far a probability has to be from even, or a score from 0,
    to be traded. progress is told windows done, windows in all, and a note. UserError: no window fits into the data.
    """
    make = fit or fit_by(Recipe(task=task))
    terms = _Terms(train_ns, test_ns, embargo_ns, anchored, cost_bps, threshold, period_ns)
    span_ns = int(data.ts_made_ns[-1]) - int(data.ts_made_ns[0])
    count = math.ceil((span_ns + 1 - train_ns) / max(1, test_ns))
    if test_ns > 0 and count > WINDOWS_MAX:
        raise UserError(f"{count:,} windows; at most {WINDOWS_MAX:,}: give a longer --test")
    said: list[Floats] = []
    tested: list[Ints] = []
    windows: list[dict[str, Any]] = []
    for w in walk_forward_splits(data.ts_made_ns, data.ts_end_ns, train_ns, test_ns, embargo_ns, anchored):
        predict, rounds = make(data.take(w.split.train))
        said.append(predict(np.ascontiguousarray(data.x[w.split.test])))
        tested.append(w.split.test)
        windows.append(_window(w, data.outcomes(name, task, said[-1], w.split.test), rounds, terms))
        if progress is not None:
            progress(len(windows), max(count, len(windows)), f"accuracy {windows[-1]['accuracy']:.1%}")
    if not windows:
        raise UserError(f"no window: the data spans {span_ns / DAY_NS:.1f} days; one trains on {duration_text(train_ns)} before it "
                        f"tests {duration_text(test_ns)}; give more data or a shorter --train")
    outcomes = data.outcomes(name, task, np.concatenate(said), np.concatenate(tested))
    return WalkForward(outcomes, _document(data, outcomes, windows, terms))


def _window(w: Window, o: Outcomes, rounds: int, terms: _Terms) -> dict[str, Any]:
    money, _ = risk(o, terms.cost_bps, terms.period_ns, terms.threshold)
    return {
        "train_from_ns": w.train_from_ns, "test_from_ns": w.test_from_ns, "test_to_ns": min(w.test_to_ns, int(o.ts_ns[-1]) + 1),
        "train_rows": len(w.split.train), "purged": w.split.purged, "rounds": rounds, **_counted(metrics(o)), "trades": money.trades,
        "net": money.net,
    }


def _document(data: Dataset, o: Outcomes, windows: list[dict[str, Any]], terms: _Terms) -> dict[str, Any]:
    return {
        "model": o.name, "task": o.task, "timeframe": interval_text(data.interval_ns), "horizon": interval_text(data.label.horizon_ns),
        "train": duration_text(terms.train_ns), "test": duration_text(terms.test_ns), "embargo": duration_text(terms.embargo_ns),
        "anchored": terms.anchored, "features": list(data.features), "data": data.about(), "windows": windows,
        "overall": _counted(metrics(o)), "symbols": {name: _counted(found) for name, found in per_symbol(o).items()},
        **_money(o, terms), "reliability": [asdict(b) for b in reliability(o.p_up, o.up)] if o.task == "classify" else [],
    }


def _money(o: Outcomes, terms: _Terms) -> dict[str, Any]:
    """What following the predictions would have earned, after costs and before, in all and per period."""
    money, net = risk(o, terms.cost_bps, terms.period_ns, terms.threshold)
    free = trades_of(o, 0.0, terms.threshold)
    start = int(o.ts_ns.min())
    gross = period_returns(free, start, int(o.ts_end_ns.max()), terms.period_ns)
    per_trade = float(free.net.mean()) * 1e4 if len(free.net) else math.nan
    spread = float(net.std(ddof=1)) if len(net) > 1 else 0.0
    first = start // terms.period_ns
    return {
        "trading": {
            **asdict(money), "cost_bps": terms.cost_bps, "threshold": terms.threshold, "period": interval_text(terms.period_ns),
            "gross": float(gross.sum()), "gross_bps_per_trade": per_trade, "break_even_cost_bps": per_trade / 2,
            # a year of periods, risk-free rate 0 (Sharpe, "The Sharpe ratio", Journal of Portfolio Management 21:1, 1994)
            "sharpe": float(net.mean()) / spread * math.sqrt(365 * DAY_NS / terms.period_ns) if spread > 0 else math.nan,
        },
        "periods": [{"ts_ns": (first + k) * terms.period_ns, "net": float(n), "gross": float(g)}
                    for k, (n, g) in enumerate(zip(net, gross, strict=True))],
    }


def _counted(found: dict[str, float]) -> dict[str, Any]:
    """The figures, with counts as whole numbers."""
    return {**found, "rows": int(found["rows"]), "decided": int(found["decided"])}
