"""Whether a model may trade: every figure against its threshold, with the plan for when it fails, as a certificate in a chain of its own.

A certificate's digest is the BLAKE3 of the digest before it and its own canonical JSON, so none can be changed, left out or put in
between unnoticed. A figure that cannot be computed has not passed.
"""

import fcntl
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from research.learning.baseline import Baseline
from research.learning.evaluation import Floats, Outcomes, metrics
from research.learning.risk import Risk, risk, risk_of_returns
from research.learning.tests_of_skill import mean_interval
from schemas.config_learn import GovernanceConfig
from schemas.errors import PenstockError
from schemas.intervals import interval_text, parse_interval

FILE = "certificates.jsonl"
CERTIFIED, REFUSED = "certified", "refused"
_GENESIS = "0" * 64


@dataclass(frozen=True)
class Check:
    """One threshold. sense: "<=" or ">=": how observed and bound have to stand."""

    name: str
    meaning: str
    observed: float
    sense: str
    bound: float

    @property
    def passed(self) -> bool:
        """Not where nothing could be observed."""
        if not math.isfinite(self.observed):
            return False
        return self.observed <= self.bound if self.sense == "<=" else self.observed >= self.bound


@dataclass(frozen=True)
class Assessment:
    """The checks of a model, with the figures that they are of."""

    checks: tuple[Check, ...]
    risk: Risk
    baseline: Risk | None
    uplift: float
    uplift_low: float
    uplift_high: float

    @property
    def passed(self) -> bool:
        return all(c.passed for c in self.checks)


def uplift_of(returns: Floats, baseline: Floats | None, seed: int) -> tuple[float, float, float]:
    """Mean return per period above the baseline's (none: above staying out), with its bootstrap interval."""
    other = np.zeros(len(returns)) if baseline is None else baseline
    if not len(returns):
        return float("nan"), float("nan"), float("nan")
    found = mean_interval(returns - other, 1, seed)
    return found.value, found.low, found.high


def assess(o: Outcomes, baseline: Baseline | None, limits: GovernanceConfig, seed: int = 1) -> Assessment:
    """Judge out-of-sample forecasts. baseline: the rules on the same stretch of time; without them the baseline is to stay out."""
    period_ns = parse_interval(limits.period, "governance period")
    mine, returns = risk(o, limits.cost_bps, period_ns, limits.threshold)
    base, theirs = None, None
    if baseline is not None and len(o):
        base, changes = baseline.returns(int(o.ts_ns.min()), int(o.ts_end_ns.max()), period_ns, limits.cost_bps)
        theirs = risk_of_returns(base, changes)
    uplift, low, high = uplift_of(returns, base, seed)
    m, per = metrics(o), f"of the returns per {limits.period}"
    checks = [
        Check("rows", "labels out of sample", m["rows"], ">=", limits.rows_min),
        Check("periods", f"periods of {limits.period}", mine.periods, ">=", limits.periods_min),
        Check("drawdown", "deepest fall from a peak, share of capital", mine.drawdown, "<=", limits.drawdown_max),
        Check("var_95", f"value at risk, 95 %, {per}", mine.var_95, "<=", limits.var_95_max),
        Check("var_99", f"value at risk, 99 %, {per}", mine.var_99, "<=", limits.var_99_max),
        Check("es_95", f"expected shortfall, 95 %, {per}", mine.es_95, "<=", limits.es_95_max),
        Check("es_99", f"expected shortfall, 99 %, {per}", mine.es_99, "<=", limits.es_99_max),
        Check("uplift", f"mean return per {limits.period} above {'the rules' if baseline is not None else 'staying out'}", uplift, ">=",
              limits.uplift_min),
        Check("accuracy", "share of right directions", m["accuracy"], ">=", limits.accuracy_min),
    ]
    if o.task == "classify":
        checks.append(Check("calibration", "expected calibration error", m["calibration_error"], "<=", limits.calibration_error_max))
    return Assessment(tuple(checks), mine, theirs, uplift, low, high)


