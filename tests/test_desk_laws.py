"""The desk on random tapes: batch, resume and prefix law, bit for bit."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.desk import audit
from tests.desk_tapes import MADE, SYMBOLS, cut, random_operator, random_tape, run, same

SEED = st.integers(0, 10_000)
LAW = settings(max_examples=25)
N = 400
PLACES = st.integers(0, 2 * N + 20)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Audit blocks that fill up within a short tape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "BLOCK", 16)
        yield


@LAW
@given(seed=SEED, cuts=st.lists(PLACES, max_size=30))
def test_batch_law(seed: int, cuts: list[int]) -> None:
    tape = random_tape(seed, N)
    whole, parts = random_operator(seed), random_operator(seed)
    assert same(run(whole, cut(tape, SYMBOLS)), run(parts, cut(tape, SYMBOLS, cuts)))
    assert whole.audit.heads() == parts.audit.heads()
    assert whole.desk.account.tobytes() == parts.desk.account.tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_batch_law_one_row_a_frame(seed: int) -> None:
    tape = random_tape(seed, 1500)
    made = run(random_operator(seed), cut(tape, SYMBOLS))
    assert all(len(rows) > 20 for rows in made)
    assert same(made, run(random_operator(seed), cut(tape, SYMBOLS, range(3020))))


@LAW
@given(seed=SEED, place=PLACES)
def test_resume_law(seed: int, place: int) -> None:
    tape = random_tape(seed, N)
    first, rest = cut(tape, SYMBOLS, [place])
    stopped, fresh = random_operator(seed), random_operator(seed)
    run(stopped, [first])
    saved = stopped.snapshot()
    frozen = pickle.dumps(saved)
    expected = run(stopped, [rest])
    assert pickle.dumps(saved) == frozen  # later steps do not change what was saved
    fresh.restore(pickle.loads(frozen))
    assert same(expected, run(fresh, [rest]))
    assert stopped.audit.heads() == fresh.audit.heads()


@LAW
@given(seed=SEED, place=PLACES)
def test_prefix_law_and_a_poisoned_future(seed: int, place: int) -> None:
    tape = random_tape(seed, N)
    whole = run(random_operator(seed), cut(tape, SYMBOLS))
    known = tuple(rows[rows["seq"] < place] for rows in whole)
    assert same(known, run(random_operator(seed), cut(tape, SYMBOLS, [place])[:1]))
    other = random_tape(seed + 1, N)
    poisoned = {name: np.concatenate([rows[rows["seq"] < place], other[name][other[name]["seq"] >= place]]) for name, rows in tape.items()}
    changed = run(random_operator(seed), cut(poisoned, SYMBOLS))
    assert same(known, tuple(rows[rows["seq"] < place] for rows in changed))


def test_symbols_that_appear_later_change_nothing_before() -> None:
    tape = random_tape(3, N)
    frames = cut(tape, SYMBOLS, [200, 500])
    names = [SYMBOLS, (*SYMBOLS, "NEW"), (*SYMBOLS, "NEW", "NEWER", *(f"N{k}" for k in range(9)))]
    grown = [type(f)(f.origin, f.number, f.frontier_ns, n, f.tables) for f, n in zip(frames, names, strict=True)]
    assert same(run(random_operator(3), frames), run(random_operator(3), grown))
    with pytest.raises(ValueError, match="do not extend"):
        run(random_operator(3), [frames[0], type(frames[1])("test", 1, 0, ("OTHER",), {})])


def test_a_frame_with_nothing_gives_a_frame_with_nothing() -> None:
    operator = random_operator(0)
    assert all(len(rows) == 0 for rows in run(operator, cut({}, SYMBOLS, [1, 2])))
    assert len(MADE) == 7
