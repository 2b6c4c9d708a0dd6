"""Drift detectors: CUSUM against its definition, planted drift found in time, and few false alarms where nothing changes."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.learners.detectors import FELL, ROSE, STEADY, WARNED, Cusum, LossMonitor
from schemas.config_models import DRIFT_DETECTORS, DriftConfig

DETECTORS = [name for name in DRIFT_DETECTORS if name != "none"]
DAYS_10 = 14_400
REPEATS = {"KSWIN": 2}
FOUND_WITHIN = {"CUSUM": 200, "PageHinkley": 200, "ADWIN": 300, "KSWIN": 600}
"""Losses within which a doubled log loss of 1-minute labels is found."""


def watched(name: str, losses: np.ndarray, bars: int, action: str = "alert") -> tuple[list[tuple[int, int]], LossMonitor]:
    """(index, outcome) of all that is not steady."""
    monitor = LossMonitor(DriftConfig(name, action), bars, 5, "models m")
    return [(k, said) for k, loss in enumerate(losses.tolist()) if (said := monitor.update(loss)) != STEADY], monitor


def streams(seed: int, n: int = DAYS_10) -> dict[str, tuple[np.ndarray, int]]:
    """Losses of a process that does not change, with the horizon of its labels in bars: log losses of a weak model, squared errors of
    normal and of heavy-tailed returns, and those of labels that overlap over 15 bars."""
    rng = np.random.default_rng(seed)
    p = np.clip(0.5 + 0.05 * rng.normal(size=n), 0.01, 0.99)
    hit = rng.random(n) < p
    normal, heavy = rng.normal(size=n + 14), rng.standard_t(4, size=n + 14)
    overlapping = np.convolve(normal, np.ones(15), "valid") / math.sqrt(15)
    heavy_overlapping = np.convolve(heavy, np.ones(15), "valid") / math.sqrt(15)
    return {
        "log": (-np.log(np.where(hit, p, 1 - p)), 1),
        "squared": (normal[:n] ** 2, 1),
        "squared heavy": (heavy[:n] ** 2, 1),
        "log overlapping": (-np.log(np.where(overlapping > 0, p, 1 - p)), 15),
        "squared overlapping": (overlapping ** 2, 15),
        "squared heavy overlapping": (heavy_overlapping ** 2, 15),
    }


def reference_cusum(z: list[float], k: float, h: float) -> int | None:
    """Where the larger of max over starts of sum(z - k) and of sum(-z - k) first exceeds h: the definition, not the recursion."""
    for end in range(1, len(z) + 1):
        high = max(math.fsum(v - k for v in z[start:end]) for start in range(end))
        low = max(math.fsum(-v - k for v in z[start:end]) for start in range(end))
        if max(high, low) > h:
            return end - 1
    return None


@given(st.lists(st.integers(-40, 40).map(lambda v: v / 8), min_size=1, max_size=60), st.sampled_from([0.25, 0.5, 1.0]),
       st.sampled_from([2.0, 4.0, 8.0]))
def test_cusum_is_its_definition(z: list[float], k: float, h: float) -> None:
    cusum = Cusum(k, h)
    found = next((i for i, v in enumerate(z) if cusum.update(v)), None)
    assert found == reference_cusum(z, k, h)


def test_cusum_of_montgomerys_example() -> None:
    """Montgomery, Introduction to Statistical Quality Control, table 9.1 and example 9.1: mean 10, sigma 1, K = 0.5, H = 5; the upper sum
    exceeds H first at observation 29, where it is 5.28."""
    x = [9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20, 10.34, 9.03, 11.47, 10.51, 9.40, 10.08, 9.37, 10.62, 10.31, 8.52, 10.84,
         10.90, 9.33, 12.29, 11.50, 10.60, 11.08, 10.38, 11.62, 11.31, 10.52]
    cusum = Cusum(0.5, 5.0)
    alarms = [(k, round(cusum.high, 2)) for k, value in enumerate(x, 1) if cusum.update(value - 10.0)]
    assert alarms[0] == (29, 5.28)


def test_cusum_keeps_its_average_run_length() -> None:
    """Siegmund's approximation for one side, (exp(2kb) - 2kb - 1) / 2k^2 with b = h + 1.166, halved for two (Siegmund 1985)."""
    k, h, rng = 0.5, 4.0, np.random.default_rng(2)
    b = h + 1.166
    expected = (math.exp(2 * k * b) - 2 * k * b - 1) / (2 * k * k) / 2
    lengths = []
    for _ in range(400):
        cusum, n = Cusum(k, h), 1
        while not cusum.update(rng.normal()):
            n += 1
        lengths.append(n)
    assert np.mean(lengths) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("name", DETECTORS)
