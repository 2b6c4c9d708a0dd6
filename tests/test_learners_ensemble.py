"""The ensemble: votes by example, against a plain-Python reference, the bound of its weights, what calibration gains, and the laws."""

import math
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.learners.ensemble import FORGET, LEARN, PREDICT, WEIGHT_MIN, Ensemble
from schemas.config_models import ModelConfig
from schemas.tables_models import MEMBERS_MAX, VERDICTS, VOTES
from tests.ensemble_reference import Reference

NAN = math.nan
LAW = settings(max_examples=40, deadline=None)
SEED = st.integers(0, 2**32 - 1)
CALM = 0.01


def config(**changes: Any) -> ModelConfig:
    return ModelConfig("vote", "ensemble", members=("a", "b", "c", "d"), **changes)


RAW = config(calibrate=False)
Events = dict[str, Any]


def random_events(seed: int, n: int = 300, members: int = 4, symbols: int = 3) -> Events:
    """Labels, bars and new versions in any order; members abstain, and some numbers are no probabilities."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=(n, members)) if seed % 2 else 0.5 + 0.3 * np.tanh(rng.normal(0.4, 1.0, (n, members)))
    p[rng.uniform(size=p.shape) < rng.choice([0.0, 0.2, 0.7])] = NAN
    odd = rng.uniform(size=p.shape) < 0.02
    p[odd] = rng.choice([0.0, 1.0, 0.5, -0.1, 1.1, np.inf], int(odd.sum()))
    volatility = rng.choice([0.0, 0.02, 0.05, 0.0500001, 0.3, NAN], n)
    return {"kinds": rng.choice([LEARN, PREDICT, FORGET], n, p=[0.55, 0.42, 0.03]), "p": p, "up": rng.integers(0, 2, n), "volatility": volatility,
            "symbols": rng.integers(0, symbols, n)}


def run(ensemble: Ensemble, events: Events, cuts: list[int] | None = None) -> dict[str, Any]:
    """What comes out of the events, cut there; symbols become known as they come."""
    parts = []
    for a, z in pairwise([0, *(cuts or []), len(events["kinds"])]):
        known = 1 + int(events["symbols"][:z].max(initial=-1))
        parts.append(ensemble.step(*(events[name][a:z] for name in ("kinds", "p", "up", "volatility", "symbols")), known))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


def ask(p: list[float], volatility: float = CALM, votes: list[bool] | None = None, made: ModelConfig = RAW) -> dict[str, Any]:
    """One vote of members that have learned nothing."""
    ensemble = Ensemble(made, len(p), None if votes is None else np.array(votes))
    out = ensemble.step(np.array([PREDICT]), np.array([p]), np.zeros(1, np.int64), np.array([volatility]), np.zeros(1, np.int64), 1)
    return {name: values[0] for name, values in out.items()} | {"verdict": VERDICTS[out["verdict"][0]]}


U, D, N = 0.6, 0.4, NAN


@pytest.mark.parametrize(("p", "verdict", "direction", "present", "agreeing"), [
    ([U, U, U, U], "agreed", 1, 4, 4),
    ([D, D, D, D], "agreed", -1, 4, 4),
    ([U, U, U, D], "agreed", 1, 4, 3),
    ([D, U, D, D], "agreed", -1, 4, 3),
    ([U, U, D, D], "no_consensus", 0, 4, 2),
    ([U, U, D, N], "no_consensus", 0, 3, 2),
    ([U, U, U, N], "agreed", 1, 3, 3),
    ([D, D, N, N], "agreed", -1, 2, 2),
    ([U, D, N, N], "no_consensus", 0, 2, 1),
    ([N, U, N, N], "too_few", 0, 1, 1),
    ([N, N, N, N], "too_few", 0, 0, 0),
    ([U, U, U, 0.5], "agreed", 1, 4, 3),
    ([U, U, 0.5, 0.5], "no_consensus", 0, 4, 2),
    ([0.5, 0.5, 0.5, 0.5], "no_consensus", 0, 4, 0),
    ([0.51, 0.51, 0.51, 0.01], "no_consensus", 0, 4, 3),  # three heads, and the weighted probability says the opposite
    ([U, U, U, 1.5], "agreed", 1, 3, 3),  # no probability: abstains
])
def test_four_members(p: list[float], verdict: str, direction: int, present: int, agreeing: int) -> None:
    vote = ask(p)
    assert (vote["verdict"], vote["direction"], vote["present"], vote["agreeing"]) == (verdict, direction, present, agreeing)
    speaking = [each for each in p if 0 <= each <= 1]
    mean = sum(speaking) / len(speaking) if speaking else NAN
    assert vote["p_up"] == pytest.approx(mean, abs=1e-15, nan_ok=True)
    assert vote["confidence"] == pytest.approx(max(mean, 1 - mean) if speaking else 0.0, abs=1e-15)
    assert vote["member_weight"].tolist() == [1 / len(speaking) if 0 <= each <= 1 else 0.0 for each in p] + [0.0] * 4
    np.testing.assert_array_equal(vote["member_p"], [each if 0 <= each <= 1 else NAN for each in p] + [NAN] * 4)


@pytest.mark.parametrize("members", range(1, MEMBERS_MAX + 1))
def test_a_share_that_is_written_is_reached(members: int) -> None:
    """k of n is enough for a consensus of k / n, whatever k and n, and k - 1 is not; a tie holds even where half is enough."""
    for needed in range(1, members + 1):
        made = config(calibrate=False, consensus=needed / members)
        verdicts = [ask([U] * ups + [D] * (members - ups), made=made)["verdict"] for ups in range(members + 1)]
        for ups, verdict in enumerate(verdicts):
            most = max(ups, members - ups)
            assert verdict == ("agreed" if most >= needed and 2 * most != members else "no_consensus")


@pytest.mark.parametrize(("volatility", "p", "verdict"), [
    (0.05, U, "agreed"), (0.0501, U, "volatile"), (NAN, U, "volatile"), (math.inf, D, "volatile"), (0.3, 0.71, "agreed"), (0.3, 0.7, "volatile"),
    (0.3, 0.29, "agreed"), (0.0, 0.5001, "agreed"), (NAN, 0.9, "agreed"),
])
def test_high_volatility_asks_for_confidence(volatility: float, p: float, verdict: str) -> None:
    vote = ask([p], volatility)
    assert vote["verdict"] == verdict
    assert vote["direction"] == (0 if verdict == "volatile" else 1 if p > 0.5 else -1)


def test_members_that_are_only_shown() -> None:
    vote = ask([U, U, U, 0.1], votes=[True, True, True, False])
    assert (vote["verdict"], vote["present"], vote["agreeing"]) == ("agreed", 3, 3)
    assert vote["member_p"][3] == 0.1 and vote["member_weight"][3] == 0.0 and vote["p_up"] == pytest.approx(0.6)
    assert ask([N, U, U, U], votes=[True, True, False, False])["verdict"] == "agreed"  # half of those that may vote are there
    assert ask([U, U], votes=[False, False])["verdict"] == "disabled"
    for label in ("RESEARCH_ONLY", "DISABLE_DEFAULT"):
        vote = ask([U] * 4, made=config(calibrate=False, forecast=label))
        assert (vote["verdict"], vote["direction"], vote["present"], vote["p_up"]) == ("disabled", 0, 4, pytest.approx(0.6))


def test_the_columns_are_those_of_votes() -> None:
    rows = VOTES.empty(1)
    for name, values in ask([U, D, N, U]).items():
        rows[name] = VERDICTS.index(values) if name == "verdict" else values
    forgotten = Ensemble(RAW, 1).step(np.array([FORGET]), np.ones((1, 1)), np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int64), 0)
    assert all(len(values) == 0 for values in forgotten.values())  # before any symbol is known
    with pytest.raises(ValueError, match="1 to 8"):
        Ensemble(RAW, 9)
    with pytest.raises(ValueError, match="4 members"):
        run(Ensemble(RAW, 4), random_events(1, members=3))
    with pytest.raises(ValueError, match="4 members"):
        Ensemble(RAW, 3).restore(Ensemble(RAW, 4).snapshot())


@LAW
@given(SEED, st.booleans(), st.sampled_from([0.0, 0.1, 2.0]), st.integers(1, MEMBERS_MAX))
def test_it_is_the_reference(seed: int, calibrate: bool, rate: float, members: int) -> None:
    events = random_events(seed, members=members)
    votes = np.random.default_rng(seed).uniform(size=members) < 0.8
    made = config(calibrate=calibrate, learning_rate=rate, consensus=0.6)
    ensemble, reference = Ensemble(made, members, votes), Reference(made, members, votes.tolist())
    out = run(ensemble, events)
    expected = reference.run(events)
    for name in ("verdict", "direction", "present", "agreeing"):
        assert out[name].tolist() == [row[name] for row in expected]
    for name in ("p_up", "confidence", "member_p", "member_weight"):
        np.testing.assert_allclose(out[name], [row[name] for row in expected], rtol=0, atol=1e-12)


def test_the_random_events_reach_every_verdict() -> None:
    seen = {VERDICTS[v] for seed in range(6) for v in run(Ensemble(RAW, 4), random_events(seed))["verdict"]}
    assert seen == set(VERDICTS) - {"disabled"}


@LAW
@given(SEED)
def test_a_vote_explains_itself(seed: int) -> None:
    """Weights of those present sum to 1 and give p_up; the others have none; a direction is the side of p_up."""
    out = run(Ensemble(config(learning_rate=1.0), 4), random_events(seed))
    spoke = out["present"] > 0
    np.testing.assert_array_equal(out["member_weight"] > 0, ~np.isnan(out["member_p"]))
    np.testing.assert_allclose(out["member_weight"].sum(axis=1), spoke * 1.0, atol=1e-12)
    np.testing.assert_allclose(np.nansum(out["member_weight"] * out["member_p"], axis=1)[spoke], out["p_up"][spoke], atol=1e-12)
    traded = out["direction"] != 0
    np.testing.assert_array_equal(traded, out["verdict"] == VERDICTS.index("agreed"))
    np.testing.assert_array_equal(out["direction"][traded], np.sign(out["p_up"][traded] - 0.5).astype(int))


@LAW
@given(SEED, st.lists(st.integers(0, 300), max_size=8), st.integers(0, 300))
@example(3, list(range(1, 300)), 150)
def test_batch_and_resume(seed: int, cuts: list[int], stop: int) -> None:
    events = random_events(seed)
    whole = run(Ensemble(config(), 4), events)
    same_bits(run(Ensemble(config(), 4), events, sorted(cuts)), whole)
    first = Ensemble(config(), 4)
    head = {name: values[:stop] for name, values in events.items()}
    before = run(first, head)
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    run(first, events)  # a snapshot does not change with later steps
    assert pickle.dumps(kept) == saved
    second = Ensemble(config(), 4)
    second.restore(pickle.loads(saved))
    tail = {name: values[stop:] for name, values in events.items()}
    after = second.step(*(tail[name] for name in ("kinds", "p", "up", "volatility", "symbols")), 3)
    same_bits({name: np.concatenate([before[name], after[name]]) for name in after}, whole)


@LAW
@given(SEED, st.integers(0, 300))
def test_prefix(seed: int, cut: int) -> None:
    events = random_events(seed)
    poisoned = {name: values.copy() for name, values in events.items()}
    poisoned["p"][cut:] = 1.0 - poisoned["p"][cut:]
    poisoned["up"][cut:] = 1 - poisoned["up"][cut:]
    votes = int((events["kinds"][:cut] == PREDICT).sum())
    whole = run(Ensemble(config(), 4), events)
    same_bits({name: values[:votes] for name, values in run(Ensemble(config(), 4), poisoned).items()},
              {name: values[:votes] for name, values in whole.items()})


def test_symbols_share_calibration_and_nothing_else() -> None:
    events = random_events(5, symbols=2)
    mine = events["symbols"] == 1
    alone = {name: values[mine] for name, values in events.items()}
    asked = events["symbols"][events["kinds"] == PREDICT] == 1
    for made, same in ((RAW, True), (config(), False)):
        both = {name: values[asked] for name, values in run(Ensemble(made, 4), events).items()}
        assert np.array_equal(both["p_up"], run(Ensemble(made, 4), alone)["p_up"], equal_nan=True) == same


def duel(p: Any, up: Any, **changes: Any) -> dict[str, Any]:
    """Each bar is asked for and then its label is learned: the weights are those before the label."""
    n = len(up)
    kinds = np.tile([PREDICT, LEARN], n)
    events = {"kinds": kinds, "p": np.repeat(p, 2, axis=0), "up": np.repeat(up, 2), "volatility": np.full(2 * n, CALM),
              "symbols": np.zeros(2 * n, np.int64)}
    return run(Ensemble(config(**changes), p.shape[1]), events)


def clipped(p: Any, up: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.minimum(1.0, -np.log(np.where(up, p, 1.0 - p)))


@LAW
@given(SEED, st.integers(2, MEMBERS_MAX), st.sampled_from([0.05, 0.3, 1.5]), st.booleans())
def test_regret_is_within_the_bound_of_hedge(seed: int, k: int, rate: float, turning: bool) -> None:
    """Against every mixture near one member that keeps the floor: KL(u, even) / rate + rate * n / 8; and no weight below the floor."""
    rng = np.random.default_rng(seed)
    n = 400
    p, up = rng.uniform(size=(n, k)), rng.integers(0, 2, n)
    good = (np.arange(n) < n // 2) if turning else np.ones(n, bool)
    p[good, 0] = np.where(up[good], 0.8, 0.2)  # right, and with `turning` later wrong
    p[~good, 0] = np.where(up[~good], 0.2, 0.8)
    weights = duel(p, up, calibrate=False, learning_rate=rate)["member_weight"][:, :k]
    assert weights.min() >= WEIGHT_MIN * (1 - 1e-12)
    losses = clipped(p, up[:, None])
    suffered = (weights * losses).sum()
    for member in range(k):
        u = np.full(k, WEIGHT_MIN)
        u[member] += 1 - k * WEIGHT_MIN
        divergence = (u * np.log(u * k)).sum()
        assert suffered <= losses.sum(axis=0) @ u + divergence / rate + rate * n / 8 + 1e-9


def test_the_vote_itself_is_as_good_as_the_bound_where_nothing_is_clipped() -> None:
    """Log loss is convex: that of the weighted probability is at most the weighted loss. The best member is not known beforehand."""
    rng = np.random.default_rng(7)
    n, k, rate = 4000, 4, 0.1
    truth = 1 / (1 + np.exp(-rng.normal(0, 0.35, n)))
    up = (rng.uniform(size=n) < truth).astype(np.int64)
    p = np.clip(np.column_stack([truth, np.full(n, 0.5), 1 - truth, rng.uniform(0.4, 0.6, n)]), 0.38, 0.62)
    out = duel(p, up, calibrate=False, learning_rate=rate)
    best = clipped(p, up[:, None]).sum(axis=0).min()
    assert clipped(out["p_up"], up).sum() <= best + math.log(k) / rate + rate * n / 8 + (k - 1) * WEIGHT_MIN * n
    assert clipped(out["p_up"], up).sum() < clipped(np.full(n, 0.5), up).sum()
    assert out["member_weight"][-1, 0] > 0.9 and out["member_weight"][0, 0] == 0.25


def test_a_member_comes_back() -> None:
    n = 600
    up = np.arange(n) % 2
    right, wrong = np.where(up, 0.7, 0.3), np.where(up, 0.3, 0.7)
    first = np.arange(n) < 500
    p = np.column_stack([np.where(first, right, wrong), np.where(first, wrong, right)])
    weight = duel(p, up, calibrate=False)["member_weight"][:, 1]
    assert weight[500] == pytest.approx(WEIGHT_MIN) and weight[-1] > 0.8


def test_who_abstains_keeps_its_weight() -> None:
    rng = np.random.default_rng(1)
    n = 200
    up = rng.integers(0, 2, n)
    p = np.column_stack([np.where(up, 0.7, 0.3), np.where(up, 0.3, 0.7), np.full(n, NAN), np.full(n, 0.5)])
    p[-1, 2] = 0.5
    out = duel(p, up, calibrate=False)
    assert out["member_weight"][-1, 2] == pytest.approx(0.25, abs=1e-12) and out["member_weight"][-1, 1] < 0.02
    alone = np.full((n, 4), NAN)
    alone[:, 1] = p[:, 1]
    alone[-1] = 0.5
    assert duel(alone, up, calibrate=False)["member_weight"][-1, :4] == pytest.approx([0.25] * 4, abs=1e-12)  # nobody to compare with


def test_those_at_the_floor_stay_there_among_themselves() -> None:
    n = 800
    up = np.arange(n) % 2
    right, wrong = np.where(up, 0.7, 0.3), np.where(up, 0.3, 0.7)
    p = np.column_stack([right, wrong, wrong, wrong])
    p[500:, [0, 3]] = NAN  # the two that are left are wrong alike, and then one is right
    p[700:-1, 1] = right[700:-1]
    p[-1] = right[-1]
    for votes in (None, np.array([True, True, True, False])):
        made = Ensemble(RAW, 4, votes)
        events = {"kinds": np.tile([PREDICT, LEARN], n), "p": np.repeat(p, 2, axis=0), "up": np.repeat(up, 2),
                  "volatility": np.full(2 * n, CALM), "symbols": np.zeros(2 * n, np.int64)}
        weights = run(made, events)["member_weight"]
        assert weights[699, 1:3].tolist() == pytest.approx([0.5, 0.5]) and np.isfinite(weights).all()
        floor = [WEIGHT_MIN] * (3 if votes is None else 2)
        assert weights[-1, 1 : 1 + len(floor)].tolist() == pytest.approx(floor, rel=1e-9)
