"""Calibration: what it gains on members that are miscalibrated in every way, against bins and a batch solver, and what it never does."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from operators.learners.ensemble import FORGET, LEARN, PREDICT, Ensemble
from schemas.config_models import ModelConfig

CONFIG = ModelConfig("vote", "ensemble", members=("a",))
DELAY = 15
"""Bars after which a label is due."""


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def calibrated(p: Any, up: Any) -> Any:
    """What the ensemble makes of members' probabilities (rows, members), each label being learned DELAY rows after its bar."""
    n, members = p.shape
    bar = np.arange(n)
    at = np.sort(np.concatenate([2 * bar, 2 * bar[: n - DELAY] + 2 * DELAY - 1]))
    kinds = np.where(at % 2 == 0, PREDICT, LEARN)
    row = np.where(kinds == PREDICT, at // 2, (at + 1) // 2 - DELAY)
    zeros = np.zeros(len(at), np.int64)
    out = Ensemble(CONFIG, members).step(kinds, p[row], up[row], np.zeros(len(at)), zeros, 1)
    return out["member_p"][:, :members]


def log_loss(p: Any, up: Any) -> float:
    return float(-np.log(np.clip(np.where(up, p, 1 - p), 1e-9, 1)).mean())


def calibration_error(p: Any, up: Any, bins: int = 20) -> float:
    """Expected calibration error (Naeini, Cooper, Hauskrecht 2015), by bins of equal width."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return sum(abs((p - up)[which == k].sum()) for k in range(bins)) / len(p)


def binned(p: Any, up: Any, bins: int = 20, prior: float = 200.0) -> Any:
    """The other candidate: the share of ups in each bin, smoothed towards p."""
    count, ups, out = [0.0] * bins, [0.0] * bins, []
    which = np.minimum((p * bins).astype(int), bins - 1).tolist()
    for i, (each, k) in enumerate(zip(p.tolist(), which, strict=True)):
        if i >= DELAY:
            count[which[i - DELAY]] += 1
            ups[which[i - DELAY]] += int(up[i - DELAY])
        out.append((ups[k] + prior * each) / (count[k] + prior))
    return np.array(out)


DISTORTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "overconfident": lambda x, rng: 3.0 * x,
    "very overconfident": lambda x, rng: 12.0 * x,
    "underconfident": lambda x, rng: 0.3 * x,
    "biased": lambda x, rng: x + 0.4,
    "biased and overconfident": lambda x, rng: 2.5 * x - 0.6,
    "noisy": lambda x, rng: x + rng.normal(0, 0.6, len(x)),
    "noise": lambda x, rng: rng.normal(0, 0.6, len(x)),
    "inverted": lambda x, rng: -x,
}
HONEST = "honest"


@pytest.fixture(scope="module")
def market() -> tuple[Any, dict[str, Any]]:
    """Labels whose true probabilities lie as near to even as a market's do, and what each member says of them."""
    rng = np.random.default_rng(11)
    x = rng.normal(0, 0.3, 60_000)
    up = (rng.uniform(size=len(x)) < sigmoid(x)).astype(np.int64)
    said = {name: sigmoid(distort(x, rng)) for name, distort in DISTORTIONS.items()} | {HONEST: sigmoid(x)}
    return up, said


@pytest.fixture(scope="module")
def after(market: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    up, said = market
    return {name: calibrated(p[:, None], up)[:, 0] for name, p in said.items()}


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_miscalibrated_member_is_mended(market: tuple[Any, dict[str, Any]], after: dict[str, Any], name: str) -> None:
    up, said = market
    late = slice(len(up) // 2, None)
    assert log_loss(after[name][late], up[late]) < log_loss(said[name][late], up[late]) - 1e-3
    before = calibration_error(said[name][late], up[late])
    assert calibration_error(after[name][late], up[late]) < min(before, max(0.01, before / 4))  # an offset is believed slowly
    assert log_loss(after[name], up) < log_loss(said[name], up)


def test_an_honest_member_is_left_as_it_is(market: tuple[Any, dict[str, Any]], after: dict[str, Any]) -> None:
    up, said = market
    assert abs(log_loss(after[HONEST], up) - log_loss(said[HONEST], up)) < 1e-4
    assert np.abs(after[HONEST] - said[HONEST])[len(up) // 2 :].max() < 0.02


def test_who_knows_nothing_or_the_opposite_says_nothing(market: tuple[Any, dict[str, Any]], after: dict[str, Any]) -> None:
    up, _ = market
    for name in ("noise", "inverted"):
        assert np.abs(after[name] - 0.5)[len(up) // 2 :].max() < 0.03
        assert log_loss(after[name][len(up) // 2 :], up[len(up) // 2 :]) < math.log(2) + 2e-4


def test_platt_scaling_is_better_than_bins_where_probabilities_are_near_even(market: tuple[Any, dict[str, Any]], after: dict[str, Any]) -> None:
    """Why it was chosen: twenty bins have two or three for all that a market's members say."""
    up, said = market
    gains = {name: log_loss(binned(p, up), up) - log_loss(after[name], up) for name, p in said.items() if name != "inverted"}
    assert sum(gains.values()) / len(gains) > 5e-4
    assert gains["overconfident"] > 0 and gains["underconfident"] > 0 and gains["noise"] > 0 and gains[HONEST] > 0


def test_it_is_near_the_batch_solution() -> None:
    """2,000 labels, of which the first still counts 99.3 %: one Newton step each ends where a solver ends on all of them at once."""
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1.0, 2000)
    up = (rng.uniform(size=2000) < sigmoid(0.5 * x + 0.1)).astype(np.int64)

    def objective(theta: Any) -> float:
        z = theta[0] * x + theta[1]
        return float(np.sum(np.logaddexp(0, z) - up * z) + (theta[0] - 1) ** 2 / (2 * 0.5**2) + theta[1] ** 2 / (2 * 0.02**2))

    slope, offset = minimize(objective, [1.0, 0.0]).x
    grid = np.linspace(-2, 2, 9)
    events = np.concatenate([x, grid])
    kinds = np.array([LEARN] * 2000 + [PREDICT] * 9)
    labels = np.concatenate([up, np.zeros(9, np.int64)])
    out = Ensemble(CONFIG, 1).step(kinds, sigmoid(events)[:, None], labels, np.zeros(2009), np.zeros(2009, np.int64), 1)
    np.testing.assert_allclose(out["member_p"][:, 0], sigmoid(slope * grid + offset), atol=5e-3)
    assert slope == pytest.approx(0.5, abs=0.1)


def test_what_was_learned_long_ago_is_forgotten() -> None:
    rng = np.random.default_rng(5)
    n = 1_200_000
    x = rng.normal(0, 0.5, n)
    up = (rng.uniform(size=n) < sigmoid(x)).astype(np.int64)
    says = np.where(np.arange(n) < n // 3, x, 3 * x)  # honest, then overconfident
    out = calibrated(sigmoid(says)[:, None], up)[:, 0]
    end = slice(n - 100_000, None)
    assert calibration_error(out[end], up[end]) < 0.02 < calibration_error(sigmoid(says)[end], up[end])


def test_another_version_is_taken_at_its_word() -> None:
    rng = np.random.default_rng(2)
    n = 3000
    p = np.repeat(sigmoid(rng.normal(0, 2, n))[:, None], 2, axis=1)
    up = rng.integers(0, 2, n)
    kinds = np.array([LEARN] * n + [PREDICT, FORGET, PREDICT])
    rows = np.vstack([p, [[0.9, 0.9], [0.5, math.nan], [0.9, 0.9]]])
    ups = np.concatenate([up, np.zeros(3, np.int64)])
    zeros = np.zeros(n + 3, np.int64)
    before, after = Ensemble(CONFIG, 2).step(kinds, rows, ups, zeros * 0.0, zeros, 1)["member_p"][:, :2]
    assert before[0] == before[1] < 0.6
    assert after[0] == pytest.approx(0.9, abs=1e-15) and after[1] == before[1]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1e-300, 0.5])), st.integers(0, 1)), max_size=200))
def test_order_is_kept_whatever_the_labels(labels: list[tuple[float, int]]) -> None:
    """Probabilities stay probabilities, and a higher one never comes out below a lower one."""
    grid = np.linspace(0, 1, 41)
    p = np.array([each for each, _ in labels] + grid.tolist())[:, None]
    n = len(p)
    kinds = np.array([LEARN] * len(labels) + [PREDICT] * len(grid))
    up = np.array([each for _, each in labels] + [0] * len(grid))
    out = Ensemble(CONFIG, 1).step(kinds, p, up, np.zeros(n), np.zeros(n, np.int64), 1)["member_p"][:, 0]
    assert (np.diff(out) >= 0).all() and out.min() > 0 and out.max() < 1
