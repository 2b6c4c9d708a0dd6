"""Drift of a learner's losses: our CUSUM and River's ADWIN, Page-Hinkley and KSWIN behind one monitor.

The monitor is a state machine over losses, in their order. Losses of overlapping labels are not independent, so it looks at means of
blocks of them, twice as long as the horizon; the first `reference` blocks say what is usual, and what a detector sees is how many standard
deviations of those a block lies off. After an alarm it begins again, reference included.

With the parameters below, false alarms in 14,400 losses (10 days of minutes) of a process that does not change, the mean over 30 seeds in
each of six kinds of losses (log losses, squared errors of normal and of heavy-tailed returns, each of labels that overlap over 15 bars
and of labels that do not): CUSUM 0.2 to 0.5, Page-Hinkley 0.03 to 0.13, ADWIN 0.00 to 0.13; KSWIN, over 2 seeds, 0.0 to 0.5. A log
loss that doubles is found after 30, 30, 60 and 140 losses in the median, and after 80, 80, 260 and 800 where labels overlap.
`tests/test_learners_detectors.py` holds the detectors to at most 1 false alarm and to finding planted drift in time.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from river import drift
from river.base import DriftDetector

from schemas.config_models import DriftConfig
from schemas.errors import UserError, unknown

STEADY, WARNED, ROSE, FELL = range(4)
"""What a loss led to: nothing; a looser detector's warning, where the action is `replace`; drift to higher losses; to lower ones."""
BLOCK_MIN = 10
CLIP = 4.0
"""Standard deviations to which a block is clipped: one absurd loss is no drift."""

_DEFAULTS: dict[str, dict[str, float]] = {
    "ADWIN": {"delta": 0.05, "clock": 2, "max_buckets": 5, "min_window_length": 5, "grace_period": 10},
    "PageHinkley": {"min_instances": 30, "delta": 0.5, "threshold": 10.0, "alpha": 1.0},
    "KSWIN": {"alpha": 0.0005, "window_size": 60, "stat_size": 25},
    "CUSUM": {"k": 0.5, "h": 8.0},
}
_LOOSER = {"ADWIN": ("delta", 6.0), "PageHinkley": ("threshold", 0.5), "KSWIN": ("alpha", 10.0), "CUSUM": ("h", 0.5)}
"""Which parameter makes a detector warn sooner, and by what it is multiplied."""
_COMMON: dict[str, float] = {"block": 0, "reference": 100}
_WHOLE = frozenset({"clock", "max_buckets", "min_window_length", "grace_period", "min_instances", "window_size", "stat_size", "block",
                    "reference"})
_RANGES: dict[str, tuple[float, float]] = {
    "delta": (1e-12, 10), "clock": (1, 10_000), "max_buckets": (1, 1_000), "min_window_length": (1, 10_000), "grace_period": (1, 10_000),
    "min_instances": (1, 100_000), "threshold": (1e-9, 1e9), "alpha": (1e-12, 1), "window_size": (4, 10_000), "stat_size": (2, 5_000),
    "k": (0, 10), "h": (1e-9, 1e6), "block": (0, 100_000), "reference": (20, 100_000),
}


class Cusum:
    """The two-sided tabular CUSUM: O(1) a value.

    C+ = max(0, C+ + z - k), C- = max(0, C- - z - k); drift where one exceeds h (Page, Continuous inspection schemes, Biometrika 41, 1954;
    Montgomery, Introduction to Statistical Quality Control, section 9.1). k, h: in standard deviations of z.
    """

    def __init__(self, k: float = 0.5, h: float = 8.0) -> None:
        self.k, self.h = k, h
        self.high = self.low = 0.0

    def update(self, z: float) -> bool:
        """Take one standardised value; whether a side exceeds h."""
        self.high = max(0.0, self.high + z - self.k)
        self.low = max(0.0, self.low - z - self.k)
        return self.high > self.h or self.low > self.h


