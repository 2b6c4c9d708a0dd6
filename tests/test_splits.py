"""Splits in time: what is trained on never overlaps what is tested, however ragged the labels are."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.learning.splits import duration_text, holdout, parse_duration, purged_folds, purged_split, walk_forward_splits
from schemas.errors import UserError

DAY = 86_400 * 10**9


@st.composite
def spans(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of time, several at once, with labels of any length."""
    n = draw(st.integers(8, 120))
    steps = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    lengths = draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))
    made = 1000 + np.cumsum(np.array(steps, np.int64))
    return made, made + np.array(lengths, np.int64)


def overlap(made: np.ndarray, end: np.ndarray, train: np.ndarray, test: np.ndarray, embargo: int) -> list[tuple[int, int]]:
    """Every pair whose closed spans touch or are nearer than the embargo, row by row: the definition, not the code."""
    return [(int(i), int(j)) for i in train for j in test
            if made[i] <= end[j] + embargo and end[i] >= made[j] - embargo]


@given(spans(), st.integers(0, 60), st.integers(1, 60), st.integers(0, 15))
def test_no_training_label_touches_a_test_label(rows: tuple[np.ndarray, np.ndarray], start: int, length: int, embargo: int) -> None:
    made, end = rows
    split = purged_split(made, end, 1000 + start, 1000 + start + length, embargo)
    assert overlap(made, end, split.train, split.test, embargo) == []
    assert set(split.test) == {i for i in range(len(made)) if 1000 + start <= made[i] < 1000 + start + length}
    assert len(split.train) + len(split.test) + split.purged == len(made)


@given(spans(), st.integers(0, 15))
def test_rows_far_from_the_test_are_kept(rows: tuple[np.ndarray, np.ndarray], embargo: int) -> None:
    made, end = rows
    low, high = 1020, 1040
    split = purged_split(made, end, low, high, embargo)
    if len(split.test):
        last = end[split.test].max()
        far = {i for i in range(len(made)) if end[i] + embargo < low or made[i] > last + embargo}
        assert set(split.train) == far


@given(spans(), st.integers(5, 60), st.integers(3, 40), st.integers(0, 10), st.booleans())
def test_walking_forward_trains_on_the_past_alone(
    rows: tuple[np.ndarray, np.ndarray], train: int, test: int, embargo: int, anchored: bool
) -> None:
    made, end = rows
    windows = list(walk_forward_splits(made, end, train, test, embargo, anchored))
    for w in windows:
        assert overlap(made, end, w.split.train, w.split.test, embargo) == []
        assert end[w.split.train].max() + embargo < w.test_from_ns
        assert made[w.split.train].min() >= (made.min() if anchored else w.test_from_ns - train)
    for a, b in pairwise(windows):
        assert set(a.split.test).isdisjoint(b.split.test) and b.test_from_ns >= a.test_to_ns
    tested = np.concatenate([w.split.test for w in windows]) if windows else np.array([])
    assert (np.diff(tested) > 0).all()


def test_every_row_after_the_first_window_is_tested_once() -> None:
    made = np.arange(103, dtype=np.int64) * DAY
    windows = list(walk_forward_splits(made, made + DAY, 30 * DAY, 7 * DAY))
    assert np.concatenate([w.split.test for w in windows]).tolist() == list(range(30, 103))
    assert [len(w.split.test) for w in windows] == [7] * 10 + [3]
    assert [len(w.split.train) for w in windows] == [29] * len(windows)  # the label of the last row ends when the test begins
    anchored = list(walk_forward_splits(made, made + DAY, 30 * DAY, 7 * DAY, anchored=True))
    assert [len(w.split.train) for w in anchored] == [29 + 7 * k for k in range(len(anchored))]


@given(spans(), st.integers(2, 4), st.integers(0, 5))
def test_folds_test_every_row_once(rows: tuple[np.ndarray, np.ndarray], folds: int, embargo: int) -> None:
    made, end = rows
    try:
        splits = list(purged_folds(made, end, folds, embargo))
    except UserError as error:
        assert "too few different times" in str(error) and len(set(made)) < len(made)
        return
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(len(made)))
    for s in splits:
        assert overlap(made, end, s.train, s.test, embargo) == []


def test_embargo_example() -> None:
    """Ten rows a day apart with labels of two days; the test is days 4 and 5, whose labels end on day 7."""
    made = np.arange(10, dtype=np.int64) * DAY
    end = made + 2 * DAY
    assert purged_split(made, end, 4 * DAY, 6 * DAY).train.tolist() == [0, 1, 8, 9]
    assert purged_split(made, end, 4 * DAY, 6 * DAY, DAY).train.tolist() == [0, 9]


def test_holdout_is_the_end() -> None:
    made = np.repeat(np.arange(50, dtype=np.int64), 2) * DAY
    split = holdout(made, made + 3 * DAY, 0.2)
    assert split.test.tolist() == list(range(80, 100)) and split.train.max() == 73
    with pytest.raises(UserError, match="share of validation"):
        holdout(made, made, 1.0)


@pytest.mark.parametrize(("text", "days"), [("36h", 1.5), ("30d", 30), ("2w", 14), ("6mo", 180), ("1y", 365)])
def test_durations(text: str, days: float) -> None:
    assert parse_duration(text) == days * DAY
    assert parse_duration(duration_text(parse_duration(text))) == days * DAY


@pytest.mark.parametrize("text", ["", "6", "mo", "-1d", "1.5d", "6 months", "999999y"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(UserError, match="not a duration"):
        parse_duration(text, "--train")


def test_bad_windows_are_named() -> None:
    made = np.arange(10, dtype=np.int64)
    with pytest.raises(UserError, match="above 0"):
        list(walk_forward_splits(made, made, 0, 1))
    with pytest.raises(UserError, match="folds"):
        list(purged_folds(made, made, 1))
    with pytest.raises(UserError, match="negative"):
        purged_split(made, made, 0, 1, -1)
