"""When to train again: age, rows, decay, drift, regime shift, or because somebody asks. Pure: a function of what is observed and of limits.

A trigger carries what was observed and what was allowed, and is kept for ever in the model's history.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.config_learn import LearnConfig, duration_ns
from schemas.errors import PenstockError
from schemas.intervals import INTERVAL_UNITS_NS, interval_text

KINDS = ("manual", "first", "age", "rows", "decay", "drift", "regime")
"""manual: asked for. first: no version is active. The others are of the same names in `LearnConfig`."""


@dataclass(frozen=True)
class Trained:
    """How the version in use stood when it was made. trained_ns: when, by the wall clock. regimes: shares of the regimes in its data."""

    version: int
    trained_ns: int
    accuracy: float = math.nan
    regimes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Observations:
    """What happened since. rows: new labels. recent: how many scores `accuracy` and `regimes` are of. manual: who asks, and why."""

    rows: int = 0
    recent: int = 0
    accuracy: float = math.nan
    drift_events: int = 0
    regimes: tuple[float, ...] = ()
    manual: str = ""


@dataclass(frozen=True)
class Trigger:
    """A reason to train."""

    kind: str
    ts_ns: int
    observed: float
    bound: float
    why: str


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Total variation distance of two distributions, from 0 to 1."""
    return 0.5 * sum(abs(x - y) for x, y in zip(a, b, strict=True))


def due(state: Trained | None, now_ns: int, seen: Observations, limits: LearnConfig, last_cycle_ns: int = 0) -> list[Trigger]:
    """Every reason that there is now, in the order of KINDS. state: None where no version is active. last_cycle_ns: when the last cycle
    ended, which silences all but `manual` for `pause`."""
    found: list[Trigger] = []

    def add(kind: str, observed: float, bound: float, why: str) -> None:
        found.append(Trigger(kind, now_ns, float(observed), float(bound), why))

    if seen.manual:
        add("manual", 1.0, 0.0, seen.manual)
    pause_ns = duration_ns(limits.pause, "learn pause")
    if last_cycle_ns and now_ns - last_cycle_ns < pause_ns:
        return found
    if state is None:
        add("first", 0.0, 1.0, "no version is active")
        return found
    age_ns, allowed_ns = now_ns - state.trained_ns, duration_ns(limits.age, "learn age")
    day = INTERVAL_UNITS_NS["d"]
    if allowed_ns and age_ns >= allowed_ns:
        add("age", age_ns / day, allowed_ns / day, f"trained {age_ns / day:.1f} days ago, and {interval_text(allowed_ns)} is the limit")
    if limits.rows and seen.rows >= limits.rows:
        add("rows", seen.rows, limits.rows, f"{seen.rows:,} labels since, and {limits.rows:,} are enough")
    enough = seen.recent >= limits.recent_rows
    drop = state.accuracy - seen.accuracy
    if limits.accuracy_drop and enough and drop >= limits.accuracy_drop:
        add("decay", drop, limits.accuracy_drop, f"accuracy {seen.accuracy:.1%} over the last {seen.recent:,} scores, from "
                                                 f"{state.accuracy:.1%} in evaluation")
    if limits.drift_events and seen.drift_events >= limits.drift_events:
        add("drift", seen.drift_events, limits.drift_events, f"{seen.drift_events:,} drift events since")
    if limits.regime_shift and enough and state.regimes and seen.regimes:
        far = distance(state.regimes, seen.regimes)
        if far >= limits.regime_shift:
            add("regime", far, limits.regime_shift, f"regimes are {_shares(seen.regimes)} now and were {_shares(state.regimes)} then")
    return found


def _shares(regimes: Sequence[float]) -> str:
    return "/".join(f"{share:.0%}" for share in regimes)


class History:
    """The triggers of a model, one line of JSON each, appended and never changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, triggers: Sequence[Trigger], cycle: int) -> None:
        """On disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for t in triggers:
                file.write(json.dumps({"cycle": cycle, **asdict(t)}, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Mapping[str, object]]:
        """All of them, the oldest first; the torn last line of a killed process is no trigger."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        out = []
        for k, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break
            try:
                out.append(json.loads(line))
            except ValueError:
                raise PenstockError(f"{self.path} line {k}: not a trigger; the file was damaged") from None
        return out
