"""Learning inside a run: the operators' laws with models in the chain, who may be traded on, and what a promotion does."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.assembly import Plan, account_chain, market_chain
from operators.learners.distribution import histogram
from operators.market.shards import Align, split
from research.replaying import enabled, make_plan
from schemas.artefact import Artefact, Card
from schemas.config import parse_config
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame
from schemas.ids import name_id
from schemas.tables import Rows
from schemas.tables_desk import DECISIONS, FILLS
from schemas.tables_models import ACTIVATE, DETECTORS, LABELS, MODEL_TABLES, PREDICTIONS, PROMOTIONS, RETIRE, SCORES, SHADOW, VOTES
from sources.simulator import simulate

FEATURES = ["rsi(14)", "ret(1)", "ret(5)", "zscore(20)"]
LABEL = {"kind": "forward_return", "horizon": "5m"}
LOGIT = {"kind": "river", "timeframe": "1m", "features": FEATURES, "label": LABEL, "warmup": 20,
         "pipeline": ["StandardScaler", {"LogisticRegression": {"l2": 0.001}}]}
PASSIVE = {**LOGIT, "scope": "pooled", "pipeline": ["StandardScaler", "PAClassifier"]}
TREE = {**LOGIT, "pipeline": ["HoeffdingAdaptiveTreeClassifier"], "drift": {"detector": "ADWIN", "action": "reset"}}
VOTE = {"kind": "ensemble", "members": ["logit", "passive", "tree"], "consensus": 0.6}
RULE = {"name": "votes", "timeframe": "1m", "entry": {"long": "vote.direction > 0", "short": "vote.direction < 0"},
        "exit": {"long": "vote.direction <= 0", "short": "vote.direction >= 0"}, "hold_bars": 10}
ALONE = {"models": {"logit": LOGIT, "tree": TREE}, "strategies": [{**RULE, "entry": "logit.p_up > 0.5", "exit": "tree.p_up < 0.5"}]}
REGRESSOR = {**LOGIT, "task": "regress", "pipeline": ["StandardScaler", "LinearRegression"]}
SHARED = {"models": {"logit": LOGIT, "passive": PASSIVE, "tree": TREE, "linear": REGRESSOR, "vote": VOTE}, "strategies": [RULE],
          "validator": {"model": "vote", "hits_min": 0.4, "labels_min": 50}}


@cache
def tape() -> tuple[Frame, ...]:
    return tuple(enabled(simulate(3, 3, 11).frames(2048)))


def whole() -> Frame:
    return merged(tape())


def merged(frames: Any) -> Frame:
    frames = list(frames)
    names = dict.fromkeys(n for f in frames for n in f.tables)
    tables = {n: np.concatenate([f.tables[n] for f in frames if n in f.tables]) for n in names}
    return Frame("tape", 0, frames[-1].frontier_ns, frames[-1].symbols, tables)


def cut(frame: Frame, at: list[int]) -> list[Frame]:
    """The tape in other batches: `at` are tape positions."""
    edges = [-(2**62), *sorted(at), 2**62]
    out = []
    for number, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        tables = {n: rows[(rows["seq"] >= a) & (rows["seq"] < b)] for n, rows in frame.tables.items()}
        top = max((int(rows["ts_event_ns"].max()) for rows in tables.values() if len(rows)), default=0)
        out.append(Frame(frame.origin, number, top, frame.symbols, tables))
    return out


SPECS = (*MODEL_TABLES, DECISIONS, FILLS)


def rows_of(frames: list[Frame]) -> dict[str, Rows]:
    return {s.name: np.concatenate([s.empty(0), *(f.rows(s) for f in frames)]) for s in SPECS}


def run(plan: Plan, frames: list[Frame]) -> dict[str, Rows]:
    market, account = market_chain(plan), account_chain(plan)
    return rows_of([account.step(market.step(f)) for f in frames])


def same(a: dict[str, Rows], b: dict[str, Rows]) -> None:
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@cache
def planned(which: str) -> Plan:
    return make_plan(parse_config({"alone": ALONE, "shared": SHARED}[which], "t"), None)


@cache
def expected(which: str) -> dict[str, Rows]:
    return run(planned(which), [whole()])


@pytest.mark.parametrize("which", ["alone", "shared"])
def test_everything_is_reached(which: str) -> None:
    made = expected(which)
    for spec in (PREDICTIONS, LABELS, SCORES, DECISIONS, FILLS, *((VOTES,) if which == "shared" else ())):
        assert len(made[spec.name]), spec.name
    predictions = made["predictions"]
    assert set(np.unique(predictions["state"])) >= {0, 1} and (predictions["learned"].max() > 50)
    assert np.isnan(predictions["p_up"][predictions["state"] != 0]).all()
    assert not planned(which).in_shards


@pytest.mark.parametrize("which", ["alone", "shared"])
@settings(max_examples=4, deadline=None)
@given(at=st.lists(st.integers(0, 78_000), max_size=12))
def test_the_cut_into_batches_changes_nothing(which: str, at: list[int]) -> None:
    same(run(planned(which), cut(whole(), at)), expected(which))


@pytest.mark.parametrize("which", ["alone", "shared"])
@settings(max_examples=3, deadline=None)
@given(at=st.lists(st.integers(0, 78_000), min_size=1, max_size=4))
def test_put_back_from_a_snapshot_it_goes_on_as_if_never_stopped(which: str, at: list[int]) -> None:
    plan, out = planned(which), []
    chains = market_chain(plan), account_chain(plan)
    for frame in cut(whole(), at):
        for chain in chains:
            frame = chain.step(frame)
        out.append(frame)
        saved = [chain.snapshot() for chain in chains]
        chains = market_chain(plan), account_chain(plan)
        for chain, state in zip(chains, saved, strict=True):
            chain.restore(state)
    same(rows_of(out), expected(which))


@pytest.mark.parametrize("which", ["alone", "shared"])
def test_the_future_changes_nothing_before_it(which: str) -> None:
    tape_, at = whole(), 50_000
    trades = tape_.tables["trades"].copy()
    late = trades["seq"] >= at
    trades["price"][late] *= 1.5
    other = run(planned(which), [tape_.with_tables(trades=trades)])
    for name, rows in expected(which).items():
        mine, theirs = rows[rows["seq"] < at], other[name][other[name]["seq"] < at]
        assert mine.tobytes() == theirs.tobytes(), name
    assert other["predictions"].tobytes() != expected(which)["predictions"].tobytes()


@pytest.mark.parametrize("which", ["alone", "shared"])
@pytest.mark.parametrize("shards", [2, 3])
def test_any_number_of_shards_gives_the_same(which: str, shards: int) -> None:
    plan = planned(which)
    markets, account, align = [market_chain(plan) for _ in range(shards)], account_chain(plan), Align()
    out = []
    for frame in cut(whole(), [10_000, 10_001, 40_000]):
        for part in split(frame, shards):
            out += [account.step(aligned) for aligned in align.add(markets[part.part].step(part))]
    same(rows_of(out), expected(which))


def test_a_label_is_never_released_before_its_horizon_and_is_learned_once() -> None:
    made = expected("shared")
    labels = made["labels"]
    assert (labels["ts_event_ns"] - labels["ts_made_ns"] >= 5 * 60 * 10**9).all()
    logit = made["predictions"][made["predictions"]["model"] == 1]
    for symbol in range(3):
        mine = logit[logit["symbol"] == symbol]
        released = labels[labels["symbol"] == symbol]["seq"]
        known = np.searchsorted(np.sort(released), mine["seq"], side="right")
        assert (mine["learned"] <= known).all() and mine["learned"][-1] >= known[-1] - 30


def test_scores_are_what_was_said_of_the_labels_bar() -> None:
    made = expected("shared")
    said = {(r["model"], r["symbol"], r["ts_open_ns"]): r for r in made["predictions"] if r["state"] == 0}
    scores = made["scores"][made["scores"]["model"] < 5]
    assert len(scores) > 100
    for r in scores:
        p = said[r["model"], r["symbol"], r["ts_open_ns"]]
        assert (r["score"], r["version"]) == (p["score"], p["version"]) and r["seq"] > p["seq"]
        assert r["hit"] == (-1 if p["direction"] == 0 else int((p["direction"] > 0) == bool(r["up"])))


class Store:
    """Artefacts in memory; a version of None is damaged."""

    def __init__(self, versions: dict[int, Artefact | None]) -> None:
        self.versions = versions

    def get(self, model_id: int, version: int) -> Artefact:
        found = self.versions.get(version)
        if model_id != name_id("trees") or found is None:
            raise PenstockError(f"version {version} is damaged")
        return found


@cache
def booster(seed: int, features: tuple[str, ...] = tuple(FEATURES), interval_ns: int = 60 * 10**9) -> Artefact:
    import lightgbm
    random = np.random.default_rng(seed)
    x = random.normal(size=(400, len(features)))
    y = (x[:, 0] + random.normal(size=400) > 0).astype(float)
    made = lightgbm.train({"objective": "binary", "num_leaves": 7, "verbose": -1, "deterministic": True, "num_threads": 1, "seed": seed},
                          lightgbm.Dataset(x, y), num_boost_round=5)
    bins = [histogram(x[:, k]) for k in range(x.shape[1])]
    card = Card("trees", seed, "lightgbm", "classify", interval_ns, features, LabelConfig(horizon_ns=5 * 60 * 10**9),
                tuple(e for e, _ in bins), tuple(s for _, s in bins))
    return Artefact(card, made.model_to_string().encode())


def with_promotions(frame: Frame, *events: tuple[int, int, int]) -> Frame:
    rows = PROMOTIONS.empty(len(events))
    trades = frame.tables["trades"]
    for k, (seq, version, action) in enumerate(events):
        at = int(np.searchsorted(trades["seq"], seq))
        rows[k] = (trades["ts_event_ns"][at], seq, -1, name_id("trees"), version, action, 0)
    return frame.with_tables(promotions=rows)


def registered(store: Store, initial: int = 1, card: Card | None = None, **more: Any) -> Plan:
    from dataclasses import replace

    from operators.assembly import plan
    card = card or booster(1).card
    config = parse_config({"models": {"trees": {"kind": "registered", "name": "trees", **more}}}, "t")
    models = tuple(replace(m, initial=initial, interval_ns=card.interval_ns, features=card.features, label=card.label) for m in config.models)
    return plan(replace(config, models=models, strategies=()), (), store)


def test_each_prediction_carries_one_version_and_a_promotion_takes_effect_at_its_place() -> None:
    store = Store({1: booster(1), 2: booster(2), 3: None, 4: booster(4, tuple(reversed(FEATURES)))})
    frame = with_promotions(whole(), (20_000, 2, SHADOW), (30_000, 2, ACTIVATE), (40_000, 3, ACTIVATE),
                           (50_000, 4, ACTIVATE), (60_000, 2, RETIRE))
    made = run(registered(store), [frame])
    p = made["predictions"]
    active = p[p["role"] == 0]
    seq, version = active["seq"], active["version"]
    assert (version[seq < 30_000] == 1).all() and (version[(seq >= 30_000) & (seq < 60_000)] == 2).all() and (version[seq >= 60_000] == 0).all()
    assert (active["state"][seq >= 60_000] == 4).all()
    shadow = p[p["role"] == 1]
    assert len(shadow) and (shadow["version"] == 2).all() and shadow["seq"].min() >= 20_000 and shadow["seq"].max() < 30_000
    switches = made["switches"]
    assert [(int(s["seq"]), int(s["role"]), int(s["version"]), int(s["previous"]), int(s["outcome"])) for s in switches] == [
        (20_000, 1, 2, 0, 0), (30_000, 0, 2, 1, 0), (40_000, 0, 3, 2, 1), (50_000, 0, 4, 2, 1), (60_000, 0, 0, 2, 0)]
    cuts = run(registered(store), cut(frame, [100, 20_000, 29_999, 30_000, 30_001, 55_000, 60_000]))
    same(cuts, made)


def test_features_unlike_those_of_the_training_window_are_drift_until_another_version_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.learners.group.DRIFT_ROWS", 2000)
    monkeypatch.setattr("operators.learners.group.DRIFT_EVERY", 250)
    store = Store({k: booster(k, interval_ns=10**9) for k in (1, 2)})
    plan = registered(store, card=booster(1, interval_ns=10**9).card)
    frame = with_promotions(whole(), (40_000, 2, ACTIVATE))
    made = run(plan, [frame])
    drift = made["drift"][made["drift"]["feature"] >= 0]
    assert {"psi", "kl"} == {DETECTORS[d] for d in drift["detector"]} and {-1, 1, 2} <= set(drift["symbol"].tolist())
    assert (drift["statistic"] > drift["bound"]).all() and (drift["seq"] < 40_000).any() and (drift["seq"] > 40_000).any()
    same(run(plan, cut(frame, [5_000, 39_999, 40_000, 40_001, 60_000])), made)


def test_a_fixed_version_does_not_follow_promotions() -> None:
    store = Store({1: booster(1), 2: booster(2)})
    made = run(registered(store, version=1), [with_promotions(whole(), (30_000, 2, ACTIVATE))])
    assert (made["predictions"]["version"] == 1).all() and not len(made["switches"])


def test_many_promotions_under_load_leave_no_prediction_between_versions() -> None:
    store = Store({1: booster(1), 2: booster(2)})
    random = np.random.default_rng(3)
    seqs = np.sort(random.integers(10, 78_000, 1000)).tolist()
    events = [(seq, 1 + (k + 1) % 2, ACTIVATE) for k, seq in enumerate(seqs)]
    made = run(registered(store), cut(with_promotions(whole(), *events), sorted(random.integers(0, 78_000, 30).tolist())))
    p = made["predictions"]
    due = np.searchsorted(np.array(seqs), p["seq"], side="right")
    assert np.array_equal(p["version"], np.where(due == 0, 1, 1 + due % 2))
    assert len(made["switches"]) == 1000


@pytest.mark.parametrize(("models", "said"), [
    ({"a": {**LOGIT, "task": "anomaly", "pipeline": ["HalfSpaceTrees"]}, "v": {"kind": "ensemble", "members": ["a"]}}, "finds anomalies"),
    ({"a": LOGIT, "b": {**LOGIT, "timeframe": "5m", "label": {"horizon": "15m"}}, "v": {"kind": "ensemble", "members": ["a", "b"]}},
     "another timeframe"),
    ({"a": LOGIT, "b": {**LOGIT, "label": {"horizon": "15m"}}, "v": {"kind": "ensemble", "members": ["a", "b"]}}, "another label"),
    ({"a": {**LOGIT, "features": ["rsj(14)"]}}, 'did you mean "rsi'),
    ({"votes": LOGIT}, "name of a model and of a strategy"),
])
def test_models_that_cannot_work_together_are_a_users_mistake(models: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(parse_config({"models": models, "strategies": [{**RULE, "entry": "close > open", "exit": "close < open"}]}, "t"), None)


def test_a_rule_that_names_a_model_of_another_timeframe_says_how_to_write_it() -> None:
    document = {"models": {"a": {**LOGIT, "timeframe": "5m"}}, "strategies": [{**RULE, "entry": "a.p_up > 0.5", "exit": "close < open"}]}
    with pytest.raises(UserError, match=r"that model is on 5m; write 5m:a.p_up"):
        make_plan(parse_config(document, "t"), None)

