"""The performance floor: what stops a model and lets it go on, a plain-Python reference, and the laws."""

import math
import pickle
from collections import deque
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.learners.fallback import ALERT_SHARE, Fallback
from schemas.tables_models import DETECTORS, DRIFT_ACTIONS, SCORES

SEED = st.integers(0, 2**32 - 1)
MODELS, WINDOW, FLOOR, MARGIN = 3, 20, 0.45, 0.05
TRAINED = (math.nan, 0.9, 0.55)


def made() -> Fallback:
    fallback = Fallback(MODELS, WINDOW, FLOOR, MARGIN)
    for model, trained in enumerate(TRAINED):
        fallback.begin(model, trained)
    return fallback


def scores(seed: int, n: int = 600) -> tuple[Any, Any]:
    """Models whose accuracy wanders, some scores without a direction."""
    rng = np.random.default_rng(seed)
    model = rng.integers(0, MODELS, n)
    skill = 0.5 + 0.35 * np.sin(np.arange(n) / 70 + rng.uniform(0, 6, MODELS)[model])
    hit = (rng.uniform(size=n) < skill).astype(np.int64)
    hit[rng.uniform(size=n) < 0.1] = -1
    return model, hit


def run(fallback: Fallback, model: Any, hit: Any, cuts: list[int] | None = None) -> list[Any]:
    parts = [fallback.step(model[a:z], hit[a:z]) for a, z in pairwise([0, *(cuts or []), len(model)])]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def same_bits(one: list[Any], other: list[Any]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def reference(model: Any, hit: Any) -> list[Any]:
    windows = [deque[int](maxlen=WINDOW) for _ in range(MODELS)]
    stopped, worse = [False] * MODELS, [False] * MODELS
    out = []
    for m, h in zip(model.tolist(), hit.tolist(), strict=True):
        window, alarm = windows[m], False
        if h >= 0:
            window.append(h)
            if len(window) == WINDOW:
                accuracy = sum(window) / WINDOW
                if stopped[m]:
                    stopped[m] = not accuracy > FLOOR + MARGIN
                elif accuracy < FLOOR:
                    stopped[m] = alarm = True
                if worse[m]:
                    worse[m] = accuracy < ALERT_SHARE * TRAINED[m] + MARGIN
                elif accuracy < ALERT_SHARE * TRAINED[m]:
                    worse[m] = True
                    alarm = alarm or not stopped[m]
        out.append((stopped[m], alarm, sum(window) / len(window) if window else math.nan))
    return [np.array(column) for column in zip(*out, strict=True)]


@given(SEED)
def test_it_is_the_reference(seed: int) -> None:
    model, hit = scores(seed)
    same_bits(run(made(), model, hit), reference(model, hit))


def test_the_random_scores_stop_alert_and_let_go() -> None:
    model, hit = scores(4)
    stopped, alarm, _ = run(made(), model, hit)
    mine = stopped[model == 0]
    assert (mine[1:] & ~mine[:-1]).any() and (mine[:-1] & ~mine[1:]).any()
    assert (alarm & ~stopped & (model == 1)).any()


def test_a_model_stops_below_the_floor_and_resumes_above_the_margin() -> None:
    """Ten scores: 4 of 10 stop it; 5 of 10 are not enough to go on; 6 of 10 are. Before ten there is no verdict."""
    fallback = Fallback(1, window=10, floor=0.45, margin=0.05)
    hits = [0] * 6 + [1] * 3 + [1] + [1] * 2
    stopped, alarm, accuracy = fallback.step(np.zeros(12, np.int64), np.array(hits))
    assert stopped.tolist() == [False] * 9 + [True, True, False]
    assert alarm.tolist() == [False] * 9 + [True, False, False]
    assert accuracy[9:].tolist() == [0.4, 0.5, 0.6] and accuracy[0] == 0.0 and accuracy[8] == pytest.approx(1 / 3)


def test_an_alert_is_given_once_and_stops_nothing() -> None:
    fallback = Fallback(2, window=10, floor=0.3, margin=0.05)
    fallback.begin(1, 0.76)
    model = np.ones(14, np.int64)
    stopped, alarm, accuracy = fallback.step(model, np.array([1] * 6 + [0] * 4 + [0, 1, 1, 0]))
    assert not stopped.any() and alarm.tolist() == [False] * 10 + [True] + [False] * 3
    assert accuracy[10] == 0.5


def test_an_alarm_is_a_row_of_drift() -> None:
    """A model that was right 9 times in 10 is alerted of below 0.675 and stopped below 0.45."""
    fallback = Fallback(2, window=10)
    fallback.begin(1, 0.9)
    model, hit = np.ones(20, np.int64), np.array([1] * 10 + [0] * 10)
    scores = SCORES.empty(20)
    scores["seq"], scores["symbol"], scores["model"], scores["ts_event_ns"] = np.arange(20), 4, 7, 1000 + np.arange(20)
    rows = fallback.drift(scores, model, *fallback.step(model, hit))
    assert rows["seq"].tolist() == [13, 15] and rows["ts_event_ns"].tolist() == [1013, 1015]
    assert rows["statistic"].tolist() == [0.6, 0.4] and rows["bound"].tolist() == pytest.approx([0.675, 0.45])
    assert {(r["model"], r["symbol"], r["feature"], DETECTORS[r["detector"]], DRIFT_ACTIONS[r["action"]]) for r in rows} == {
        (7, 4, -1, "performance", "alert")}


def test_scores_without_direction_are_passed_over() -> None:
    fallback = Fallback(1, window=2)
    stopped, alarm, accuracy = fallback.step(np.zeros(4, np.int64), np.array([-1, 0, -1, 0]))
    assert stopped.tolist() == [False, False, False, True] and alarm.tolist() == stopped.tolist()
    assert math.isnan(accuracy[0]) and accuracy[1:].tolist() == [0.0, 0.0, 0.0]


def test_another_version_begins_anew() -> None:
    fallback = Fallback(2, window=3)
    fallback.step(np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int64))
    assert fallback.stopped.tolist() == [True, True]
    fallback.begin(0)
    assert fallback.stopped.tolist() == [False, True]
    stopped, alarm, accuracy = fallback.step(np.zeros(3, np.int64), np.array([0, 1, 0]))
    assert stopped.tolist() == alarm.tolist() == [False, False, True]
    assert accuracy.tolist() == [0.0, 0.5, 1 / 3]


