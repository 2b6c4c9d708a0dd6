"""The search for parameters: deterministic with one worker, gone on with where it was killed, shared, and honest about its study."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.learning.boosting import PARAMETERS, Recipe
from research.learning.search import Found, search
from research.learning.splits import holdout
from schemas.errors import UserError
from tests.training_made import made

optuna = pytest.importorskip("optuna")
DATA = made(1500, strength=0.8)
RECIPE = Recipe(parameters={"rounds": 15}, early_stopping=5)


def found(trials: int = 8, **more: object) -> Found:
    return search(DATA, RECIPE, trials, **more)  # type: ignore[arg-type]


def test_one_worker_always_finds_the_same() -> None:
    told: list[tuple[int, int, float]] = []
    a = found(14, progress=lambda *at: told.append(at))
    assert a == found(14)
    assert a.trials == 14 == len(a.history) and [t[0] for t in told] == list(range(1, 15)) and told[-1][2] == a.loss
    assert 0 < a.pruned < 14 and sum(t["state"] == "pruned" for t in a.history) == a.pruned
    assert a.loss == min(t["loss"] for t in a.history if t["state"] == "complete")
    assert {t["num_leaves"] for t in a.history} != {t["num_leaves"] for t in search(DATA, replace(RECIPE, seed=2), 14).history}
    assert Recipe("lightgbm", parameters=a.parameters).parameters == a.parameters and a.parameters["rounds"] == 15


@pytest.mark.parametrize("model", ["lightgbm", "xgboost"])
def test_what_it_suggests_is_within_its_bounds(model: str) -> None:
    pytest.importorskip(model)
    done = search(DATA, replace(RECIPE, model=model, parameters={"rounds": 5}), 6)
    for name, p in PARAMETERS[model].items():
        if p.search is not None:
            values = [t[name] for t in done.history]
            assert all(p.search[0] <= v <= p.search[1] for v in values) and len(set(values)) > 1


def test_a_study_is_gone_on_with(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    first = found(4, storage=storage)
    more = found(9, storage=storage)
    assert first.trials == 4 and more.trials == 9 and more.history[:4] == first.history
    assert found(6, storage=storage) == more  # enough already
    assert first.history == found(4).history  # the same as in memory


def test_killed_it_is_gone_on_with(tmp_path: Path) -> None:
    """The process dies in its fourth trial; the next one finishes the study, and no finished trial is lost or made twice."""
    storage = f"sqlite:///{tmp_path}/study.db"
    code = ("import os, signal, sys\nfrom tests.test_training_search import found\n"
            "found(8, storage=sys.argv[1], progress=lambda done, *_: os.kill(os.getpid(), signal.SIGKILL) if done == 4 else None)")
    killed = subprocess.run([sys.executable, "-c", code, storage], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    done = found(8, storage=storage)
    assert done.trials == 8 and done.history[:4] == found(4).history


def test_machines_share_a_study(tmp_path: Path) -> None:
    """Two workers with numbers of their own try other parameters, and together reach the number that was asked for."""
    storage = f"sqlite:///{tmp_path}/study.db"
    found(3, storage=storage, worker=0)
    both = found(6, storage=storage, worker=1)
    assert both.trials == 6 and len({t["learning_rate"] for t in both.history}) == 6


def test_a_study_of_other_data_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    found(2, storage=storage, study="mine")
    with pytest.raises(UserError, match="study mine was made of other data"):
        search(made(1500, seed=2), RECIPE, 2, storage=storage, study="mine")
    with pytest.raises(UserError, match="study mine was made of other data"):
        search(DATA, replace(RECIPE, class_weight="balanced"), 2, storage=storage, study="mine")


def test_it_sees_only_the_rows_that_it_is_given() -> None:
    """Rows that are held out may say anything: the search finds the same."""
    rows = holdout(DATA.ts_made_ns, DATA.ts_end_ns, 0.3).train
    poisoned = replace(DATA, x=DATA.x.copy(), up=DATA.up.copy())
    out = np.setdiff1d(np.arange(len(DATA)), rows)
    poisoned.x[out], poisoned.up[out] = 1e9, 1
    assert found(3, rows=rows).history == search(poisoned, RECIPE, 3, rows=rows).history


def test_thinned_rows_scale_the_leaf_back() -> None:
    whole, thin = found(3), found(3, rows_max=750)
    best = min((t for t in thin.history if t["state"] == "complete"), key=lambda t: t["loss"])
    assert thin.parameters["min_data_in_leaf"] == pytest.approx(2 * best["min_data_in_leaf"], abs=1)
    best = min((t for t in whole.history if t["state"] == "complete"), key=lambda t: t["loss"])
    assert whole.parameters["min_data_in_leaf"] == best["min_data_in_leaf"]


def test_bad_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="0 trials"):
        found(0)
    with pytest.raises(UserError, match="early stopping above 0"):
        search(DATA, replace(RECIPE, early_stopping=0), 2)
    with pytest.raises(UserError, match="--storage nowhere: .*write it like sqlite"):
        found(2, storage="nowhere")
    with pytest.raises(UserError, match="rows to train a fold on|rows to search on"):
        search(made(220), RECIPE, 1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'penstock\[search\]'"):
        found(2)
