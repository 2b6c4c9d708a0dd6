"""Training: the same bytes from the same rows, a card that says all, honest figures, and mistakes that are named."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from operators.learners.boosted import LOADERS
from operators.learners.distribution import histogram
from research.learning.boosting import PARAMETERS, Recipe, row_weights
from research.learning.importance import contributions, shap_importance, tree_importance
from research.learning.splits import holdout
from research.learning.training import measured, recipe_of, train, train_again
from schemas.artefact import Artefact, card_json, card_of
from schemas.errors import PenstockError, UserError
from tests.training_made import SMALL_LEAVES, made

MODELS = ["lightgbm", "xgboost"]
DATA = made(3000)


def trained(model: str, data: Any = DATA, **more: Any) -> Artefact:
    if model == "xgboost":
        pytest.importorskip("xgboost")
    return train(data, model, SMALL_LEAVES[model], **more)


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_rows_and_seed_give_the_same_bytes(model: str, task: str) -> None:
    a, b = trained(model, task=task), trained(model, task=task)
    assert a.payload == b.payload and a.digest == b.digest
    other = trained(model, task=task, seed=2)
    assert other.payload != a.payload and other.card.about["seed"] == 2


@pytest.mark.parametrize("model", MODELS)
def test_killed_and_run_again_it_is_the_same(model: str, tmp_path: Path) -> None:
    """A process is killed in the midst of training; the next one gives what this one gives."""
    here = trained(model)
    code = ("import os, signal, sys; from research.learning.training import train; from tests.training_made import SMALL_LEAVES, made\n"
            "die = int(sys.argv[2])\n"
            "def progress(done, total):\n    if done == die: os.kill(os.getpid(), signal.SIGKILL)\n"
            "print(train(made(3000), sys.argv[1], SMALL_LEAVES[sys.argv[1]], progress=progress).digest)")
    run = [sys.executable, "-c", code, model]
    killed = subprocess.run([*run, "7"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL and killed.stdout == ""
    again = subprocess.run([*run, "-1"], cwd=Path(__file__).parents[1], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert again.stdout.strip() == here.digest, again.stderr[-1000:]


def test_it_stops_on_purged_rows_and_says_so() -> None:
    data = made(4000, strength=0.3)
    made_of = train(data, parameters={"rounds": 400, "learning_rate": 0.3, "min_data_in_leaf": 20}, early_stopping=10)
    about = made_of.card.about
    assert 0 < about["rounds"] < 60  # 0.3 a tree overfits soon, and it noticed
    split = holdout(data.ts_made_ns, data.ts_end_ns, 0.2)
    assert about["trained"] == {"rows": len(split.train), "ts_to_ns": int(data.ts_made_ns[split.train[-1]]), "purged": split.purged}
    assert split.purged > 0 and data.ts_end_ns[split.train].max() < data.ts_made_ns[split.test].min()
    assert about["metrics"]["rows"] == len(split.test) and about["in_sample"]["rows"] == len(split.train)
    assert about["metrics"]["accuracy"] > 0.55 and about["in_sample"]["accuracy"] > about["metrics"]["accuracy"]
    never = train(data, parameters={"rounds": 40, "learning_rate": 0.3, "min_data_in_leaf": 20}, early_stopping=0)
    assert never.card.about["rounds"] == 40
    whole = train(data, parameters={"rounds": 5}, early_stopping=0, valid_share=0)
    assert whole.card.about["trained"]["rows"] == len(data) and whole.card.about["metrics"] == {}


def test_the_figures_are_those_of_the_model_that_is_kept() -> None:
    artefact = trained("lightgbm")
    split = holdout(DATA.ts_made_ns, DATA.ts_end_ns, 0.2)
    p = LOADERS["lightgbm"](artefact).predict(DATA.x[split.test])
    up = DATA.up[split.test]
    assert artefact.card.about["metrics"]["accuracy"] == pytest.approx(float(((p > 0.5) == up).mean()))
    assert artefact.card.about["metrics"]["log_loss"] == pytest.approx(float(-np.log(np.where(up == 1, p, 1 - p)).mean()))


def test_a_card_says_all_and_survives_its_json() -> None:
    artefact = trained("lightgbm", name="trees", lineage={"search": {"trials": 3}})
    card = artefact.card
    assert (card.name, card.version, card.model, card.task, card.features) == ("trees", 0, "lightgbm", "classify", DATA.features)
    split = holdout(DATA.ts_made_ns, DATA.ts_end_ns, 0.2)
    assert (card.edges[3], card.shares[3]) == histogram(DATA.x[split.train, 3])
    about = card.about
    assert about["data"]["content_hash"] == DATA.content_hash and about["data"]["rows"] == 3000
    assert about["data"]["ts_from_ns"] == DATA.ts_made_ns[0] and about["data"]["labels_to_ns"] == DATA.ts_end_ns[-1]
    assert about["lineage"] == {"search": {"trials": 3}} and set(about["libraries"]) == {"python", "numpy", "lightgbm"}
    assert about["importance"][0]["feature"] in ("f0", "f1") and sum(row["gain"] for row in about["importance"]) == pytest.approx(1)
    assert card_json(card_of(card_json(card), "card")) == card_json(card) and "NaN" not in card_json(card)


def test_the_content_hash_sees_every_value() -> None:
    seen = {DATA.content_hash}
    for name in ("x", "value", "up", "ts_made_ns", "ts_end_ns", "symbol", "price", "return_"):
        column = getattr(DATA, name).copy()
        column.reshape(-1)[1234] += 1
        seen.add(replace(DATA, **{name: column}).content_hash)
    seen.add(replace(DATA, features=("other", *DATA.features[1:])).content_hash)
    assert len(seen) == 10 and made(3000).content_hash == DATA.content_hash


def test_training_again_follows_the_recipe() -> None:
    first = trained("lightgbm", class_weight="balanced", seed=5)
    card = replace(first.card, version=4)
    assert train_again(card, DATA).payload == first.payload
    newer = train_again(card, made(3000, seed=9))
    assert newer.payload != first.payload and newer.card.about["lineage"] == {"parent": 4}
    assert newer.card.about["recipe"] == first.card.about["recipe"] and recipe_of(card)[0].class_weight == "balanced"
    with pytest.raises(UserError, match="without f5"):
        train_again(card, made(3000, features=5))
    with pytest.raises(UserError, match="another label"):
        train_again(card, made(3000, horizon_bars=6))
    with pytest.raises(PenstockError, match="no recipe"):
        train_again(replace(card, about={}), DATA)


# honesty


@pytest.mark.parametrize("model", MODELS)
def test_shuffled_labels_give_half(model: str) -> None:
    """Labels that have nothing to do with the features: accuracy out of sample lies in the central 99.9 % of a fair coin's."""
    data = made(6000, horizon_bars=1)
    order = np.random.default_rng(3).permutation(len(data))
    shuffled = replace(data, up=data.up[order], value=data.value[order], return_=data.return_[order])
    n = 0
    hits = 0.0
    for seed in range(3):
        metrics = trained(model, shuffled, seed=seed, early_stopping=0, valid_share=0.5).card.about["metrics"]
        hits, n = hits + metrics["accuracy"] * metrics["rows"] / 3, metrics["rows"]
    low, high = binom.ppf([0.0005, 0.9995], n, 0.5)
    assert low <= hits <= high
    real = trained(model, data, early_stopping=0, valid_share=0.5).card.about["metrics"]
    assert real["accuracy"] * real["rows"] > high  # the very test would have seen a signal


