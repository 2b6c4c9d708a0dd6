"""Online learners: every family predicts without changing, learns, goes on bit for bit after a restore, and stays within its bounds."""

import math
from typing import Any

import numpy as np
import pytest
from river import linear_model, preprocessing, tree

from operators.learners.online import Online, check
from operators.learners.river_build import build
from operators.learners.river_calls import clip_weights
from operators.learners.state_digest import state_digest
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
    right = [(0.52 if k % 2 else 0.48) if k < 300 else 0.95 for k in range(600)]
    actions = [learner.learn(x, v, up, p if up else 1 - p) for p, (x, v, up) in zip(right, tape, strict=True)]
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
    tree_learner = Online(config(*FAMILIES["adaptive_tree"]), "k")
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
