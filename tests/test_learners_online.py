"""Online learners: every family predicts without changing, learns, goes on bit for bit after a restore, and stays within its bounds."""

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, preprocessing, tree

import operators.learners.online as online_module
from operators.learners.online import Online, check
from operators.learners.river_build import build
from operators.learners.river_calls import clip_weights, dumped, loaded
from operators.learners.state_digest import describe_state, state_digest
from schemas.config_models import ModelConfig, parse_models

NAMES = ("rsi(14)", "ret(5)", "vol(20)")
SMALL_FOREST = {"ARFClassifier": {"n_models": 3, "grace_period": 20}}
FAMILIES: dict[str, tuple[str, list[Any]]] = {
    "logistic": ("classify", ["StandardScaler", "LogisticRegression"]),
    "logistic_l2_adam": ("classify", ["StandardScaler", {"LogisticRegression": {"l2": 0.01, "optimizer": {"Adam": {"lr": 0.01}}}}]),
    "passive_aggressive": ("classify", ["StandardScaler", {"PAClassifier": {"C": 0.1}}]),
    "passive_aggressive_regression": ("regress", ["StandardScaler", {"PARegressor": {"C": 0.01, "mode": 2}}]),
    "linear": ("regress", ["StandardScaler", "LinearRegression"]),
    "adaptive_tree": ("classify", [{"HoeffdingAdaptiveTreeClassifier": {"grace_period": 20, "delta": 0.1}}]),
    "adaptive_tree_regression": ("regress", [{"HoeffdingAdaptiveTreeRegressor": {"grace_period": 20, "delta": 0.1}}]),
    "forest": ("classify", [SMALL_FOREST]),
    "forest_regression": ("regress", [{"ARFRegressor": {"n_models": 3, "grace_period": 20}}]),
    "snarimax": ("regress", [{"SNARIMAX": {"p": 3, "d": 0, "q": 2}}]),
    "bagging": ("classify", [{"BaggingClassifier": {"model": {"HoeffdingTreeClassifier": {"grace_period": 20}}, "n_models": 3}}]),
    "bagged_pipeline": ("classify", [{"BaggingClassifier": {"model": ["StandardScaler", "LogisticRegression"], "n_models": 3}}]),
    "rules": ("regress", [{"AMRules": {"n_min": 20, "delta": 0.1}}]),
    "neighbours": ("classify", ["StandardScaler", {"KNNClassifier": {"n_neighbors": 5, "engine": {"LazySearch": {"window_size": 60}}}}]),
    "half_space_trees": ("anomaly", ["MinMaxScaler", {"HalfSpaceTrees": {"n_trees": 4, "height": 4, "window_size": 30}}]),
    "boosted_neighbours": ("classify", [{"AdaBoostClassifier": {"model": "GaussianNB", "n_models": 3}}]),
    "voting": ("classify", [{"VotingClassifier": {"models": ["GaussianNB", "LogisticRegression", "HoeffdingTreeClassifier"]}}]),
}


def config(task: str, pipeline: list[Any], **more: Any) -> ModelConfig:
    """A model over three features."""
    document = {"kind": "river", "features": list(NAMES), "label": {"horizon": "3m"}, "task": task, "pipeline": pipeline, "warmup": 5, **more}
    return parse_models({"m": document}, "models")[0]


