"""The gates between a new version and its promotion: one table, each gate a figure and the threshold of `LearnConfig` that it has to keep.

Every gate is asked, also after one has failed, and every verdict is recorded. A figure that is not there because its question does not
arise (no active version to be better than) makes a gate not applicable; one that could not be computed has not passed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.config_learn import LearnConfig

EVALUATION, SHADOW = "evaluation", "shadow"
PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Gate:
    """figure: where in the cycle's figures it stands. bound: a field of LearnConfig, or a number."""

    name: str
    stage: str
    meaning: str
    figure: tuple[str, ...]
    sense: str
    bound: str | float


GATES = (
    Gate("skill", EVALUATION, "its loss is below the base rate's: p of Diebold-Mariano", ("against_base", "p_less"), "<=", "p_max"),
    Gate("direction", EVALUATION, "right directions beyond those of always saying the likelier side: lower end of the interval",
         ("edge", "low"), ">=", 0.0),
    Gate("better", EVALUATION, "its loss is below the active version's on the same bars: p of Diebold-Mariano",
         ("against_active", "p_less"), "<=", "p_max"),
    Gate("regimes", EVALUATION, "right directions in its worst regime", ("worst_regime", "accuracy"), ">=", "regime_accuracy_min"),
    Gate("certified", EVALUATION, "share of the certificate's checks that it passed", ("certificate", "passed"), ">=", 1.0),
    Gate("selected", EVALUATION, "the selector prefers it to the active version and to the rules", ("selector", "chosen"), ">=", 1.0),
    Gate("shadow_rows", SHADOW, "scores in shadow", ("shadow", "rows"), ">=", "shadow_rows"),
    Gate("shadow_floor", SHADOW, "right directions in shadow", ("shadow", "accuracy"), ">=", "accuracy_floor"),
    Gate("shadow_loss", SHADOW, "no worse than the active version in shadow: p of Diebold-Mariano that it is worse",
         ("shadow", "against_active", "p_worse"), ">=", "p_max"),
    Gate("shadow_errors", SHADOW, "its losses in shadow are as in evaluation: Kolmogorov-Smirnov distance, 0 where it may be chance",
         ("shadow", "distance_sure"), "<=", "shadow_distance_max"),
)


@dataclass(frozen=True)
class Verdict:
    """What a gate said. observed: None where there was nothing to observe."""

    gate: str
    stage: str
    meaning: str
    observed: float | None
    sense: str
    bound: float
    outcome: str


def verdicts(stage: str, figures: Mapping[str, Any], learn: LearnConfig) -> list[Verdict]:
    """All gates of a stage, in the order of the table."""
    return [_verdict(gate, figures, learn) for gate in GATES if gate.stage == stage]


def _verdict(gate: Gate, figures: Mapping[str, Any], learn: LearnConfig) -> Verdict:
    bound = float(getattr(learn, gate.bound)) if isinstance(gate.bound, str) else gate.bound
    found: Any = figures
    for k, key in enumerate(gate.figure):
        found = found.get(key)
        if found is None and k < len(gate.figure) - 1:
            return Verdict(gate.name, gate.stage, gate.meaning, None, gate.sense, bound, NOT_APPLICABLE)
    if found is None or not math.isfinite(found):
        return Verdict(gate.name, gate.stage, gate.meaning, None, gate.sense, bound, FAILED)
    held = found <= bound if gate.sense == "<=" else found >= bound
    return Verdict(gate.name, gate.stage, gate.meaning, float(found), gate.sense, bound, PASSED if held else FAILED)


def refused_by(found: list[Verdict]) -> list[str]:
    """Names of the gates that were not passed."""
    return [v.gate for v in found if v.outcome == FAILED]