# weights and bounds


def test_balanced_classes_weigh_the_same() -> None:
    up = np.array([1.0, 0, 0, 0, 0])
    weights = row_weights(Recipe(class_weight="balanced"), up, up)
    assert weights is not None
    assert weights[0] == pytest.approx(weights[1:].sum()) and weights.sum() == pytest.approx(5)
    data = made(3000, strength=0.3)
    rare = replace(data, up=(data.value > 1.2e-3).astype(np.int64))
    plain, balanced = (trained("lightgbm", rare, class_weight=c) for c in ("none", "balanced"))
    p = [LOADERS["lightgbm"](a).predict(rare.x).mean() for a in (plain, balanced)]
    assert abs(p[0] - rare.up.mean()) < 0.05 and abs(p[1] - 0.5) < 0.1


@pytest.mark.parametrize(("more", "said"), [
    ({"model": "lightgmb"}, 'unknown model "lightgmb"; did you mean "lightgbm"'),
    ({"task": "clasify"}, 'did you mean "classify"'),
    ({"class_weight": "balance"}, 'did you mean "balanced"'),
    ({"parameters": {"num_leafs": 3}}, 'unknown parameter of lightgbm "num_leafs"; did you mean "num_leaves"'),
    ({"parameters": {"num_leaves": 1}}, "lightgbm num_leaves: 1 is not a whole number from 2 to 4096"),
    ({"parameters": {"num_leaves": 3.5}}, "not a whole number"),
    ({"parameters": {"learning_rate": math.nan}}, "not a number from 0.0001 to 1"),
    ({"task": "regress", "class_weight": "balanced"}, "is for classes"),
    ({"seed": -1}, "seed -1"),
    ({"valid_share": 0.0}, "early stopping needs rows"),
    ({"valid_share": 1.0}, "not from 0 to below 1"),
])
def test_a_mistake_in_the_recipe_is_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        train(DATA, **more)
    assert said in str(error.value)