def rows(n: int, seed: int = 3) -> list[tuple[dict[str, float], float, int]]:
    """Rows whose label follows the first feature; the sign turns in the middle, so that drift detectors within models act."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES)))
    sign = np.where(np.arange(n) < n // 2, 1.0, -1.0)
    values = sign * x[:, 0] + 0.5 * rng.normal(size=n)
    return [(dict(zip(NAMES, row, strict=True)), v, int(v > 0)) for row, v in zip(x.tolist(), values.tolist(), strict=True)]


def feed(learner: Online, tape: list[tuple[dict[str, float], float, int]]) -> list[tuple[float, str, int, int]]:
    """Predict, then learn, as the operator does; what each row gave."""
    out = []
    for x, value, up in tape:
        said = learner.predict(x)
        out.append((said, learner.learn(x, value, up, said), learner.version, learner.learned))
    return out


def same(a: list[tuple[float, str, int, int]], b: list[tuple[float, str, int, int]]) -> bool:
    """Equal, and NaN where the other is NaN."""
    return repr(a) == repr(b)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_accepted_predicts_in_its_range_and_changes_nothing_by_it(name: str) -> None:
    task, pipeline = FAMILIES[name]
    made = config(task, pipeline)
    check(made)
    learner = Online(made, "BTCUSDT")
    tape = rows(160)
    said = [row[0] for row in feed(learner, tape)]
    assert learner.learned == 160 and learner.version == 0
    settled = np.array(said[40:])
    assert np.isfinite(settled).all()
    assert len(set(said)) > 5 or name == "voting"
    if task != "regress":
        assert ((settled >= 0) & (settled <= 1)).all()
    before = learner.digest()
    for x, _, _ in tape[:20]:
        assert learner.predict(x) == learner.predict(dict(x))
    assert learner.digest() == before


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_on_after_a_restore_as_if_never_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_module, "CHECKPOINT_EVERY", 50)
    made = config(*FAMILIES[name])
    tape = rows(180)
    whole = Online(made, "BTCUSDT")
    expected = feed(whole, tape)
    rng = np.random.default_rng(len(name))
    for big in (256 * 1024, 1):  # in full each time; then as a checkpoint and a tail
        monkeypatch.setattr(online_module, "BIG_BYTES", big)
        learner, got, start = Online(made, "BTCUSDT"), [], 0
        for cut in [*sorted(rng.choice(180, 5, replace=False).tolist()), 180]:
            got += feed(learner, tape[start:cut])
            state = pickle.loads(pickle.dumps(learner.snapshot()))
            got_before = learner.digest()
            learner = Online(made, "BTCUSDT")
            learner.restore(state)
            assert learner.digest() == got_before
            start = cut
        assert same(got, expected)
        assert learner.digest() == whole.digest()


@pytest.mark.parametrize("name", ["forest", "bagging", "adaptive_tree"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_snapshot_at_any_place_is_not_touched_by_what_comes_after(name: str, data: st.DataObject) -> None:
    made = config(*FAMILIES[name])
    tape = rows(90)
    cut = data.draw(st.integers(0, 89))
    learner = Online(made, "k")
    feed(learner, tape[:cut])
    state, digest = learner.snapshot(), learner.digest()
    rest = feed(learner, tape[cut:])
    again = Online(made, "k")
    again.restore(state)
    assert again.digest() == digest
    assert same(feed(again, tape[cut:]), rest)


@pytest.mark.parametrize("detector", ["CUSUM", "ADWIN", "PageHinkley", "KSWIN"])
@pytest.mark.parametrize("action", ["alert", "reset", "replace"])
def test_drift_handling_goes_on_after_a_restore(detector: str, action: str) -> None:
    drift = {"detector": detector, "action": action, "parameters": {"block": 3, "reference": 20}}
    if detector == "KSWIN":
        drift["parameters"] |= {"window_size": 30, "stat_size": 10, "alpha": 0.01}  # type: ignore[operator]
    made = config("classify", ["StandardScaler", {"LogisticRegression": {"optimizer": {"SGD": {"lr": 0.003}}}}], drift=drift)
    tape = rows(1200)
    whole = Online(made, "k")
    expected = feed(whole, tape)
    assert {row[1] for row in expected[:600]} <= {"", "alert"}, "losses that fall while it learns are no reason to begin again"
    i = next(k for k, row in enumerate(expected) if k >= 600 and row[1] == action)
    assert i < 660
    assert expected[i][2] == (0 if action == "alert" else 1)
    assert math.isfinite(whole.last_statistic) and math.isfinite(whole.last_bound)
    if action == "reset":
        assert expected[i][3] == 0
    if action == "replace":
        assert 0 <= expected[i][3] <= i - 500
    for cut in (100, i - 3, i + 1, 1100):
        first, second = Online(made, "k"), Online(made, "k")
        got = feed(first, tape[:cut])
        second.restore(first.snapshot())
        assert same(got + feed(second, tape[cut:]), expected)
        assert second.digest() == whole.digest()


def test_a_replaced_learner_is_one_that_learned_since_the_warning() -> None:
    drift = {"detector": "CUSUM", "action": "replace", "parameters": {"block": 3, "reference": 20}}
    made = config("classify", ["StandardScaler", {"LogisticRegression": {"optimizer": {"SGD": {"lr": 0.003}}}}], drift=drift)
    tape = rows(1200)
    learner = Online(made, "k")
    i = next(k for k, (x, value, up) in enumerate(tape) if learner.learn(x, value, up, learner.predict(x)) == "replace")
    assert 600 <= i < 660
    assert learner.learned > 0, "no warning came before the alarm"
    fresh = build(made, learner.seed)
    for x, _, up in tape[i + 1 - learner.learned:i + 1]:
        fresh.learn_one(x, up == 1)
    assert state_digest(fresh) == state_digest(learner.model)


def test_losses_that_fall_are_an_alert_and_never_a_reset() -> None:
    drift = {"detector": "CUSUM", "action": "reset", "parameters": {"block": 3, "reference": 20}}
    learner = Online(config("classify", ["LogisticRegression"], drift=drift), "k")
    tape = rows(600)
    actions = [learner.learn(x, v, up, 0.5 + (0.02 if k % 2 else -0.02) if k < 300 else 0.95 if up else 0.05)
               for k, (x, v, up) in enumerate(tape)]
    assert "alert" in actions and "reset" not in actions and learner.version == 0


def test_bare_river_says_the_same() -> None:
    made = config("classify", ["StandardScaler", "LogisticRegression"])
    bare = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    learner = Online(made, "k")
    seen: set[int] = set()
    for x, value, up in rows(300):
        said = learner.predict(x)
        assert said == (bare.predict_proba_one(x)[True] if len(seen) == 2 else 0.5)
        learner.learn(x, value, up, said)
        bare.learn_one(x, up == 1)
        seen.add(up)
    tree_learner, bare_tree = Online(config(*FAMILIES["adaptive_tree"]), "k"), None
    bare_tree = tree.HoeffdingAdaptiveTreeClassifier(grace_period=20, delta=0.1, seed=tree_learner.model.seed, max_depth=16)
    for x, value, up in rows(300):
        said = bare_tree.predict_proba_one(x).get(True)
        ours = tree_learner.predict(x)
        assert ours == said or ours == 0.5
        tree_learner.learn(x, value, up, ours)
        bare_tree.learn_one(x, up == 1)
    assert tree_learner.model.n_nodes == bare_tree.n_nodes


@pytest.mark.parametrize("name", ["logistic", "forest", "neighbours", "voting", "bagging"])
def test_one_class_only_says_even(name: str) -> None:
    learner = Online(config(*FAMILIES[name]), "k")
    for x, value, _ in rows(30):
        assert learner.predict(x) == 0.5
        learner.learn(x, abs(value), 1, 0.5)


def test_regression_and_anomaly_abstain_before_they_learned() -> None:
    for name in ("linear", "snarimax", "rules", "half_space_trees"):
        assert math.isnan(Online(config(*FAMILIES[name]), "k").predict(rows(1)[0][0]))


def test_snarimax_forecasts_the_horizon() -> None:
    """Against River asked by hand: three bars of horizon, the third step counts."""
    from river import time_series
    learner, bare = Online(config(*FAMILIES["snarimax"]), "k"), time_series.SNARIMAX(p=3, d=0, q=2)
    for x, value, up in rows(50):
        if learner.learned:
            assert learner.predict(x) == bare.forecast(3, [x] * 3)[-1]
        learner.learn(x, value, up, math.nan)
        bare.learn_one(value, x)


def test_a_learner_that_gives_no_number_begins_again_after_three() -> None:
    made = config("regress", [{"LinearRegression": {"optimizer": {"SGD": {"lr": 1.0}}, "intercept_lr": 1.0}}], warmup=3)
    learner = Online(made, "k")
    fresh = learner.digest()
    blown = dict.fromkeys(NAMES, 1e200)
    actions = []
    for _ in range(20):
        said = learner.predict(blown)
        actions.append(learner.learn(blown, 1.0, 1, said))
        if actions[-1]:
            break
    assert actions[-1] == "reset" and math.isnan(said)
    assert (learner.version, learner.learned) == (1, 0)
    assert (learner.last_statistic, learner.last_bound) == (3.0, 3.0)
    again = Online(made, "k")
    assert again.digest() == fresh and state_digest(again.model) == state_digest(learner.model)
    assert len(actions) == 3 + 3, "three rows to warm up, then three abstentions"


def test_what_river_raises_is_an_abstention() -> None:
    learner = Online(config("regress", ["StandardScaler", "LinearRegression"], warmup=0), "k")
    feed(learner, rows(20))
    huge = dict.fromkeys(NAMES, 1e308)
    for _ in range(6):
        said = learner.predict(huge)
        assert math.isnan(said) or math.isfinite(said)
        learner.learn(huge, 1e308, 1, said)
    feed(learner, rows(20))
    assert math.isfinite(learner.predict(rows(1)[0][0])) or learner.learned == 0


@pytest.mark.parametrize("pipeline", [
    [{"LinearRegression": {"optimizer": {"SGD": {"lr": 0.5}}, "intercept_lr": 0.5}}],
    [{"PARegressor": {"C": 1000.0}}],
    [{"BaggingRegressor": {"model": {"LinearRegression": {"optimizer": {"SGD": {"lr": 0.5}}}}, "n_models": 2}}],
])
def test_weights_stay_within_their_bound(pipeline: list[Any]) -> None:
    learner = Online(config("regress", pipeline, bounds={"weight_max": 2.0}), "k")
    free = Online(config("regress", pipeline, bounds={"weight_max": 1e9}), "k")
    tape = [(x, 50.0 * v, up) for x, v, up in rows(128)]
    feed(learner, tape)
    feed(free, tape)

    def widest(model: Any) -> float:
        parts = list(model) if hasattr(model, "n_models") else [model]
        return max(abs(w) for part in parts for w in (*part.weights.values(), part.intercept))

    assert widest(learner.model) <= 2.0 < widest(free.model)


def test_clipping_leaves_small_weights_alone() -> None:
    model = linear_model.LogisticRegression()
    for x, _, up in rows(50):
        model.learn_one(x, up == 1)
    before = state_digest(model)
    clip_weights(model, 100.0)
    assert state_digest(model) == before
    clip_weights(model, 0.01)
    assert max(abs(w) for w in model.weights.values()) <= 0.01


def test_inputs_are_clipped_after_scaling() -> None:
    made = config("regress", ["StandardScaler", "LinearRegression"], bounds={"input_max": 2.0})
    model = build(made, 1)
    assert [type(step).__name__ for step in model.steps.values()] == ["StandardScaler", "Clip", "LinearRegression"]
    for x, value, _ in rows(60):
        model.learn_one(x, value)
    inner = model["Clip"].transform_one(model["StandardScaler"].transform_one(dict.fromkeys(NAMES, 1e9)))
    assert set(inner.values()) == {2.0}


def test_a_big_state_is_written_in_full_now_and_then_and_its_tail_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_module, "BIG_BYTES", 100)
    monkeypatch.setattr(online_module, "CHECKPOINT_EVERY", 40)
    learner = Online(config(*FAMILIES["logistic"]), "k")
    tape = rows(200)
    cores, tails = [], []
    for k in range(0, 200, 10):
        feed(learner, tape[k:k + 10])
        state = learner.snapshot()
        cores.append(state["core"])
        tails.append(0 if state["tail"] is None else len(state["tail"][1]))
    assert tails[:6] == [0, 10, 20, 30, 40, 0] and max(tails) == 40
    assert len(set(cores)) == 4


def test_a_forests_pickle_leaves_out_what_is_not_state() -> None:
    learner = Online(config(*FAMILIES["forest"]), "k")
    feed(learner, rows(120))
    small, plain = dumped(learner.model), pickle.dumps(learner.model)
    assert len(small) < len(plain) / 2
    assert state_digest(loaded(small)) == state_digest(learner.model) == state_digest(pickle.loads(plain))


def test_the_digest_sees_every_bit() -> None:
    one, other = Online(config(*FAMILIES["logistic"]), "k"), Online(config(*FAMILIES["logistic"]), "k")
    tape = rows(30)
    feed(one, tape)
    feed(other, tape)
    assert one.digest() == other.digest()
    scaler = one.model["StandardScaler"]
    name = NAMES[0]
    scaler.means[name] = float(np.nextafter(scaler.means[name], 1.0))
    assert one.digest() != other.digest()
    assert state_digest({"a": 1, "b": 2}) != state_digest({"b": 2, "a": 1}), "River sums in the order of a dictionary"
    assert state_digest({1, 2, "a"}) == state_digest({"a", 2, 1})
    assert state_digest(0.0) != state_digest(-0.0) and state_digest(1) != state_digest(1.0) != state_digest(True)
    assert state_digest([[1], [1]]) != state_digest([[1, 1]])
    shared: list[Any] = [1]
    assert state_digest([shared, shared]) != state_digest([[1], [1]])
    shared.append(shared)
    assert state_digest(shared) == state_digest(pickle.loads(pickle.dumps(shared)))


def test_keys_and_seeds_make_different_learners() -> None:
    digests = {Online(config(*FAMILIES["forest"], seed=seed), key).digest() for seed in (1, 2) for key in ("BTCUSDT", "ETHUSDT")}
    assert len(digests) == 4


def test_the_state_in_words() -> None:
    learner = Online(config(*FAMILIES["logistic"]), "BTCUSDT")
    feed(learner, rows(50))
    said = learner.describe()
    assert (said["key"], said["learned"], said["version"]) == ("BTCUSDT", 50, 0)
    scaler, model = said["model"]["steps"]
    first = [x[NAMES[0]] for x, _, _ in rows(50)]
    assert scaler["rows"] == 50 and scaler["means"][NAMES[0]] == pytest.approx(float(np.mean(first)))
    assert scaler["deviations"][NAMES[0]] == pytest.approx(float(np.std(first)))
    assert set(model["weights"]) == set(NAMES)
    grown = Online(config(*FAMILIES["adaptive_tree"]), "k")
    feed(grown, rows(300))
    tree_says = describe_state(grown.model)
    assert tree_says["leaves"] >= 2 and tree_says["depth"] >= 1
    forest = Online(config(*FAMILIES["forest"]), "k")
    feed(forest, rows(20))
    assert len(describe_state(forest.model)["members"]) == 3


_CHILD = """
from tests.test_learners_online import FAMILIES, Online, config, feed, rows
for name in FAMILIES:
    learner = Online(config(*FAMILIES[name]), "BTCUSDT")
    feed(learner, rows(120))
    print(name, learner.digest())
"""


def test_another_process_with_other_hashes_learns_the_same() -> None:
    said = [
        subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "4242")
    ]
    assert said[0] == said[1] and len(said[0].splitlines()) == len(FAMILIES)
