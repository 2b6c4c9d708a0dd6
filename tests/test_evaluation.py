"""Every figure against scikit-learn and scipy, groups that add up, and windows that see nothing of what comes after them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error, r2_score, roc_auc_score

from research.learning.evaluation import (
    METRICS,
    REGIMES,
    Outcomes,
    auc,
    by_time,
    evaluation,
    metrics,
    per_regime,
    per_symbol,
    reliability,
    rolling,
)

MINUTE = 60 * 10**9


def made(n: int = 2000, seed: int = 3, task: str = "classify", skill: float = 0.6, symbols: int = 3) -> Outcomes:
    """Forecasts of a known skill; every fifth score is doubled up, so that there are ties."""
    rng = np.random.default_rng(seed)
    value = rng.normal(0.0, 1.0, n)
    signal = np.round(skill * value + rng.normal(0.0, 1.0, n), 1)
    up = (value > 0).astype(np.int64)
    score = 1.0 / (1.0 + np.exp(-signal)) if task == "classify" else signal * 0.4
    ts = (np.arange(n) // symbols) * MINUTE
    return Outcomes("m", task, ts, ts + 15 * MINUTE, np.arange(n) % symbols, ("A", "B", "C")[:symbols], rng.integers(0, 3, n), score,
                    score.copy() if task == "classify" else np.full(n, np.nan), value, up, value * 0.01, 15)


def test_classifier_figures_are_those_of_scikit_learn() -> None:
    o = made()
    m = metrics(o)
    assert m["auc"] == pytest.approx(roc_auc_score(o.up, o.score), abs=1e-12)
    assert m["log_loss"] == pytest.approx(log_loss(o.up, o.p_up), abs=1e-12)
    assert m["brier"] == pytest.approx(brier_score_loss(o.up, o.p_up), abs=1e-12)
    assert m["rmse"] == pytest.approx(np.sqrt(mean_squared_error(o.up, o.score)), abs=1e-12)
    assert m["mae"] == pytest.approx(mean_absolute_error(o.up, o.score), abs=1e-12)
    assert m["r2"] == pytest.approx(r2_score(o.up, o.score), abs=1e-12)
    assert m["ic"] == pytest.approx(spearmanr(o.score, o.return_).statistic, abs=1e-12)
    said = o.score != 0.5
    assert 0 < said.sum() < len(o)
    assert m["decided"] == said.sum()
    assert m["accuracy"] == pytest.approx(np.mean((o.score[said] > 0.5) == (o.up[said] == 1)))


def test_regressor_figures_are_those_of_scikit_learn() -> None:
    o = made(task="regress")
    m = metrics(o)
    assert m["rmse"] == pytest.approx(np.sqrt(mean_squared_error(o.value, o.score)), abs=1e-12)
    assert m["mae"] == pytest.approx(mean_absolute_error(o.value, o.score), abs=1e-12)
    assert m["r2"] == pytest.approx(r2_score(o.value, o.score), abs=1e-12)
    assert m["auc"] == pytest.approx(roc_auc_score(o.up, o.score), abs=1e-12)
    assert np.isnan([m["log_loss"], m["brier"], m["calibration_error"]]).all()
    np.testing.assert_allclose(o.loss, (o.score - o.value) ** 2)


def test_reliability_and_calibration_error_against_a_plain_count() -> None:
    o = made(500)
    table = reliability(o.p_up, o.up)
    total = 0.0
    for k in range(10):
        mine = [(p, u) for p, u in zip(o.p_up, o.up, strict=True) if min(int(p * 10), 9) == k]
        found = [b for b in table if b.low == k / 10]
        assert len(found) == (1 if mine else 0)
        if mine:
            said, true = sum(p for p, _ in mine) / len(mine), sum(u for _, u in mine) / len(mine)
            assert (found[0].rows, found[0].said, found[0].came_true) == (len(mine), pytest.approx(said), pytest.approx(true))
            total += len(mine) / 500 * abs(said - true)
    assert metrics(o)["calibration_error"] == pytest.approx(total, abs=1e-12)
    assert reliability(np.array([1.0]), np.array([1]))[0].high == 1.0


def test_groups_hold_every_row_once() -> None:
    o = made()
    for groups in (per_symbol(o), per_regime(o)):
        assert sum(g["rows"] for g in groups.values()) == len(o)
        mean = sum(g["brier"] * g["rows"] for g in groups.values()) / len(o)
        assert mean == pytest.approx(metrics(o)["brier"])
    assert set(per_regime(o)) == set(REGIMES)
    assert per_symbol(o)["B"] == metrics(o.where(o.symbol == 1))


def test_what_cannot_be_computed_is_nan() -> None:
    o = made(100)
    one_class = o.where(o.up == 1)
    assert np.isnan(metrics(one_class)["auc"]) and np.isnan(metrics(one_class)["r2"])
    assert metrics(one_class)["base_rate"] == 1.0
    flat = o.saying(np.full(100, 0.5), "flat")
    assert np.isnan(metrics(flat)["accuracy"]) and metrics(flat)["decided"] == 0 and np.isnan(metrics(flat)["ic"])
    assert metrics(flat)["auc"] == 0.5
    assert metrics(flat)["log_loss"] == pytest.approx(np.log(2))
    nothing = metrics(o.where(np.zeros(100, bool)))
    assert nothing["rows"] == 0 and set(nothing) == set(METRICS)
    silent = o.saying(np.where(np.arange(100) < 40, np.nan, o.score), "silent")
    assert metrics(silent)["rows"] == 60


def test_windows_cover_the_end_and_know_nothing_later() -> None:
    o = made(3000)
    hour = 60 * MINUTE
    found = rolling(o, 4 * hour, hour)
    assert found[-1]["ts_ns"] == o.ts_end_ns.max()
    ends = [w["ts_ns"] for w in found]
    assert np.all(np.diff(ends) == hour)
    assert ends[0] - 4 * hour >= o.ts_end_ns.min() - hour
    for w in found:
        mine = (o.ts_end_ns <= w["ts_ns"]) & (o.ts_end_ns > w["ts_ns"] - 4 * hour)
        assert w["rows"] == mine.sum()
    tumbling = rolling(o, 2 * hour)
    assert np.all(np.diff([w["ts_ns"] for w in tumbling]) == 2 * hour)


def test_everything_about_a_model_is_plain() -> None:
    import json
    o = made(900)
    found = json.loads(json.dumps(evaluation(o, 60 * MINUTE)))
    assert set(found["symbols"]) == {"A", "B", "C"}
    assert sum(b["rows"] for b in found["reliability"]) == 900


def test_mean_over_symbols_at_each_time() -> None:
    assert by_time(np.array([5, 3, 5, 3, 9]), np.array([1.0, 2.0, 3.0, 4.0, 7.0])).tolist() == [3.0, 2.0, 7.0]
    assert len(by_time(np.empty(0, np.int64), np.empty(0))) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auc_is_the_chance_that_an_up_scores_higher(rows: list[tuple[int, bool]]) -> None:
    score = np.array([float(s) for s, _ in rows])
    up = np.array([int(u) for _, u in rows])
    highs, lows = score[up == 1], score[up == 0]
    if not len(highs) or not len(lows):
        assert np.isnan(auc(score, up))
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in highs for b in lows]
    assert auc(score, up) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(-score, up) == pytest.approx(1.0 - auc(score, up), abs=1e-12)