def test_rows_that_cannot_be_learned_from_are_named() -> None:
    with pytest.raises(UserError, match="150 rows in the data set, and at least 200"):
        train(made(150))
    with pytest.raises(UserError, match="to train on, before the validation rows"):
        train(made(240), valid_share=0.5)
    with pytest.raises(UserError, match="one class only: all 3,000 labels in the data set are up"):
        train(replace(DATA, up=np.ones(3000, np.int64)))
    late = replace(DATA, up=(np.arange(3000) > 2500).astype(np.int64))
    with pytest.raises(UserError, match="one class only: .* to train on, before the validation rows are not up"):
        train(late)
    flat = DATA.x.copy()
    flat[:, 2] = 7.0
    with pytest.raises(UserError, match="constant in all 3,000 rows in the data set: f2;"):
        train(replace(DATA, x=flat))
    with pytest.raises(UserError, match="all 3,000 labels"):
        train(replace(DATA, value=np.zeros(3000)), task="regress")


FAR = {"max_depth": 2, "bagging_freq": 3, "rounds": 3, "max_bin": 15, "gamma": 30.0, "min_gain_to_split": 30.0, "min_sum_hessian_in_leaf": 60.0,
       "lambda_l1": 5.0, "lambda_l2": 50.0, "reg_alpha": 5.0, "reg_lambda": 50.0, "path_smooth": 50.0}


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_reaches_the_library(model: str) -> None:
    """Each parameter, moved far from its default, gives other trees: none is swallowed."""
    def trees(parameters: dict[str, float]) -> bytes:
        return train(DATA, model, {**SMALL_LEAVES[model], **parameters}).payload.split(b"end of trees")[0]

    base = trained(model).payload.split(b"end of trees")[0]
    for name, p in PARAMETERS[model].items():
        assert trees({name: FAR.get(name, round(p.default / 2) if p.whole else p.default / 2)}) != base, name


# importance


@pytest.mark.parametrize("model", MODELS)
def test_contributions_add_up_and_find_the_signal(model: str) -> None:
    artefact = trained(model)
    found = contributions(artefact, DATA.x[:200])
    p = LOADERS[model](artefact).predict(DATA.x[:200])
    assert found.shape == (200, 7) and found.sum(axis=1) == pytest.approx(np.log(p / (1 - p)), rel=1e-3, abs=1e-4)
    ranked = shap_importance(artefact, DATA.x)
    assert {ranked[0]["feature"], ranked[1]["feature"]} == {"f0", "f1"} and ranked[0]["direction"] > 0.9
    gains = tree_importance(model, artefact.payload, DATA.features)
    assert {gains[0]["feature"], gains[1]["feature"]} == {"f0", "f1"} and gains[0]["gain"] > 5 * gains[-1]["gain"]


def test_contributions_are_those_of_the_shap_package() -> None:
    shap = pytest.importorskip("shap")
    lightgbm = pytest.importorskip("lightgbm")
    artefact = trained("lightgbm", task="regress")
    theirs = shap.TreeExplainer(lightgbm.Booster(model_str=artefact.payload.decode())).shap_values(DATA.x[:50])
    assert contributions(artefact, DATA.x[:50])[:, :-1] == pytest.approx(np.asarray(theirs), rel=1e-9, abs=1e-12)


def test_no_rows_have_no_figures() -> None:
    assert measured(DATA, "classify", "m", None, np.arange(0)) == {}
