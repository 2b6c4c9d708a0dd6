"""Laws of the registry's events, over any sequence of changes: what is in force at a moment is what somebody who follows the rows has."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from research.learning.registry import Registry
from research.learning.registry_events import STATES, TRANSITIONS
from schemas.errors import UserError
from schemas.tables import Rows
from schemas.tables_models import ACTIVATE, RETIRE, ROLLBACK, SHADOW
from tests.registry_made import NOON, SECOND, Clock, artefact, registry

VERSIONS = 4
CHANGES = st.lists(st.tuples(st.sampled_from(("promote", "shadow", "retire", "rollback", "rollback_to")), st.integers(1, VERSIONS),
                             st.one_of(st.none(), st.integers(-5, 30)), st.booleans(), st.integers(0, 5)), max_size=25)


def follow(rows: Rows, until: int) -> tuple[int, int]:
    """What a pipeline makes of the rows, which knows of no states: the active version and the one in shadow, 0 for none."""
    active = shadow = 0
    for row in rows:
        if row["ts_event_ns"] > until:
            break
        version, action = int(row["version"]), int(row["action"])
        if action in (ACTIVATE, ROLLBACK):
            active, shadow = version, 0 if shadow == version else shadow
        elif action == SHADOW:
            shadow = version
        elif action == RETIRE:
            active, shadow = (0 if held == version else held for held in (active, shadow))
    return active, shadow


def changed(made: Registry, clock: Clock, changes: list[tuple[str, int, int | None, bool, int]]) -> int:
    """Do them, those that are refused aside; how many were done."""
    done = 0
    for what, version, offset, backdate, passes in changes:
        clock.now += passes * SECOND
        at = None if offset is None else NOON + offset * SECOND
        try:
            if what == "rollback":
                made.rollback("trees", at, backdate=backdate)
            elif what == "rollback_to":
                made.rollback("trees", at, backdate=backdate, to=version)
            else:
                getattr(made, what)("trees", version, at, backdate=backdate)
            done += 1
        except UserError:
            pass
    return done


@settings(max_examples=60)
@given(CHANGES)
def test_the_states_at_a_moment_are_what_follows_from_the_rows(changes: list[tuple[str, int, int | None, bool, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        made = registry(Path(folder), VERSIONS, clock)
        changed(made, clock, changes)
        rows = made.promotions(["trees"])
        times = rows["ts_event_ns"].tolist()
        assert times == sorted(set(times))
        for at in [NOON - 10 * SECOND, *times, *(t - 1 for t in times), NOON + 10**6 * SECOND]:
            states = [v.state for v in made.versions("trees", at)]
            assert states.count("ACTIVE") <= 1 and states.count("SHADOW") <= 1 and set(states) <= set(STATES)
            active, shadow = follow(rows, at)
            assert made.active_at("trees", at) == active
            assert [states[v - 1] for v in (active, shadow) if v] == [s for s, v in (("ACTIVE", active), ("SHADOW", shadow)) if v]
            # a stretch that begins later has what is in force as it begins
            assert follow(made.promotions(["trees"], at + 1), at) == (active, shadow)
            later = made.promotions(["trees"], at + 1)
            assert follow(later, NOON + 10**6 * SECOND) == follow(rows, NOON + 10**6 * SECOND)


@settings(max_examples=40)
@given(CHANGES, CHANGES)
def test_what_was_decided_stays(before: list[tuple[str, int, int | None, bool, int]],
                                after: list[tuple[str, int, int | None, bool, int]]) -> None:
    """Later changes that are not backdated change nothing that was in force before them."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        made = registry(Path(folder), VERSIONS, clock)
        changed(made, clock, before)
        clock.now += SECOND
        events, now = made.history("trees"), max([clock.now, *(e.recorded_ns for e in made.history("trees"))])
        moments = [t for t in (NOON + k * SECOND for k in range(-5, 200)) if t < now]
        was = [made.active_at("trees", t) for t in moments]
        changed(made, clock, [(what, v, at, False, passes) for what, v, at, _, passes in after])
        assert [e for e in made.history("trees") if e in events] == events
        assert [made.active_at("trees", t) for t in moments] == was


def test_every_state_is_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(STATES) == {a for a, _ in TRANSITIONS}


def test_the_laws_are_not_of_empty_histories() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        made = registry(Path(folder), VERSIONS, clock)
        assert changed(made, clock, [("promote", 1, None, False, 1), ("promote", 2, 9, False, 1), ("rollback", 1, None, False, 20),
                                     ("retire", 3, None, False, 0), ("promote", 3, None, False, 0)]) == 4
        assert made.register(artefact(9)) == VERSIONS + 1