class LossMonitor:
    """Watches the losses of one learner.

    bars: horizon in bars, which is how far labels overlap. statistic, bound: what the last alarm measured and what was allowed: CUSUM: the
    larger sum, h. PageHinkley: the larger sum, threshold. KSWIN: the p-value, alpha. ADWIN: how far the blocks since the
    cut lie off the reference, in its standard deviations, and delta, the confidence that the cut had to have.
    """

    def __init__(self, config: DriftConfig, bars: int, seed: int, where: str) -> None:
        given = checked(config, where)
        self.name, self._warns = config.detector, config.action == "replace"
        block, self._reference = given.pop("block"), given.pop("reference")
        self._block = int(block) or max(BLOCK_MIN, 2 * bars)
        looser, factor = _LOOSER[self.name]
        self._parameters = given
        self._warning = {**given, looser: given[looser] * factor}
        if self.name == "KSWIN":
            self._parameters, self._warning = {**given, "seed": seed}, {**self._warning, "seed": seed + 1}
        self.statistic = self.bound = math.nan
        self._sum, self._rows = 0.0, 0
        self._begin()

    @property
    def block(self) -> int:
        """Losses per block."""
        return self._block

    @property
    def patience(self) -> int:
        """Losses after which a warning that no drift followed is forgotten."""
        return self._block * int(self._reference)

    def _begin(self) -> None:
        self._n, self._mean, self._m2 = 0, 0.0, 0.0
        self._total, self._count = 0.0, 0
        self._detector = _made(self.name, self._parameters)
        self._warner = _made(self.name, self._warning) if self._warns else None

    def update(self, loss: float) -> int:
        """Take one loss; STEADY, WARNED, ROSE or FELL."""
        self._sum += loss
        self._rows += 1
        if self._rows < self._block:
            return STEADY
        mean = self._sum / self._rows
        self._sum, self._rows = 0.0, 0
        return self._take(mean)

    def _take(self, mean: float) -> int:
        if self._n < self._reference:
            self._n += 1  # Welford 1962
            before = mean - self._mean
            self._mean += before / self._n
            self._m2 += before * (mean - self._mean)
            return STEADY
        deviation = math.sqrt(self._m2 / (self._n - 1))
        if deviation <= 0.0:
            deviation = abs(self._mean) or 1.0
        z = min(CLIP, max(-CLIP, (mean - self._mean) / deviation))
        self._total += z
        self._count += 1
        warned = self._warner is not None and _updated(self._warner, z)
        if _updated(self._detector, z):
            rose = self._measure()
            self._begin()
            return ROSE if rose else FELL
        return WARNED if warned else STEADY

    def _measure(self) -> bool:
        """Note statistic and bound; whether losses rose."""
        d = self._detector
        if isinstance(d, Cusum):
            self.statistic, self.bound = max(d.high, d.low), d.h
            return d.high >= d.low
        if isinstance(d, drift.PageHinkley):
            rose, fell = d._sum_increase - d._min_increase, d._max_decrease - d._sum_decrease
            self.statistic, self.bound = max(rose, fell), d.threshold
            return bool(rose >= fell)
        if isinstance(d, drift.KSWIN):
            latest = sum(d.window) / len(d.window)
            self.statistic, self.bound = float(d.p_value), d.alpha
        else:
            assert isinstance(d, drift.ADWIN)
            latest = d.estimation
            self.statistic, self.bound = abs(latest), self._parameters["delta"]
        return bool(latest > self._total / self._count)  # what is kept after the cut, beside all since the detector began


def checked(config: DriftConfig, where: str) -> dict[str, float]:
    """The parameters of a configuration's detector, defaults filled in; UserError for one that it does not have or cannot take."""
    known = {**_DEFAULTS[config.detector], **_COMMON}
    for name, value in config.parameters.items():
        place = f"{where} drift parameters {name}"
        if name not in known:
            raise unknown(f"parameter of {config.detector} at {where} drift parameters", name, known)
        low, high = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f'{place}: "{value}" is not a number from {low:g} to {high:g}')
        if name in _WHOLE and value != int(value):
            raise UserError(f'{place}: "{value}" is not a whole number')
    given = {**known, **config.parameters}
    if config.detector == "KSWIN" and given["window_size"] < 2 * given["stat_size"]:
        raise UserError(f"{where} drift parameters: window_size {given['window_size']:g} is below twice stat_size {given['stat_size']:g}, "
                        "so there is nothing to compare the latest values with")
    return {name: int(value) if name in _WHOLE else float(value) for name, value in given.items()}


def _made(name: str, parameters: Mapping[str, float]) -> Cusum | DriftDetector:
    if name == "CUSUM":
        return Cusum(**parameters)
    given: dict[str, Any] = dict(parameters)
    known: dict[str, Callable[..., DriftDetector]] = {"ADWIN": drift.ADWIN, "PageHinkley": drift.PageHinkley, "KSWIN": drift.KSWIN}
    return known[name](**given)


def _updated(detector: Cusum | DriftDetector, z: float) -> bool:
    if isinstance(detector, Cusum):
        return detector.update(z)
    detector.update(z)
    return bool(detector.drift_detected)
