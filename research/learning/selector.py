"""Which model is to be followed, and when to go back: two tables of rules, pure functions of figures.

A challenger replaces what is followed only where it is better than the rules by a written minimum, with certainty, and than the incumbent
by a margin; in doubt what is there stays, and in need the rules take over.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

RULES = "rules"
"""What is followed where no model is good enough."""
KEEP, ALERT, ROLLBACK, TO_RULES = "keep", "alert", "rollback", "rules"


@dataclass(frozen=True)
class Candidate:
    """A model's figures out of sample. uplift: mean return per period above the rules' after costs; uplift_low: lower end of its interval.
    certified: passed governance."""

    name: str
    rows: int
    uplift: float
    uplift_low: float
    accuracy: float
    certified: bool = True


@dataclass(frozen=True)
class Choice:
    """name: of a candidate, or RULES. why: one reason per candidate, in their order, the chosen one's too."""

    name: str
    why: tuple[tuple[str, str], ...]


def unfit(c: Candidate, uplift_min: float, rows_min: int, accuracy_min: float, sure: bool) -> str:
    """Why a candidate cannot be followed; "" where it can. Whatever is not a number is a reason."""
    if c.rows < rows_min:
        return f"{c.rows:,} rows, and {rows_min:,} are asked for"
    if not c.certified:
        return "not certified"
    if not c.accuracy >= accuracy_min:
        return f"accuracy {c.accuracy:.1%} is below {accuracy_min:.1%}"
    if not c.uplift >= uplift_min:
        return f"uplift {c.uplift:.4%} is below {uplift_min:.4%}"
    if sure and not c.uplift_low > 0.0:
        return f"uplift is not certain: its interval begins at {c.uplift_low:.4%}"
    return ""


def choose(candidates: Sequence[Candidate], incumbent: str = RULES, uplift_min: float = 0.0, rows_min: int = 1000,
           accuracy_min: float = 0.5, sure: bool = True, margin: float = 0.0) -> Choice:
    """The candidate with the highest uplift over the rules among those that are fit, or the rules.

    incumbent: what is followed now; another has to be better by more than `margin` to replace it. sure: the interval of the uplift has to
    lie above 0. Ties go to the incumbent, then to the first.
    """
    reasons = {c.name: unfit(c, uplift_min, rows_min, accuracy_min, sure) for c in candidates}
    fit = [c for c in candidates if not reasons[c.name]]
    chosen = max(fit, key=lambda c: c.uplift, default=None)
    held = next((c for c in fit if c.name == incumbent), None)
    if held is not None and chosen is not None and chosen.uplift <= held.uplift + margin:
        chosen = held
    name = chosen.name if chosen is not None else RULES
    for c in fit:
        behind = chosen.uplift - c.uplift if chosen is not None else math.nan
        reasons[c.name] = "chosen" if c.name == name else f"fit, and {name} is ahead by {behind:.4%}"
    return Choice(name, tuple((c.name, reasons[c.name]) for c in candidates))


@dataclass(frozen=True)
class Watched:
    """The scores of the version in use since it was promoted, beside what the one before says of the same bars.

    rows: of them. accuracy: in them. trained_accuracy: in its evaluation. previous: the version before, 0: none. previous_accuracy: its,
    on the same bars. p_worse: of the one-sided Diebold-Mariano test that the version in use loses more than the one before; NaN where it
    cannot be told.
    """

    rows: int
    accuracy: float
    trained_accuracy: float
    previous: int = 0
    previous_accuracy: float = math.nan
    p_worse: float = math.nan


@dataclass(frozen=True)
class Reversion:
    """What to do: KEEP, ALERT (keep, and say so), ROLLBACK to the version before, or TO_RULES."""

    action: str
    why: str


def reversion(w: Watched, rows_min: int, accuracy_floor: float, degraded: float, p_max: float) -> Reversion:
    """The automatic reversion, the first rule that applies.

    1 fewer than rows_min scores: keep. 2 accuracy below the floor: roll back where the version before is at or above it, else the rules.
    3 worse than the version before (p below p_max): roll back. 4 accuracy below `degraded` times that of its evaluation: alert. 5 keep.
    """
    if w.rows < rows_min:
        return Reversion(KEEP, f"{w.rows:,} scores, judged from {rows_min:,} on")
    if not w.accuracy >= accuracy_floor:
        if w.previous and w.previous_accuracy >= accuracy_floor:
            return Reversion(ROLLBACK, f"accuracy {w.accuracy:.1%} is below the floor of {accuracy_floor:.0%}; version {w.previous} has "
                                       f"{w.previous_accuracy:.1%} on the same bars")
        other = f"and version {w.previous} is not above it" if w.previous else "and there is no version before"
        return Reversion(TO_RULES, f"accuracy {w.accuracy:.1%} is below the floor of {accuracy_floor:.0%}, {other}")
    if w.previous and w.p_worse < p_max:
        return Reversion(ROLLBACK, f"worse than version {w.previous} on the same {w.rows:,} bars (p {w.p_worse:.3f}, below {p_max:g})")
    if w.accuracy < degraded * w.trained_accuracy:
        return Reversion(ALERT, f"accuracy {w.accuracy:.1%} is below {degraded:.0%} of the {w.trained_accuracy:.1%} of its evaluation")
    return Reversion(KEEP, f"accuracy {w.accuracy:.1%} over {w.rows:,} scores")