def test_at_most_one_false_alarm_in_ten_days(name: str) -> None:
    """On average over the seeds, with the parameters that ship, in each kind of stationary losses."""
    repeats = REPEATS.get(name, 12)
    alarms: dict[str, list[int]] = {}
    for seed in range(repeats):
        for kind, (losses, bars) in streams(seed).items():
            found, _ = watched(name, losses, bars)
            alarms.setdefault(kind, []).append(sum(said in (ROSE, FELL) for _, said in found))
    rates = {kind: float(np.mean(counts)) for kind, counts in alarms.items()}
    assert all(rate <= 1.0 for rate in rates.values()), rates


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("seed", range(3))
def test_planted_drift_is_found_in_time_and_in_its_direction(name: str, seed: int) -> None:
    losses, bars = streams(seed, 4_000)["log"]
    for factor, outcome in ((2.0, ROSE), (0.5, FELL)):
        changed = losses.copy()
        changed[2_000:] *= factor
        found, monitor = watched(name, changed, bars)
        after = [(k, said) for k, said in found if said in (ROSE, FELL)]
        assert after[0][1] == outcome, after
        assert 0 <= after[0][0] - 2_000 < FOUND_WITHIN[name], after
        if name in ("CUSUM", "PageHinkley"):
            assert monitor.statistic > monitor.bound
        if name == "KSWIN":
            assert monitor.statistic <= monitor.bound


@pytest.mark.parametrize("name", DETECTORS)
def test_a_warning_comes_before_drift(name: str) -> None:
    losses, bars = streams(1, 4_000)["log"]
    losses[2_000:] += np.linspace(0, 1.0, 2_000)  # slowly, so that there is time to warn
    found, _ = watched(name, losses, bars, "replace")
    first = {said: k for k, said in reversed(found) if k >= 2_000}
    assert first[WARNED] < first[ROSE]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_monitor_goes_on_after_it_was_saved(name: str) -> None:
    losses = streams(3, 3_000)["squared"][0]
    losses[1_500:] *= 4
    whole, last = watched(name, losses, 1, "replace")
    monitor = LossMonitor(DriftConfig(name, "replace"), 1, 5, "models m")
    got = []
    for k, loss in enumerate(losses.tolist()):
        if k % 97 == 0:
            monitor = pickle.loads(pickle.dumps(monitor))
        said = monitor.update(loss)
        if said != STEADY:
            got.append((k, said))
    assert got == whole and any(said == ROSE for _, said in got)
    assert (monitor.statistic, monitor.bound) == (last.statistic, last.bound)


def test_a_block_is_twice_the_horizon_and_one_absurd_loss_is_no_drift() -> None:
    assert LossMonitor(DriftConfig("CUSUM"), 15, 1, "m").block == 30
    assert LossMonitor(DriftConfig("CUSUM"), 1, 1, "m").block == 10
    assert LossMonitor(DriftConfig("CUSUM", "alert", {"block": 4}), 15, 1, "m").block == 4
    losses = streams(0, 4_000)["squared"][0]
    losses[2_500] = 1e12
    assert watched("CUSUM", losses, 1)[0] == watched("CUSUM", np.minimum(losses, 1e3), 1)[0]
    assert not [k for k, said in watched("CUSUM", losses, 1)[0] if said == ROSE and 2_500 <= k < 2_600]


def test_losses_that_never_differ_are_no_drift() -> None:
    for name in DETECTORS:
        assert watched(name, np.full(3_000, 0.69), 1)[0] == []
