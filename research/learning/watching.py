"""How the version in use stands: scores of a running pipeline, what happened since it was trained, and whether to go back.

With a pipeline, the rows that count are those that it scored; without one, those of the data that came after. What the version before
would have said is asked of that version itself, on the same rows.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from research.learning.evaluation import REGIMES, Ints, Outcomes, by_time, metrics, outcomes_of_scores
from research.learning.material import Workbench, alike, outcomes_of
from research.learning.registry import Registry
from research.learning.registry_events import standing
from research.learning.selector import KEEP, Watched, reversion
from research.learning.tests_of_skill import diebold_mariano
from research.learning.triggers import Observations, Trained
from schemas.codec import from_arrow
from schemas.config_learn import LearnConfig
from schemas.tables_models import SCORES

NAN = float("nan")


@dataclass(frozen=True)
class Seen:
    """What a running pipeline said, from the warehouse: scores of the active version and of the one in shadow, and drift events."""

    active: Outcomes | None
    shadow: Outcomes | None
    drift_events: int


class Feed(Protocol):
    """Where scores of a running pipeline come from."""

    def seen(self, active: int, shadow: int, since_ns: int) -> Seen:
        """The scores that these versions (0: none) made in their roles, of labels after an event time; drift events since then."""
        ...


class StoredFeed:
    """The scores of a run in the warehouse. run: a `research.stored.StoredRun`. model: its name in the run's configuration."""

    def __init__(self, run: Any, model: str, task: str, interval_ns: int, horizon_bars: int) -> None:
        self._run, self._model, self._task = run, model, task
        self._interval_ns, self._horizon_bars = interval_ns, horizon_bars

    def seen(self, active: int, shadow: int, since_ns: int) -> Seen:
        drifts = self._run.query("SELECT count() AS n FROM drift FINAL WHERE run_id = {r:String} AND model = {m:String} AND "
                                 "ts_event_ns > {t:Int64}", m=self._model, t=since_ns)
        return Seen(self._scores("active", active, since_ns), self._scores("shadow", shadow, since_ns), int(drifts["n"].to_pylist()[0]))

    def _scores(self, role: str, version: int, since_ns: int) -> Outcomes | None:
        if not version:
            return None
        table = self._run.table(SCORES, "model = {m:String} AND role = {o:String} AND version = {v:Int64} AND ts_event_ns > {t:Int64}",
                                m=self._model, o=role, v=version, t=since_ns)
        symbols = tuple(sorted(set(table["symbol"].to_pylist())))
        rows = from_arrow(SCORES, table, symbols, (self._model,))
        rows = rows[np.lexsort((rows["symbol"], rows["ts_open_ns"]))]
        return outcomes_of_scores(f"version {version}", self._task, {f.name: rows[f.name] for f in SCORES.fields}, symbols,
                                  self._interval_ns, self._horizon_bars)


def _keys(o: Outcomes) -> list[tuple[str, int]]:
    return [(o.symbols[c], int(t)) for c, t in zip(o.symbol, o.ts_ns, strict=True)]


def paired(a: Outcomes | None, b: Outcomes | None) -> tuple[Outcomes | None, Outcomes | None]:
    """Both on the bars that both have, in one order; where there is no other, the first as it is."""
    if a is None or b is None or not len(b):
        return a, None
    at = {key: k for k, key in enumerate(_keys(b))}
    pairs = [(k, at[key]) for k, key in enumerate(_keys(a)) if key in at]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return a.where(rows[:, 0]), b.where(rows[:, 1])


def regime_shares(regime: Ints) -> tuple[float, ...]:
    """Shares of the regimes, in their order."""
    if not len(regime):
        return ()
    return tuple(float(x) for x in np.bincount(regime, minlength=len(REGIMES)) / len(regime))


