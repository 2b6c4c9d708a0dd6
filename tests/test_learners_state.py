"""The state of an online learner: saved and put back anywhere it goes on bit for bit, and its digest says when two are the same."""

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

import operators.learners.online as online_module
from operators.learners.online import Online
from operators.learners.river_calls import dumped, loaded
from operators.learners.state_digest import describe_state, state_digest
from tests.test_learners_online import FAMILIES, NAMES, config, feed, rows, same


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
    for cut in (i - 3, i + 1) if detector == "KSWIN" else (100, i - 3, i + 1, 1100):
        first, second = Online(made, "k"), Online(made, "k")
        got = feed(first, tape[:cut])
        second.restore(first.snapshot())
        assert same(got + feed(second, tape[cut:]), expected)
        assert second.digest() == whole.digest()


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
    feed(learner, rows(70))
    print(name, learner.digest())
"""


def test_another_process_with_other_hashes_learns_the_same() -> None:
    said = [
        subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "4242")
    ]
    assert said[0] == said[1] and len(said[0].splitlines()) == len(FAMILIES)