def fallback_plan(active_before: int, rules: Sequence[str], accuracy_floor: float) -> list[str]:
    """What happens when the model fails, in order; `penstock learn` and the pipeline carry it out."""
    steps = [f"below {accuracy_floor:.0%} right directions the pipeline stops acting on the model (state `stopped`)"]
    if active_before:
        steps.append(f"version {active_before} takes over by a rollback, an event on the tape")
    else:
        steps.append("there is no earlier version to roll back to: the version is retired and the model abstains")
    steps.append(f"the rules go on: {', '.join(rules)}" if rules else "no rules are configured: nothing is traded")
    return steps


def certify(path: Path, model: Mapping[str, Any], o: Outcomes, baseline: Baseline | None, limits: GovernanceConfig, fallback: Sequence[str],
            made_ns: int) -> dict[str, Any]:
    """Judge a version and write its certificate to the chain at `path`; returns it. A refusal is written like an approval.

    model: name, version, digest, data, whatever says what was judged. made_ns: when, by the wall clock.
    """
    found = assess(o, baseline, limits)
    body = {
        "model": dict(model), "made_ns": made_ns, "verdict": CERTIFIED if found.passed else REFUSED, "fallback": list(fallback),
        "limits": asdict(limits), "metrics": metrics(o), "risk": asdict(found.risk),
        "baseline": {"name": baseline.name, "risk": asdict(found.baseline)} if baseline is not None and found.baseline else None,
        "uplift": {"value": found.uplift, "low": found.uplift_low, "high": found.uplift_high},
        "checks": [{**asdict(c), "passed": c.passed} for c in found.checks],
    }
    return append_certificate(path, body)


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces; what is not finite is null."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def _digest(previous: str, body: Mapping[str, Any]) -> str:
    return blake3(previous.encode() + canonical_json(body).encode()).hexdigest()


def append_certificate(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Add one to the chain, on disk when this returns. Processes that do so at once wait for each other; a line that a kill left torn was
    given to nobody and is overwritten. PenstockError where the chain is broken already: nothing is built on that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        found = _verified(whole.splitlines())
        if not found["ok"]:
            raise PenstockError(f"{path} line {found['broken']}: {found['why']}; put the file back from a backup, or move it away to begin "
                                "a new chain")
        record = {**json.loads(canonical_json(body)), "number": found["certificates"] + 1, "previous": found["head"]}
        record["digest"] = _digest(found["head"], {k: v for k, v in record.items() if k != "digest"})
        file.truncate(len(whole))
        file.write(canonical_json(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return record


def _verified(lines: Sequence[bytes]) -> dict[str, Any]:
    head = _GENESIS
    for k, line in enumerate(lines, 1):
        why = ""
        try:
            record = json.loads(line)
            said = record.pop("digest")
            if record["previous"] != head:
                why = "does not follow from the one before it"
            elif record["number"] != k:
                why = f"is number {record['number']}"
            elif said != _digest(head, record):
                why = "is not what was signed: its digest is of other contents"
        except (ValueError, KeyError, TypeError, AttributeError):
            why = "is not a certificate"
        if why:
            return {"ok": False, "certificates": k - 1, "head": head, "broken": k, "why": why}
        head = said
    return {"ok": True, "certificates": len(lines), "head": head, "broken": 0, "why": ""}


def verify_certificates(path: Path) -> dict[str, Any]:
    """ok, how many certificates hold, the head of the chain, and where not ok the first line that is broken, and why."""
    if not path.exists():
        return _verified([])
    data = path.read_bytes()
    found = _verified(data.splitlines())
    if found["ok"] and data and not data.endswith(b"\n"):
        return {**found, "ok": False, "broken": found["certificates"], "why": "has no end"}
    return found


def certificates(path: Path) -> list[dict[str, Any]]:
    """Those that hold, the oldest first."""
    found = verify_certificates(path)
    if not found["certificates"]:
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()[: found["certificates"]]]


def limits_text(limits: GovernanceConfig) -> str:
    """One line for people."""
    return (f"costs of {limits.cost_bps:g} bps a side, periods of {interval_text(parse_interval(limits.period))}, drawdown at most "
            f"{limits.drawdown_max:.1%}, uplift at least {limits.uplift_min:.4%}")
