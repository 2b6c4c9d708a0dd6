"""Boosted trees at work: the same number for a row in any batch, and damaged bytes are refused without harm."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.learners.boosted import LOADERS
from research.learning.training import train
from schemas.artefact import Artefact, Card
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError, UserError
from tests.training_made import SMALL_LEAVES, made

MODELS = ["lightgbm", "xgboost"]
TASKS = ["classify", "regress"]
DATA = made()


@pytest.fixture(scope="module")
def artefacts() -> dict[tuple[str, str], Artefact]:
    pytest.importorskip("xgboost")
    return {(model, task): train(DATA, model, SMALL_LEAVES[model], task) for model in MODELS for task in TASKS}


def card(model: str, features: int = 6) -> Card:
    return Card("m", 3, model, "classify", 60 * 10**9, tuple(f"f{k}" for k in range(features)), LabelConfig())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_row_gives_the_same_number_in_any_batch(artefacts: dict[tuple[str, str], Artefact], model: str, task: str) -> None:
    predict = LOADERS[model](artefacts[model, task]).predict
    x = np.ascontiguousarray(DATA.x[:700])
    whole = predict(x)
    assert whole.dtype == np.float64 and whole.shape == (700,) and len(np.unique(whole)) > 20

    @settings(max_examples=25)
    @given(st.lists(st.integers(1, 699), max_size=12))
    def cut(cuts: list[int]) -> None:
        edges = [0, *sorted(set(cuts)), 700]
        parts = [predict(np.ascontiguousarray(x[a:b])) for a, b in zip(edges, edges[1:], strict=False)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()

    cut()
    assert np.array([predict(x[k:k + 1])[0] for k in range(100)]).tobytes() == whole[:100].tobytes()
    assert predict(x[::-1].copy()).tobytes() == whole[::-1].tobytes()
    assert predict(np.asfortranarray(x)).tobytes() == whole.tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(TASKS), st.integers(1, 9), st.sampled_from([2, 3, 31, 255]), st.booleans(), st.integers(0, 300))
def test_lightgbm_is_the_librarys_number_to_the_bit(seed: int, task: str, features: int, leaves: int, holes: bool, rows: int) -> None:
    """Models of every shape, trained on rows with and without missing values, asked in batches of every size."""
    random = np.random.default_rng(seed)
    x = np.round(random.normal(size=(400, features)), random.integers(0, 6))  # few values or many: thresholds are met exactly too
    y = x.sum(axis=1) + random.normal(size=400)
    given_x = np.where(random.random(x.shape) < 0.1, np.nan, x) if holes else x
    objective = {"classify": "binary", "regress": "regression"}[task]
    label = (y > 0).astype(float) if task == "classify" else y
    booster = lightgbm.train({"objective": objective, "num_leaves": leaves, "min_data_in_leaf": 1, "verbose": -1, "num_threads": 1, "seed": 1},
                             lightgbm.Dataset(given_x, label), num_boost_round=12)
    ours = LOADERS["lightgbm"](Artefact(replace(card("lightgbm", features), task=task), booster.model_to_string().encode()))
    asked = np.vstack([x, random.normal(size=(300, features))])[700 - rows:]
    if rows:
        assert ours.predict(asked).tobytes() == booster.predict(asked, num_threads=1).tobytes()
    assert len(ours.predict(asked)) == rows


def test_lightgbm_is_its_trees_walked_by_hand(artefacts: dict[tuple[str, str], Artefact]) -> None:
    """The model's text, walked by plain Python: goes left where the value is at most the threshold; the scores of all trees add up."""
    text = artefacts["lightgbm", "classify"].payload.decode()
    trees = [dict(line.partition("=")[::2] for line in block.split("\n")) for block in text.split("end of trees")[0].split("\n\nTree=")[1:]]

    def score(row: np.ndarray) -> float:
        total = 0.0
        for tree in trees:
            node = 0 if int(tree["num_leaves"]) > 1 else -1
            while node >= 0:
                left = row[int(tree["split_feature"].split()[node])] <= float(tree["threshold"].split()[node])
                node = int(tree["left_child" if left else "right_child"].split()[node])
            total += float(tree["leaf_value"].split()[~node])
        return total

    said = LOADERS["lightgbm"](artefacts["lightgbm", "classify"]).predict(DATA.x[:50])
    assert said == pytest.approx([1 / (1 + np.exp(-score(row))) for row in DATA.x[:50]], rel=1e-12)


