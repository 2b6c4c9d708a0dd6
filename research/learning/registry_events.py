"""The life of a model's versions: one table of legal transitions, and where a list of events leaves every version at a moment.

Events count in the order of the time from which they hold, then of their number. At any moment at most one version is ACTIVE and at
most one is in SHADOW. An event never changes; what it did is undone by another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import UserError
from schemas.ids import name_id
from schemas.tables import ALL_SYMBOLS, Rows
from schemas.tables_models import PROMOTION_ACTIONS, PROMOTIONS

CANDIDATE, IN_SHADOW, ACTIVE, RETIRED = STATES = ("CANDIDATE", "SHADOW", "ACTIVE", "RETIRED")
SUPERSEDED, DISPLACED = "superseded", "displaced"
"""What happens to a version because of another: that became active, that came into shadow."""
TRANSITIONS: dict[tuple[str, str], str] = {
    (CANDIDATE, "shadow"): IN_SHADOW,
    (CANDIDATE, "activate"): ACTIVE,
    (CANDIDATE, "retire"): RETIRED,
    (IN_SHADOW, "activate"): ACTIVE,
    (IN_SHADOW, "retire"): RETIRED,
    (IN_SHADOW, DISPLACED): CANDIDATE,
    (ACTIVE, "retire"): RETIRED,
    (ACTIVE, SUPERSEDED): RETIRED,
    (RETIRED, "rollback"): ACTIVE,
}
"""(state, what happens) to the state after; whatever is not here is refused. A version begins as CANDIDATE."""
_TO = {"activate": "be activated", "shadow": "go into shadow", "retire": "be retired", "rollback": "be rolled back to"}


@dataclass(frozen=True)
class Event:
    """A change of a version, as it was recorded. number: 1, 2, 3, … over the whole registry. effective_ns: from when it holds, in event
    time. recorded_ns: when it was decided, by the wall clock. digest: of the version's files."""

    number: int
    name: str
    version: int
    action: str
    effective_ns: int
    recorded_ns: int
    reason: str
    actor: str
    digest: str


@dataclass
class Standing:
    """Where the versions of one name are at a moment. past: versions that were active and may be rolled back to, the latest last; the
    active one is its last."""

    active: Event | None = None
    shadow: Event | None = None
    past: list[int] = field(default_factory=list)
    _states: dict[int, str] = field(default_factory=dict)

    def state(self, version: int) -> str:
        """One of STATES."""
        return self._states.get(version, CANDIDATE)

    @property
    def before(self) -> int:
        """The version that a rollback goes to: the one that was active before, not counting those rolled back from; 0: none."""
        earlier = self.past if self.active is None else self.past[:-1]
        return earlier[-1] if earlier else 0

    def apply(self, e: Event) -> None:
        """Let an event happen; UserError where the table does not have it."""
        state = self.state(e.version)
        after = TRANSITIONS.get((state, e.action))
        if after is None:
            raise UserError(f"{e.name} version {e.version} is {state} and cannot {_TO[e.action]}; {_legal(state)}")
        if after == ACTIVE and self.active is not None:
            self._states[self.active.version] = TRANSITIONS[ACTIVE, SUPERSEDED]
        if after == IN_SHADOW and self.shadow is not None:
            self._states[self.shadow.version] = TRANSITIONS[IN_SHADOW, DISPLACED]
        self._states[e.version] = after
        if state == IN_SHADOW:
            self.shadow = None
        if after == ACTIVE:
            self.active = e
            if e.version in self.past:
                del self.past[self.past.index(e.version):]
            self.past.append(e.version)
        elif after == IN_SHADOW:
            self.shadow = e
        elif state == ACTIVE:  # retired by name, not superseded: a rollback does not come back to it
            self.active = None
            self.past.remove(e.version)


def _legal(state: str) -> str:
    actions = [action for s, action in TRANSITIONS if s == state and action in PROMOTION_ACTIONS]
    hint = {ACTIVE: "it is in use already", RETIRED: "`penstock model rollback` brings a retired version back"}.get(state)
    return hint or f"it can: {', '.join(actions)}"


def ordered(events: Iterable[Event]) -> list[Event]:
    """In the order in which they count."""
    return sorted(events, key=lambda e: (e.effective_ns, e.number))


def standing(events: Iterable[Event], ts_ns: int | None = None) -> Standing:
    """Where the events of one name leave its versions at a time, inclusive; without one, at the end. UserError where one is not legal."""
    at = Standing()
    for e in ordered(events):
        if ts_ns is None or e.effective_ns <= ts_ns:
            at.apply(e)
    return at


def stretch(events: Iterable[Event], ts_from: int | None, ts_to: int | None) -> list[Event]:
    """The events of one name from a time (inclusive) to a time (exclusive), after those that hold already as it begins."""
    given = ordered(events)
    inside = [e for e in given if (ts_from is None or e.effective_ns >= ts_from) and (ts_to is None or e.effective_ns < ts_to)]
    if ts_from is None:
        return inside
    at = standing(given, ts_from - 1)
    return ordered(e for e in (at.active, at.shadow) if e is not None) + inside


def promotion_rows(events: Iterable[Event]) -> Rows:
    """Events as rows of PROMOTIONS, by time; they are of no symbol and have no place on a tape yet."""
    given = ordered(events)
    rows = PROMOTIONS.empty(len(given))
    rows["seq"], rows["symbol"] = -1, ALL_SYMBOLS
    for row, e in zip(rows, given, strict=True):
        row["ts_event_ns"], row["model_id"], row["version"] = e.effective_ns, np.uint64(name_id(e.name)), e.version
        row["action"], row["digest"] = PROMOTION_ACTIONS.index(e.action), np.uint64(int(e.digest[:16], 16))
    return rows


def diagram() -> str:
    """The table of transitions as a Mermaid diagram, for the docs."""
    lines = [f"    {a} --> {b}: {what}" for (a, what), b in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {CANDIDATE}: register", *lines])
