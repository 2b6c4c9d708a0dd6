"""Watching a promoted version: rolled back when worse, the rules below the floor, scores from a feed; and the selector's reasons on the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.learning.evaluation import Outcomes, daily_volatility_regimes
from research.learning.material import outcomes_of
from research.learning.watching import Seen, last_known, paired, regime_shares
from tests.learning_made import LEARN, MINUTE, NAME, START, World, made, until
from tests.test_evaluation import made as forecasts

QUIET = replace(LEARN, accuracy_drop=0.0)


class Pipeline:
    """A feed that scores what the versions say of the world's rows, as a run does; bars from `since` on, up to `until`."""

    def __init__(self, world: World, drift_events: int = 0) -> None:
        self.world, self.drift_events, self.until_ns = world, drift_events, 2**62
        self.asked: list[tuple[int, int, int]] = []

    def _scores(self, version: int, since_ns: int) -> Outcomes | None:
        if not version:
            return None
        artefact, data = self.world.registry.get(NAME, version), self.world.data
        rows = np.flatnonzero((data.ts_end_ns > since_ns) & (data.ts_end_ns <= self.until_ns))
        return outcomes_of(data, artefact, rows, f"version {version}")

    def seen(self, active: int, shadow: int, since_ns: int) -> Seen:
        self.asked.append((active, shadow, since_ns))
        shadowed = self.world.registry.versions(NAME)
        known = {v.version for v in shadowed if v.state == "SHADOW"}
        return Seen(self._scores(active, since_ns), self._scores(shadow, since_ns) if shadow in known else None, self.drift_events)


def two_versions(folder: Path, flip_at: int) -> World:
    """Version 1 was promoted by hand, then version 2 over it; the market turns at `flip_at`, after which 2 is wrong all the time."""
    world = World(folder, until(made(4000, flip_at=flip_at), 1500), QUIET)
    world.first()
    world.registry.promote(NAME, 1)
    world.registry.promote(NAME, world.first(900))
    return world


def test_a_version_that_is_below_the_floor_is_left_to_the_rules(tmp_path: Path) -> None:
    """Both versions learned before the turn, so neither is above the floor after it."""
    world = two_versions(tmp_path, 1500)
    world.data = until(made(4000, flip_at=1500), 1900)
    found = world.manager().once()
    assert found["watch"]["action"] == "rules" and "below the floor" in found["watch"]["why"]
    assert {v.version: v.state for v in world.registry.versions(NAME)}[2] == "RETIRED"
    assert world.registry.active_at(NAME, world.now()) == 0
    assert world.events[0]["event"] == "rules"
    assert any(e.action == "retire" and e.reason.startswith("watch: accuracy") for e in world.registry.history(NAME))


def test_a_worse_version_is_rolled_back_on_its_scores(tmp_path: Path) -> None:
    """Version 2 learned from labels of others, so version 1 is better on the same bars."""
    from research.learning.training import train
    from tests.learning_made import shuffled
    whole = made(4000)
    world = World(tmp_path, until(whole, 1500), QUIET)
    world.first(2000)
    world.registry.promote(NAME, 1)
    bad = train(shuffled(world.data, 3), parameters={"rounds": 30, "num_leaves": 15}, name=NAME, early_stopping=0, valid_share=0.0)
    world.registry.promote(NAME, world.registry.register(bad))
    world.feed = pipeline = Pipeline(world)
    world.data = whole
    pipeline.until_ns = START + 1540 * MINUTE
    found = world.manager().once()
    assert found["watch"]["action"] == "keep" and "judged from 100 on" in found["watch"]["why"]
    pipeline.until_ns = START + 2400 * MINUTE
    found = world.manager().once()
    assert found["watch"]["action"] == "rollback", found
    assert found["watch"]["previous"] == 1 and found["watch"]["rows"] > 1000
    assert world.registry.active_at(NAME, world.now()) == 1
    last = world.registry.history(NAME)[-1]
    assert last.action == "rollback" and last.reason.startswith("watch: ")
    pipeline.until_ns = START + 3000 * MINUTE
    assert world.manager().once()["watch"]["action"] == "keep"
    assert world.registry.active_at(NAME, world.now()) == 1


def test_shadow_waits_for_scores_of_the_pipeline(tmp_path: Path) -> None:
    whole = made(5000)
    world = World(tmp_path, until(whole, 3000), QUIET)
    world.first()
    world.feed = pipeline = Pipeline(world)
    pipeline.until_ns = 0
    found = world.manager().once()
    assert found["status"] == "waiting for scores in shadow" and "0 of 200" in found["reason"]
    assert {v.version: v.state for v in world.registry.versions(NAME)} == {1: "CANDIDATE", 2: "SHADOW"}
    world.data = whole
    pipeline.until_ns = START + 50 * MINUTE
    assert "of 200 scores" in world.manager().once()["reason"]
    pipeline.until_ns = 2**62
    found = world.manager().once()
    assert found["status"] == "promoted" and found["cycle"] == 1
    assert world.registry.active_at(NAME, world.now()) == 2


def test_drift_events_of_the_pipeline_are_a_trigger(tmp_path: Path) -> None:
    world = two_versions(tmp_path, 4000)
    world.learn = replace(QUIET, drift_events=3)
    world.feed = Pipeline(world, drift_events=2)
    assert world.manager().once()["status"] == "idle"
    world.feed = Pipeline(world, drift_events=3)
    assert world.manager().once()["cycle"] == 1
    assert world.events[0]["why"] == ["3 drift events since"]


def test_decay_and_rows_are_triggers_without_a_pipeline(tmp_path: Path) -> None:
    world = two_versions(tmp_path, 1500)
    world.learn = replace(QUIET, rows=2000, accuracy_floor=0.0)
    world.data = until(made(4000, flip_at=1500), 1250)
    assert world.manager().once()["status"] == "idle"  # version 2 learned from 450 minutes of two symbols; 800 more are there
    world.data = until(made(4000, flip_at=1500), 2600)
    world.manager().once()
    assert any("labels since" in why for why in world.events[0]["why"])


def test_pairs_are_of_the_same_bars() -> None:
    o = forecasts(60)
    a, b = o.where(np.arange(60) >= 10), o.where(np.arange(60)[::-1] >= 20)
    x, y = paired(a, b)
    assert y is not None and x is not None and len(x) == len(y) == 30
    np.testing.assert_array_equal(x.ts_ns, y.ts_ns)
    np.testing.assert_array_equal(x.score, y.score)
    assert paired(a, None) == (a, None) and paired(None, b) == (None, None)


def test_last_known_and_shares() -> None:
    o = forecasts(100)
    assert len(last_known(o, 30)) == 30 and last_known(o, 30).ts_end_ns.min() >= np.sort(o.ts_end_ns)[-30]
    assert last_known(o, 1000) is o
    assert regime_shares(np.array([0, 1, 1, 2])) == (0.25, 0.5, 0.25) and regime_shares(np.empty(0, np.int64)) == ()


@pytest.mark.parametrize(("size", "want"), [(0.0001, 0), (0.001, 1), (0.003, 2)])
def test_regimes_by_daily_volatility(size: float, want: int) -> None:
    rng = np.random.default_rng(2)
    price = 100 * np.exp(np.cumsum(size * rng.normal(size=400)))
    found = daily_volatility_regimes(price, np.zeros(400, np.int64), MINUTE, 1)
    assert set(found[:60]) == {1} and set(found[80:]) == {want}