def test_xgboost_is_its_trees_walked_by_hand(artefacts: dict[tuple[str, str], Artefact]) -> None:
    """The model's JSON, walked by plain Python in 32 bits: goes left where the value is below the condition."""
    learner = json.loads(artefacts["xgboost", "regress"].payload)["learner"]
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))

    def score(row: np.ndarray) -> float:
        total = base
        for tree in learner["gradient_booster"]["model"]["trees"]:
            node = 0
            while tree["left_children"][node] != -1:
                left = row[tree["split_indices"][node]] < np.float32(tree["split_conditions"][node])
                node = tree["left_children" if left else "right_children"][node]
            total += tree["split_conditions"][node]
        return total

    said = LOADERS["xgboost"](artefacts["xgboost", "regress"]).predict(DATA.x[:50])
    assert said == pytest.approx([score(row) for row in DATA.x[:50].astype(np.float32)], rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("payload", [b"", b"tree\n", b"\x00\xff", b"{}", b"[]", b"null", b"tree\nversion=v4\n", "grün".encode()])
def test_what_is_no_model_is_refused(model: str, payload: bytes) -> None:
    with pytest.raises(PenstockError, match="model m version 3: not the trees of a trained model"):
        LOADERS[model](Artefact(card(model), payload))


@pytest.mark.parametrize("model", MODELS)
def test_every_truncation_is_refused(artefacts: dict[tuple[str, str], Artefact], model: str) -> None:
    good = artefacts[model, "classify"]
    end = good.payload.index(b"end of parameters") if model == "lightgbm" else len(good.payload)  # what follows says nothing of the trees
    for n in np.linspace(0, end - 1, 60).astype(int).tolist():
        with pytest.raises(PenstockError):
            LOADERS[model](Artefact(good.card, good.payload[:n]))


@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_other_columns_is_refused(artefacts: dict[tuple[str, str], Artefact], model: str) -> None:
    with pytest.raises(PenstockError, match="features"):
        LOADERS[model](Artefact(card(model, 5), artefacts[model, "classify"].payload))


@pytest.mark.parametrize(("what", "change"), [
    ("cycle", lambda t: re.sub(r"left_child=(-?\d+)", "left_child=0", t, count=1)),
    ("column out of range", lambda t: re.sub(r"split_feature=\d+", "split_feature=6", t, count=1)),
    ("NaN threshold", lambda t: re.sub(r"threshold=\S+", "threshold=nan", t, count=1)),
    ("infinite leaf", lambda t: re.sub(r"leaf_value=\S+", "leaf_value=inf", t, count=1)),
    ("child beyond the nodes", lambda t: re.sub(r"right_child=(-?\d+)", "right_child=9999", t, count=1)),
    ("two classes", lambda t: t.replace("num_class=1", "num_class=2", 1)),
    ("linear leaves", lambda t: t.replace("is_linear=0", "is_linear=1", 1)),
    ("categories", lambda t: t.replace("num_cat=0", "num_cat=1", 1)),
])
def test_a_lightgbm_model_that_would_lead_astray_is_refused(artefacts: dict[tuple[str, str], Artefact], what: str, change: object) -> None:
    good = artefacts["lightgbm", "classify"]
    text = change(good.payload.decode())  # type: ignore[operator]
    assert text != good.payload.decode()
    sizes = [len(f"Tree={b}\n\n") for b in text.split("\n\n\nend of trees")[0].split("\n\nTree=")[1:]]
    sizes[-1] += 1
    text = re.sub(r"tree_sizes=.*", f"tree_sizes={' '.join(map(str, sizes))}", text)  # so that it is not refused for its size alone
    with pytest.raises(PenstockError, match="damaged"):
        LOADERS["lightgbm"](Artefact(good.card, text.encode()))


@pytest.mark.parametrize(("where", "value"), [
    (("left_children", 0), 0), (("right_children", 0), 10**6), (("split_indices", 0), 6), (("split_conditions", 0), float("nan")),
    (("split_type", 0), 1), (("parents", 1), 1), (("base_weights", 0), "x"),
])
def test_an_xgboost_model_that_would_lead_astray_is_refused(
    artefacts: dict[tuple[str, str], Artefact], where: tuple[str, int], value: object
) -> None:
    good = artefacts["xgboost", "classify"]
    found = json.loads(good.payload)
    found["learner"]["gradient_booster"]["model"]["trees"][0][where[0]][where[1]] = value
    with pytest.raises(PenstockError, match="damaged"):
        LOADERS["xgboost"](Artefact(good.card, json.dumps(found).encode()))


FUZZ = """
import sys
import numpy as np
from operators.learners.boosted import LOADERS
from schemas.artefact import Artefact, Card
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError
model, path, tries = sys.argv[1], sys.argv[2], int(sys.argv[3])
good = open(path, "rb").read()
card = Card("m", 1, model, "classify", 60 * 10**9, tuple(f"f{k}" for k in range(6)), LabelConfig())
rng = np.random.default_rng(5)
rows = np.random.default_rng(6).normal(size=(20, 6))
refused = used = 0
for _ in range(tries):
    bad = bytearray(good)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(bad)))
        kind = rng.integers(4)
        if kind == 0:
            bad[at] = int(rng.integers(256))
        elif kind == 1:
            bad[at] = int(rng.choice(np.frombuffer(b"0123456789-.=, \\n", np.uint8)))
        elif kind == 2:
            del bad[at:at + int(rng.integers(1, 40))]
        else:
            bad[at:at] = bad[max(0, at - 20):at]
    try:
        said = LOADERS[model](Artefact(card, bytes(bad))).predict(rows)
        assert said.shape == (20,)
        used += 1
    except PenstockError:
        refused += 1
print(refused, used)
"""


@pytest.mark.parametrize("model", MODELS)
def test_no_damage_ends_the_process(artefacts: dict[tuple[str, str], Artefact], model: str, tmp_path: Path) -> None:
    """Hundreds of damaged files in a process of its own: each is refused, or is a model still; the process lives and says nothing else."""
    path = tmp_path / "model"
    path.write_bytes(artefacts[model, "classify"].payload)
    done = subprocess.run([sys.executable, "-c", FUZZ, model, str(path), "400"], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    refused, used = map(int, done.stdout.split())
    assert refused + used == 400 and refused > 200


def test_a_missing_library_names_the_extra(artefacts: dict[tuple[str, str], Artefact], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UserError, match=re.escape("pip install 'penstock[xgboost]'")):
        LOADERS["xgboost"](artefacts["xgboost", "classify"])
    with pytest.raises(UserError, match=re.escape("pip install 'penstock[xgboost]'")):
        train(DATA, "xgboost")
