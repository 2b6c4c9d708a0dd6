"""Drift of features: the statistics of plain numpy and scipy, the laws, the false alarm rate, and planted shifts."""

import math
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from operators.learners.distribution import BINS_MAX, KL, PSI, Alarms, Distribution, histogram
from schemas.errors import PenstockError
from schemas.tables import ALL_SYMBOLS
from schemas.tables_models import DETECTORS

SYMBOLS, FEATURES, WINDOW, EVERY = 3, 4, 60, 20
Columns = list[tuple[Any, ...]]


def features(random: np.random.Generator, n: int, shift: float = 0.0) -> Any:
    """A normal, a heavy-tailed one, a flag, and one that is often NaN."""
    out = random.normal(shift, 1, (n, FEATURES))
    out[:, 1] = random.standard_t(2, n)
    out[:, 2] = random.random(n) < 0.3 + shift / 5
    out[random.random(n) < 0.2, 3] = np.nan
    return out


def tape(seed: int, n: int = 900) -> tuple[Any, Any, Any]:
    """Values, symbols, tape positions; the middle third is another market, and the third symbol is seldom there."""
    random = np.random.default_rng(seed)
    values = np.concatenate([features(random, n // 3), features(random, n // 3, 1.5), features(random, n // 3)])
    return values, random.choice(SYMBOLS, n, p=[0.5, 0.4, 0.1]), np.cumsum(random.integers(0, 3, n))


TRAINED = features(np.random.default_rng(7), 1000)
EDGES, SHARES = zip(*(histogram(TRAINED[:, f], 6) for f in range(FEATURES)), strict=True)
VALUES, CODES, SEQS = tape(1)


def watch(**numbers: float) -> Distribution:
    settings: dict[str, Any] = {"window": WINDOW, "every": EVERY, "psi_bound": 0.5, "kl_bound": 0.3, **numbers}
    return Distribution(EDGES, SHARES, **settings)


def columns(alarms: Alarms, first: int = 0) -> Columns:
    return [(r + first, *rest) for r, *rest in zip(
        alarms.row.tolist(), alarms.seq.tolist(), alarms.symbol.tolist(), alarms.feature.tolist(), alarms.detector.tolist(),
        alarms.statistic.tolist(), alarms.bound.tolist(), strict=True)]


def run(values: Any, codes: Any, seqs: Any, cuts: list[int], operator: Distribution | None = None) -> Columns:
    operator, out = operator or watch(), []
    for a, z in pairwise([0, *sorted(cuts), len(values)]):
        out += columns(operator.step(values[a:z], codes[a:z], 1 + int(max(codes[:z], default=0)), seqs[a:z]), a)
    return out


def statistics(rows: Any, f: int) -> tuple[float, float]:
    """PSI and KL of these rows of a feature against its training window, by numpy and scipy."""
    bounds = np.concatenate([[-np.inf], EDGES[f], [np.inf]])
    known = rows[~np.isnan(rows)]
    counts = [int(((known >= a) & (known < z)).sum()) for a, z in pairwise(bounds)]
    shares = np.array([*counts, len(rows) - len(known)]) / len(rows)
    half = 0.5 / WINDOW
    actual, expected = (((x + half) / (x + half).sum()) for x in (shares, np.array(SHARES[f])))
    return float(rel_entr(actual, expected).sum() + rel_entr(expected, actual).sum()), float(rel_entr(actual, expected).sum())


def reference(values: Any, codes: Any, seqs: Any) -> Columns:
    """Row by row, from the whole history each time."""
    out: Columns = []
    raised: dict[tuple[int, int, int], bool] = {}
    for i in range(len(values)):
        windows = [np.flatnonzero(codes[:i + 1] == s)[-WINDOW:] for s in range(SYMBOLS)]
        own = int((codes[:i + 1] == codes[i]).sum())
        looks = [(int(codes[i]), windows[codes[i]])] if own >= WINDOW and own % EVERY == 0 else []
        together = np.concatenate(windows)
        if (i + 1) % EVERY == 0 and len(together) >= WINDOW:
            looks.append((ALL_SYMBOLS, together))
        for symbol, rows in looks:
            for f in range(FEATURES):
                for detector, statistic, bound in zip((PSI, KL), statistics(values[rows, f], f), (0.5, 0.3), strict=True):
                    if statistic > bound and not raised.get((symbol, f, detector)):
                        out.append((i, int(seqs[i]), symbol, f, detector, statistic, bound))
                    raised[symbol, f, detector] = statistic > bound
    return out


WHOLE = run(VALUES, CODES, SEQS, [])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_alarms_are_those_of_the_reference(seed: int) -> None:
    values, codes, seqs = tape(seed)
    found, expected = run(values, codes, seqs, []), reference(values, codes, seqs)
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    np.testing.assert_allclose([row[5:] for row in found], [row[5:] for row in expected], rtol=1e-9)
    assert {row[4] for row in found} == {PSI, KL} and {row[2] for row in found} >= {ALL_SYMBOLS, 0, 1}
    assert (DETECTORS[PSI], DETECTORS[KL]) == ("psi", "kl")


@given(st.lists(st.integers(0, len(VALUES)), max_size=12))
def test_batch_law(cuts: list[int]) -> None:
    assert run(VALUES, CODES, SEQS, cuts) == WHOLE


def test_batches_of_one() -> None:
    assert run(VALUES, CODES, SEQS, list(range(len(VALUES)))) == WHOLE


@given(st.integers(0, len(VALUES)))
def test_resume_law(cut: int) -> None:
    first = watch()
    before = columns(first.step(VALUES[:cut], CODES[:cut], SYMBOLS, SEQS[:cut]))
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    first.step(VALUES[cut:], CODES[cut:], SYMBOLS, SEQS[cut:])
    assert pickle.dumps(kept) == saved
    second = watch()
    second.restore(pickle.loads(saved))
    assert before + columns(second.step(VALUES[cut:], CODES[cut:], SYMBOLS, SEQS[cut:]), cut) == WHOLE


@given(st.integers(0, len(VALUES)))
def test_prefix_law(cut: int) -> None:
    poisoned = VALUES.copy()
    poisoned[cut:] = 1e9
    assert [row for row in run(poisoned, CODES, SEQS, []) if row[0] < cut] == [row for row in WHOLE if row[0] < cut]


def test_room_for_alarms_is_made_in_the_middle_of_a_step() -> None:
    """Every row is compared, and every statistic rises above its bound and falls back again and again."""
    values = np.resize(np.concatenate([TRAINED[:200], np.full((200, FEATURES), 50.0)]), (8000, FEATURES))
    codes, seqs = np.zeros(8000, np.int64), np.arange(8000)
    numbers = {"window": 150, "every": 1, "psi_bound": 1.0, "kl_bound": 1.0}
    found = run(values, codes, seqs, [], watch(**numbers))
    assert len(found) > 64 + 4 * FEATURES
    assert found == run(values, codes, seqs, list(range(8000)), watch(**numbers))


def test_an_alarm_comes_once_until_the_statistic_was_back_below_its_bound() -> None:
    random = np.random.default_rng(3)
    edges, shares = histogram(random.normal(0, 1, 5000))
    values = np.concatenate([random.normal(mean, 1, 2000) for mean in (0, 2, 0, 2)])[:, None]
    found = Distribution([edges], [shares], 500, 100).step(values, np.zeros(8000, np.int64), 1, np.arange(8000))
    for symbol in (0, ALL_SYMBOLS):
        for detector in (PSI, KL):
            rows = found.row[(found.symbol == symbol) & (found.detector == detector)]
            assert len(rows) == 2 and 2000 <= rows[0] < 2500 and 6000 <= rows[1] < 6500


def trained(random: np.random.Generator, rows: int, wide: int) -> tuple[Any, Any]:
    return tuple(zip(*(histogram(column) for column in random.normal(0, 1, (wide, rows))), strict=True))  # type: ignore[return-value]


def test_no_false_alarm_in_a_million_independent_values() -> None:
    """20 features of 4 symbols, 12,500 rows each (eight days of minutes), with the default window and bounds."""
    random = np.random.default_rng(11)
    edges, shares = trained(random, 10_000, 20)
    codes = np.tile(np.arange(4), 12_500)
    found = Distribution(edges, shares).step(random.normal(0, 1, (50_000, 20)), codes, 4, np.arange(50_000))
    assert len(found) == 0


def autoregressive(random: np.random.Generator, n: int, wide: int, phi: float) -> Any:
    """Stationary, of variance 1: x' = phi x + sqrt(1 - phi^2) noise."""
    noise = random.normal(0, math.sqrt(1 - phi * phi), (n, wide))
    noise[0] = random.normal(0, 1, wide)
    for i in range(1, n):
        noise[i] += phi * noise[i - 1]
    return noise


def test_slow_features_need_longer_windows() -> None:
    """2,000 rows of a feature with phi = 0.97 say as much as 30 independent ones: false alarms with the default window, none with ten times as
    many rows. At phi = 0.8 the default window gives none."""
    random = np.random.default_rng(13)
    edges, shares = trained(random, 10_000, 10)
    codes, seqs = np.zeros(40_000, np.int64), np.arange(40_000)
    slow, fast = (autoregressive(random, 40_000, 10, phi) for phi in (0.97, 0.8))
    assert len(Distribution(edges, shares).step(fast, codes, 1, seqs)) == 0
    assert len(Distribution(edges, shares).step(slow, codes, 1, seqs)) > 20
    assert len(Distribution(edges, shares, window=20_000).step(slow, codes, 1, seqs)) == 0


@pytest.mark.parametrize(("planted", "within"), [("mean", 1500), ("spread", 1500), ("missing", 750), ("constant", 500)])
def test_a_planted_shift_is_found_in_the_feature_where_it_is(planted: str, within: int) -> None:
    """From row 5,000 on: the mean moves by one deviation, the deviation doubles, a quarter is missing, the feature sticks."""
    random = np.random.default_rng(17)
    edges, shares = trained(random, 10_000, 5)
    values = random.normal(0, 1, (10_000, 5))
    changed = values[5000:, 3]
    changed[:] = {"mean": changed + 1, "spread": changed * 2, "missing": np.where(random.random(5000) < 0.25, np.nan, changed),
                  "constant": 0.123}[planted]
    found = Distribution(edges, shares).step(values, np.zeros(10_000, np.int64), 1, np.arange(10_000))
    assert set(found.feature) == {3} and set(found.symbol) == {0, ALL_SYMBOLS} and set(found.detector) == {PSI, KL}
    for detector in (PSI, KL):
        assert 5000 <= found.row[found.detector == detector].min() < 5000 + within
    assert (found.statistic > found.bound).all()


def test_one_symbol_of_many_drifts_and_the_others_do_not() -> None:
    random = np.random.default_rng(19)
    edges, shares = trained(random, 10_000, 1)
    values, codes = random.normal(0, 1, (80_000, 1)), np.tile(np.arange(8), 10_000)
    values[(codes == 5) & (np.arange(80_000) > 40_000)] += 2
    found = Distribution(edges, shares).step(values, codes, 8, np.arange(80_000))
    assert set(found.symbol) == {5}


def test_histogram() -> None:
    edges, shares = histogram(np.arange(100.0), 4)
    assert edges == (24.0, 49.0, 74.0) and shares == (0.24, 0.25, 0.25, 0.26, 0.0)
    assert histogram([1.0, math.nan, 2.0, math.nan], 2) == ((1.0,), (0.0, 0.5, 0.5))
    assert histogram([math.nan] * 3) == ((), (0.0, 1.0)) and histogram([]) == ((), (0.0, 0.0))
    with pytest.raises(ValueError, match="one feature"):
        histogram(np.zeros((2, 2)))


@pytest.mark.parametrize("values", [[5.0] * 50, [0.0] * 90 + [1.0] * 10, [0.0] * 40 + [1.0] * 60, [-math.inf] * 20 + [0.0] * 80])
def test_a_value_that_holds_much_has_a_bin_to_itself(values: list[float]) -> None:
    edges, shares = histogram(values)
    most = max(values, key=values.count)
    at = edges.index(most)
    assert edges[at + 1] == np.nextafter(most, np.inf) and shares[at + 1] == values.count(most) / len(values)
    for moved in (most - 1e-6, most + 1e-6):
        operator = Distribution([edges], [shares], 100, 100)
        shifted = np.where(np.resize(values, 100) == most, moved, np.resize(values, 100))[:, None]
        assert len(operator.step(shifted, np.zeros(100, np.int64), 1, np.arange(100))) == 4


@given(st.lists(st.floats(allow_nan=True) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=300), st.integers(2, 50))
def test_every_value_of_the_training_window_is_in_one_bin(values: list[float], bins: int) -> None:
    edges, shares = histogram(values, bins)
    assert list(edges) == sorted(set(edges)) and len(shares) == len(edges) + 2 <= BINS_MAX
    assert math.isclose(sum(shares), 1.0) and min(shares) >= 0
    again = Distribution([edges], [shares], len(values), 1, 1e-9, 1e-9)
    assert len(again.step(np.array(values)[:, None], np.zeros(len(values), np.int64), 1, np.arange(len(values)))) == 0


@pytest.mark.parametrize(("edges", "shares", "message"), [
    ([(0.0,)], [(0.5, 0.5)], "1 edges and 2 shares for feature 0"),
    ([()], [(0.9, 0.0)], "wrong for feature 0"),
    ([(1.0, 0.0)], [(0.5, 0.2, 0.3, 0.0)], "wrong for feature 0"),
    ([()], [(math.nan, 0.0)], "wrong for feature 0"),
    ([(), ()], [(1.0, 0.0)], "edges of 2 features and shares of 1"),
])
def test_a_card_that_does_not_fit_is_named(edges: Any, shares: Any, message: str) -> None:
    with pytest.raises(PenstockError, match=message):
        Distribution(edges, shares)


def test_other_columns_and_snapshots_of_others_are_refused() -> None:
    with pytest.raises(PenstockError, match="2 features, and the model was trained on 4"):
        watch().step(np.zeros((1, 2)), np.zeros(1, np.int64), 1, np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="snapshot is of windows"):
        watch().restore(watch(window=61).snapshot())
    with pytest.raises(ValueError, match="at least 1"):
        watch(every=0)


def test_a_model_without_features_and_a_step_without_rows_give_nothing() -> None:
    assert len(Distribution([], []).step(np.zeros((3, 0)), np.zeros(3, np.int64), 1, np.arange(3))) == 0
    assert len(watch().step(np.zeros((0, 4)), np.zeros(0, np.int64), 0, np.zeros(0, np.int64))) == 0