def standing_of(registry: Registry, name: str, active: int, feed: Feed | None, bench: Workbench, recent_rows: int, manual: str
                ) -> tuple[Trained | None, Observations]:
    """How the version in use stood when it was made, and what happened since."""
    registry.versions(name)  # says so where there is no such model
    if not active:
        return None, Observations(manual=manual)
    version, artefact = registry.version(name, active), registry.get(name, active)
    about = artefact.card.about
    since_ns = int(about.get("lineage", {}).get("data_to_ns", 0) or about.get("data", {}).get("labels_to_ns", 0))
    accuracy = version.metrics.get("accuracy")
    state = Trained(active, version.created_ns, NAN if accuracy is None else float(accuracy), tuple(version.metrics.get("regimes") or ()))
    if feed is not None:
        seen = feed.seen(active, 0, since_ns)
        scores, drifts = seen.active, seen.drift_events
    else:
        data = bench.given(artefact.card).data
        scores, drifts = outcomes_of(data, artefact, np.flatnonzero(data.ts_end_ns > since_ns), f"version {active}"), 0
    if scores is None or not len(scores):
        return state, Observations(drift_events=drifts, manual=manual)
    recent = last_known(scores, recent_rows)
    return state, Observations(len(scores), len(recent), metrics(recent)["accuracy"], drifts, regime_shares(recent.regime), manual)


def last_known(o: Outcomes, rows: int) -> Outcomes:
    """The rows whose labels became known last."""
    if len(o) <= rows:
        return o
    mask = np.zeros(len(o), np.bool_)
    mask[np.argsort(o.ts_end_ns, kind="stable")[-rows:]] = True
    return o.where(mask)


def watch(registry: Registry, name: str, active: int, feed: Feed | None, bench: Workbench, learn: LearnConfig,
          now_ns: int) -> dict[str, Any]:
    """Whether the version in use is to be kept: {"version", "action", "why", …}. Over its first watch_rows scores it is compared with the
    version before; after those only the floor and the alert count, over the last recent_rows."""
    kept = {"version": active, "action": KEEP, "why": "no version is active" if not active else "no scores yet", "rows": 0}
    if not active:
        return kept
    at = standing(registry.history(name), now_ns)
    since_ns = at.active.effective_ns if at.active is not None else 0
    version, artefact = registry.version(name, active), registry.get(name, active)
    scores = _since(artefact, active, since_ns, feed, bench)
    if scores is None or not len(scores):
        return kept
    young = len(scores) <= learn.watch_rows
    judged = scores if young else last_known(scores, learn.recent_rows)
    before = at.before
    earlier = _previous(registry, name, before, judged, bench, artefact.card) if before else None
    p_worse, accuracy_before = NAN, NAN
    if earlier is not None:
        same, other = earlier
        accuracy_before = metrics(other)["accuracy"]
        if young and len(same) >= learn.watch_rows_min:
            p_worse = 1.0 - diebold_mariano(by_time(same.ts_ns, same.loss), by_time(other.ts_ns, other.loss), same.horizon_bars).p_less
    trained = version.metrics.get("accuracy")
    seen = Watched(len(judged), metrics(judged)["accuracy"], NAN if trained is None else float(trained), before, accuracy_before, p_worse)
    found = reversion(seen, learn.watch_rows_min, learn.accuracy_floor, learn.degraded, learn.p_max)
    return {"version": active, "action": found.action, "why": found.why, "rows": len(scores), "accuracy": seen.accuracy, "previous": before,
            "previous_accuracy": accuracy_before, "p_worse": p_worse}


def _since(artefact: Any, active: int, since_ns: int, feed: Feed | None, bench: Workbench) -> Outcomes | None:
    if feed is not None:
        return feed.seen(active, 0, since_ns).active
    data = bench.given(artefact.card).data
    return outcomes_of(data, artefact, np.flatnonzero(data.ts_made_ns >= since_ns), f"version {active}")


def _previous(registry: Registry, name: str, before: int, scores: Outcomes, bench: Workbench, card: Any
              ) -> tuple[Outcomes, Outcomes] | None:
    """The scored rows beside what the version before says of the same; None where it does not foresee the same, or the rows are gone."""
    other = registry.get(name, before)
    if not alike(other.card, card):
        return None
    data = bench.given(card).data
    wanted = {(s, t) for s, t in zip((scores.symbols[c] for c in scores.symbol), scores.ts_end_ns.tolist(), strict=True)}
    rows = np.array([k for k, (c, t) in enumerate(zip(data.symbol.tolist(), data.ts_end_ns.tolist(), strict=True))
                     if (data.symbols[c], t) in wanted], np.int64)
    if not len(rows):
        return None
    mine = outcomes_of(data, registry.get(name, card.version), rows, f"version {card.version}")
    return mine, outcomes_of(data, other, rows, f"version {before}")