@given(SEED, st.lists(st.integers(0, 600), max_size=8), st.integers(0, 600))
def test_batch_and_resume(seed: int, cuts: list[int], stop: int) -> None:
    model, hit = scores(seed)
    whole = run(made(), model, hit)
    same_bits(run(made(), model, hit, sorted(cuts)), whole)
    same_bits(run(made(), model, hit, list(range(1, 600))), whole)
    first = made()
    before = run(first, model[:stop], hit[:stop])
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    run(first, model, hit)  # a snapshot does not change with later steps
    first.begin(0, 0.1)
    assert pickle.dumps(kept) == saved
    second = Fallback(MODELS, WINDOW, FLOOR, MARGIN)
    second.restore(pickle.loads(saved))
    same_bits([np.concatenate(pair) for pair in zip(before, run(second, model[stop:], hit[stop:]), strict=True)], whole)


@given(SEED, st.integers(0, 600))
def test_prefix(seed: int, cut: int) -> None:
    model, hit = scores(seed)
    poisoned = hit.copy()
    poisoned[cut:] = 0
    same_bits([each[:cut] for each in run(made(), model, poisoned)], [each[:cut] for each in run(made(), model, hit)])


def test_models_do_not_touch() -> None:
    model, hit = scores(8)
    whole = run(made(), model, hit)
    for m in range(MODELS):
        mine = model == m
        same_bits(run(made(), model[mine], hit[mine]), [each[mine] for each in whole])


def test_what_it_cannot_be_made_of() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Fallback(1, window=0)
    with pytest.raises(ValueError, match=r"\(3, 20\)"):
        Fallback(2, WINDOW).restore(made().snapshot())
