"""A new version beside the active one, the base rate and the rules: the figures that gates and reports look at, as plain values.

All of them are of the same bars, none of which training saw. Tests and intervals are over time: symbols of one moment count as one.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from research.learning.baseline import Baseline
from research.learning.evaluation import METRICS, Floats, Outcomes, by_time, metrics, per_regime, per_symbol, reliability, sums_by_time
from research.learning.governance import Assessment, assess
from research.learning.selector import RULES, Candidate, Choice, choose
from research.learning.tests_of_skill import (
    Interval,
    block_length,
    bootstrap_interval,
    diebold_mariano,
    kolmogorov_smirnov,
)
from schemas.config_learn import LearnConfig

INTERVALS = ("accuracy", "ic", "loss")


def plain(value: float) -> float | None:
    """None for what is not finite, as JSON has it."""
    return float(value) if math.isfinite(value) else None


def against(a: Outcomes, b: Outcomes) -> dict[str, Any]:
    """Whether a loses less than b on the same rows, and whether their losses have one distribution (paired by time)."""
    la, lb = by_time(a.ts_ns, a.loss), by_time(b.ts_ns, b.loss)
    found, same = diebold_mariano(la, lb, a.horizon_bars), kolmogorov_smirnov(la, lb, block_length(len(la), a.horizon_bars))
    return {"name": b.name, "statistic": plain(found.statistic), "p": plain(found.p), "p_less": plain(found.p_less),
            "p_worse": plain(1.0 - found.p_less), "mean": plain(found.mean), "kernel": found.kernel, "n": found.n,
            "ks": plain(same.statistic), "ks_p": plain(same.p)}


def beside(o: Outcomes, active: Outcomes) -> Outcomes:
    """The rows of the active version, which are the last ones: those that its training had seen are left out."""
    return o if len(o) == len(active) else o.where(o.ts_ns >= active.ts_ns[0])


def intervals(o: Outcomes, learn: LearnConfig) -> dict[str, dict[str, float | None]]:
    """Bootstrap intervals of accuracy, of the rank correlation of forecast and return, and of the loss, in blocks of time.

    The ranks are made once, so that a resample is a pass and not a sort; on the whole sample it is Spearman's correlation.
    """
    direction = o.direction
    hit = np.where(direction != 0, (direction > 0) == (o.up == 1), False).astype(np.float64)
    hits = sums_by_time(o.ts_ns, hit, (direction != 0).astype(np.float64))
    said, came = _ranks(o.score), _ranks(o.return_)
    products = sums_by_time(o.ts_ns, said * came, said * said, came * came)
    losses = sums_by_time(o.ts_ns, o.loss, np.ones(len(o)))
    block = block_length(len(losses[0]), o.horizon_bars)
    found = {
        "accuracy": bootstrap_interval(hits, _ratio, block, learn.seed, learn.level),
        "ic": bootstrap_interval(products, _correlation, block, learn.seed + 1, learn.level),
        "loss": bootstrap_interval(losses, _ratio, block, learn.seed + 2, learn.level),
    }
    return {name: _plain_interval(i) for name, i in found.items()}


def edge(o: Outcomes, likelier: npt.NDArray[np.bool_], learn: LearnConfig) -> Interval:
    """How much more often its directions are right than those of always saying the likelier side, on the rows where it says one; with the
    bootstrap interval of the difference. In a market that mostly rises, half right is not enough."""
    said = o.direction != 0
    hit, plain_hit = (o.direction > 0) == (o.up == 1), likelier == (o.up == 1)
    more = np.where(said, hit.astype(np.float64) - plain_hit, 0.0)
    sums = sums_by_time(o.ts_ns, more, said.astype(np.float64))
    return bootstrap_interval(sums, _ratio, block_length(len(sums[0]), o.horizon_bars), learn.seed + 3, learn.level)


def _ranks(values: Floats) -> Floats:
    return np.asarray(rankdata(values) - (len(values) + 1) / 2)


def _ratio(a: Floats, b: Floats) -> float:
    total = float(b.sum())
    return float(a.sum()) / total if total > 0 else math.nan


def _correlation(xy: Floats, xx: Floats, yy: Floats) -> float:
    spread = math.sqrt(float(xx.sum()) * float(yy.sum()))
    return float(xy.sum()) / spread if spread > 0 else math.nan


def _plain_interval(i: Interval) -> dict[str, float | None]:
    return {"value": plain(i.value), "low": plain(i.low), "high": plain(i.high), "level": i.level}


def figures_of(o: Outcomes, learn: LearnConfig) -> dict[str, Any]:
    """One model alone."""
    table = reliability(o.p_up, o.up) if o.task == "classify" else []
    return {
        "name": o.name, "metrics": _plain_metrics(metrics(o)), "intervals": intervals(o, learn),
        "regimes": {k: _plain_metrics(v) for k, v in per_regime(o).items()},
        "symbols": {k: _plain_metrics(v) for k, v in per_symbol(o).items()},
        "reliability": [{"low": b.low, "high": b.high, "rows": b.rows, "said": b.said, "came_true": b.came_true} for b in table],
    }


def _plain_metrics(m: dict[str, float]) -> dict[str, float | None]:
    return {key: plain(m[key]) for key in METRICS}


def compare(candidate: Outcomes, active: Outcomes | None, base_rate: float, rules: Baseline | None, learn: LearnConfig
            ) -> tuple[dict[str, Any], Assessment]:
    """The figures of the stage `evaluation`. base_rate: what one would say who knows the training labels and nothing else: their share of
    up, or their mean."""
    base = candidate.saying(np.full(len(candidate), base_rate), "base rate")
    assessment = assess(candidate, rules, learn.limits, learn.seed)
    mine = figures_of(candidate, learn)
    likelier = np.full(len(candidate), base_rate > (0.5 if candidate.task == "classify" else 0.0))
    enough = {name: m["accuracy"] for name, m in mine["regimes"].items() if (m["rows"] or 0) >= learn.regime_rows_min}
    worst = min(enough, key=lambda name: -1.0 if enough[name] is None else enough[name], default=None)
    passed = [c.passed for c in assessment.checks]
    if active is None or len(active) == len(candidate):
        picked = selected(candidate, assessment, active, rules, learn)
    else:
        same = beside(candidate, active)
        picked = selected(same, assess(same, rules, learn.limits, learn.seed), active, rules, learn)
    return {
        "candidate": mine, "intervals": mine["intervals"], "base_rate": base_rate, "against_base": against(candidate, base),
        "edge": _plain_interval(edge(candidate, likelier, learn)),
        "active": figures_of(active, learn) if active is not None else None,
        "against_active": against(beside(candidate, active), active) if active is not None else None,
        "worst_regime": None if worst is None else {"name": worst, "accuracy": enough[worst]},
        "certificate": {"passed": sum(passed) / len(passed),
                        "checks": [{"name": c.name, "meaning": c.meaning, "observed": plain(c.observed), "sense": c.sense, "bound": c.bound,
                                    "passed": c.passed} for c in assessment.checks]},
        "selector": {"chosen": float(picked.name == candidate.name), "name": picked.name, "why": [list(w) for w in picked.why]},
        "uplift": {"value": plain(assessment.uplift), "low": plain(assessment.uplift_low), "high": plain(assessment.uplift_high),
                   "over": rules.name if rules is not None else "staying out", "period": learn.limits.period},
    }, assessment


def selected(o: Outcomes, assessment: Assessment, active: Outcomes | None, rules: Baseline | None, learn: LearnConfig) -> Choice:
    """What the selector would follow: this version, the active one, or the rules."""
    asked = [(o, assessment)] + ([(active, assess(active, rules, learn.limits, learn.seed))] if active is not None else [])
    candidates = [Candidate(each.name, len(each), found.uplift, found.uplift_low, metrics(each)["accuracy"], found.passed)
                  for each, found in asked]
    limits = learn.limits
    return choose(candidates, active.name if active is not None else RULES, limits.uplift_min, limits.rows_min, limits.accuracy_min,
                  learn.uplift_sure, learn.uplift_margin)


def shadow_figures(shadow: Outcomes, active: Outcomes | None, evaluated: Outcomes, learn: LearnConfig) -> dict[str, Any]:
    """The figures of the stage `shadow`: what the version said beside the active one, on the same rows, and in evaluation.

    distance_sure: the Kolmogorov-Smirnov distance of its losses where it is more than chance, else 0: few scores are far from many.
    """
    m = metrics(shadow)
    now, then = by_time(shadow.ts_ns, shadow.loss), by_time(evaluated.ts_ns, evaluated.loss)
    ks = kolmogorov_smirnov(now, then, block_length(len(now), shadow.horizon_bars))
    return {"shadow": {
        "rows": m["rows"], "accuracy": plain(m["accuracy"]), "metrics": _plain_metrics(m), "distance": plain(ks.statistic),
        "distance_sure": plain(ks.statistic) if not ks.p >= learn.p_max else 0.0, "ks_p": plain(ks.p),
        "against_active": against(beside(shadow, active), active) if active is not None and len(shadow) else None,
    }}
