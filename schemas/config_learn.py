"""The section `learn:` of a configuration: when models are trained again, by which gates a new version is judged, and how it is watched.

    learn:
      data: ["recorded/*.parquet"]
      age: 7d
      governance: {cost_bps: 10, drawdown_max: 0.2}

Every gate has its threshold here and nowhere else; durations are written like `15m`, `12h`, `7d`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.config_live import parse_section
from schemas.errors import UserError
from schemas.intervals import parse_interval


@dataclass(frozen=True)
class GovernanceConfig:
    """What a version has to keep to be certified, on forecasts out of sample.

    cost_bps: of one side of a trade, in hundredths of a percent. threshold: a probability has to be this far from even to be traded.
    period: returns, value at risk (var) and expected shortfall (es) are per period, as shares of the capital. uplift_min: mean return per
    period above the rules. accuracy_min: share of right directions.
    """

    cost_bps: float = 10.0
    threshold: float = 0.0
    period: str = "1d"
    rows_min: int = 1000
    periods_min: int = 5
    drawdown_max: float = 0.2
    var_95_max: float = 0.05
    var_99_max: float = 0.1
    es_95_max: float = 0.07
    es_99_max: float = 0.12
    uplift_min: float = 0.0
    accuracy_min: float = 0.5
    calibration_error_max: float = 0.05


@dataclass(frozen=True)
class LearnConfig:
    """data: recordings to train on, where no run is given. limit: only the last so many rows, 0: all.

    Triggers, each off at 0: age since the last training; rows: new labels since; accuracy_drop: below that of the evaluation by this;
    drift_events: since; regime_shift: total variation distance of the shares of the regimes, now and in training. pause: no cycle sooner
    after the last, unless it is asked for. recent_rows: scores that decay and regimes are judged by.

    Cycle: evaluate_share, shadow_share: the last parts of the data, which training does not see. embargo: left out between parts, beyond
    the label's horizon. trials: of a search of parameters. shadow_rows: scores that a version has to gather in shadow.

    Gates: p_max: of the one-sided Diebold-Mariano test against the base rate, and against the active version. level: of intervals.
    uplift_sure: the interval of the uplift over the rules has to lie above 0; uplift_margin: by how much that of a new version has to be
    above the active one's. regime_accuracy_min: in every regime that has regime_rows_min rows. shadow_distance_max: Kolmogorov-Smirnov
    distance of the losses in shadow from those of the evaluation. approve: promote only by hand (`penstock learn --approve`).

    Watch: over its first watch_rows scores, judged from watch_rows_min on, a promoted version is rolled back when it is worse than the one
    before; below accuracy_floor the rules take over; below degraded times its accuracy in evaluation there is an alert.
    """

    data: tuple[str, ...] = ()
    limit: int = 0
    age: str = "7d"
    rows: int = 0
    accuracy_drop: float = 0.05
    drift_events: int = 3
    regime_shift: float = 0.4
    pause: str = "6h"
    recent_rows: int = 500
    evaluate_share: float = 0.25
    shadow_share: float = 0.1
    embargo: str = "1m"
    trials: int = 0
    seed: int = 1
    p_max: float = 0.05
    level: float = 0.95
    uplift_sure: bool = False
    uplift_margin: float = 0.0
    regime_accuracy_min: float = 0.48
    regime_rows_min: int = 200
    shadow_rows: int = 200
    shadow_distance_max: float = 0.2
    approve: bool = False
    watch_rows: int = 2000
    watch_rows_min: int = 200
    accuracy_floor: float = 0.45
    degraded: float = 0.75
    governance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> GovernanceConfig:
        """The thresholds of a certificate."""
        return parse_section(GovernanceConfig, self.governance, "learn governance")


def duration_ns(text: str, where: str) -> int:
    """`7d` to ns; 0 or nothing: 0."""
    return 0 if text in ("", "0") else parse_interval(text, where)


def check_learn(learn: LearnConfig, where: str = "learn") -> LearnConfig:
    """The same; UserError for a value that no cycle can use."""
    for key in ("age", "pause", "embargo"):
        duration_ns(getattr(learn, key), f"{where} {key}")
    parse_interval(learn.limits.period, f"{where} governance period")
    for key in ("evaluate_share", "shadow_share"):
        if not 0 < getattr(learn, key) < 1:
            raise UserError(f"{where} {key}: {getattr(learn, key):g} is not between 0 and 1")
    if learn.evaluate_share + learn.shadow_share > 0.8:
        raise UserError(f"{where}: evaluate_share {learn.evaluate_share:g} and shadow_share {learn.shadow_share:g} leave less than a fifth "
                        "to train on")
    for key in ("p_max", "level", "accuracy_floor", "degraded", "regime_accuracy_min", "shadow_distance_max", "regime_shift",
                "accuracy_drop"):
        if getattr(learn, key) > 1:
            raise UserError(f"{where} {key}: {getattr(learn, key):g} is not from 0 to 1")
    if learn.watch_rows_min < 1 or learn.watch_rows < learn.watch_rows_min:
        raise UserError(f"{where}: watch_rows {learn.watch_rows} is fewer than watch_rows_min {learn.watch_rows_min}, which is at least 1")
    return learn
