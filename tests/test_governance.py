"""Value at risk and expected shortfall against plain counting, certificates that cannot be changed, and the tables of the selector and triggers."""

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.learning.baseline import Baseline
from research.learning.governance import (
    CERTIFIED,
    REFUSED,
    append_certificate,
    assess,
    certificates,
    certify,
    fallback_plan,
    verify_certificates,
)
from research.learning.risk import drawdown, expected_shortfall, period_returns, risk, trades_of, value_at_risk
from research.learning.selector import ALERT, KEEP, ROLLBACK, RULES, TO_RULES, Candidate, Watched, choose, reversion
from research.learning.triggers import History, Observations, Trained, due
from schemas.config_learn import GovernanceConfig, LearnConfig, check_learn
from schemas.errors import PenstockError, UserError
from tests.test_evaluation import MINUTE, made

DAY = 86_400 * 10**9
EASY = GovernanceConfig(cost_bps=1.0, period="1h", drawdown_max=0.9, var_95_max=0.9, var_99_max=0.9, es_95_max=0.9, es_99_max=0.9,
                        calibration_error_max=0.5)


def test_value_at_risk_and_shortfall_of_one_to_a_hundred() -> None:
    """Losses of 1 to 100 hundredths: 95 of 100 are at most 95, and the worst five are 96 to 100."""
    returns = -np.arange(1, 101) / 100.0
    shuffled = np.random.default_rng(0).permutation(returns)
    assert value_at_risk(shuffled, 0.95) == 0.95
    assert value_at_risk(shuffled, 0.99) == 0.99
    assert expected_shortfall(shuffled, 0.95) == pytest.approx(0.98)
    assert expected_shortfall(shuffled, 0.99) == pytest.approx(1.0)
    # 30 returns: 5 % are one and a half of them
    assert expected_shortfall(-np.arange(1, 31) / 1.0, 0.95) == pytest.approx((30 + 0.5 * 29) / 1.5)
    assert value_at_risk(np.full(10, 0.02), 0.95) == -0.02


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=80), st.sampled_from([0.9, 0.95, 0.99]))
def test_risk_laws(values: list[float], level: float) -> None:
    returns = np.array(values)
    var, es = value_at_risk(returns, level), expected_shortfall(returns, level)
    # the definition: the smallest loss that at least `level` of the losses do not exceed
    losses = sorted(-returns)
    assert var == next(x for x in losses if sum(y <= x for y in losses) >= level * len(losses) - 1e-9)
    assert es >= var - 1e-12
    assert es <= max(losses) + 1e-12
    # Rockafellar and Uryasev 2000: the shortfall is the least of v + E[(L - v)+] / (1 - level), and is reached at one of the losses
    assert es == pytest.approx(min(v + sum(max(x - v, 0.0) for x in losses) / len(losses) / (1 - level) for v in losses), abs=1e-9)
    assert expected_shortfall(returns - 0.1, level) == pytest.approx(es + 0.1)


def test_drawdown_counts_from_the_start() -> None:
    assert drawdown(np.array([-0.1, -0.1, 0.5, -0.3, 0.1, -0.2])) == pytest.approx(0.4)
    assert drawdown(np.array([-0.1, 0.05])) == pytest.approx(0.1)
    assert drawdown(np.array([0.1, 0.2])) == 0.0


def test_trades_against_a_plain_loop() -> None:
    o = made(900, symbols=3)
    found = trades_of(o, 10.0, 0.05)
    want = []
    for code in range(3):
        free_at = -1
        for k in range(len(o)):
            if o.symbol[k] == code and abs(o.score[k] - 0.5) >= 0.05 and o.score[k] != 0.5 and o.ts_ns[k] >= free_at:
                side = 1 if o.score[k] > 0.5 else -1
                want.append((int(o.ts_end_ns[k]), code, side * (math.exp(o.return_[k]) - 1) - 0.002))
                free_at = int(o.ts_end_ns[k])
    want.sort()
    assert len(want) > 20
    assert [(int(t), int(s)) for t, s in zip(found.ts_exit_ns, found.symbol, strict=True)] == [(t, s) for t, s, _ in want]
    np.testing.assert_allclose(found.net, [n for _, _, n in want], atol=1e-15)
    returns = period_returns(found, int(o.ts_ns.min()), int(o.ts_end_ns.max()), 60 * MINUTE)
    assert returns.sum() == pytest.approx(sum(n for _, _, n in want) / 3)
    assert len(returns) == int(o.ts_end_ns.max() // (60 * MINUTE)) + 1


def test_no_forecast_is_no_trade() -> None:
    o = made(300)
    figures, returns = risk(o.saying(np.full(300, 0.5), "flat"), 10.0, 60 * MINUTE)
    assert figures.trades == 0 and figures.net == 0.0 and math.isnan(figures.win_rate) and np.all(returns == 0.0)
    assert risk(o.where(np.zeros(300, bool)), 1.0, DAY)[0].periods == 0


CASES = {
    "rows": {"rows_min": 2001}, "periods": {"periods_min": 100}, "drawdown": {"drawdown_max": 0.0}, "var_95": {"var_95_max": 0.0},
    "var_99": {"var_99_max": 0.0}, "es_95": {"es_95_max": 0.0}, "es_99": {"es_99_max": 0.0}, "uplift": {"uplift_min": 0.9},
    "accuracy": {"accuracy_min": 0.95}, "calibration": {"calibration_error_max": 0.0},
}


@pytest.mark.parametrize("name", CASES)
def test_each_threshold_refuses_alone(name: str) -> None:
    o = made()
    assert assess(o, None, EASY).passed
    found = assess(o, None, replace(EASY, **CASES[name]))
    assert [c.name for c in found.checks if not c.passed] == [name]


def test_thresholds_hold_exactly_at_their_bound() -> None:
    o = made()
    drawn = assess(o, None, EASY).risk.drawdown
    assert assess(o, None, replace(EASY, drawdown_max=drawn)).passed
    assert not assess(o, None, replace(EASY, drawdown_max=np.nextafter(drawn, 0))).passed


def test_uplift_is_over_the_rules() -> None:
    """A rule that is always long of a market that falls a hundredth a minute and then stands: what it loses is what the model is above it."""
    o = made()
    ts = np.arange(o.ts_ns.min(), o.ts_end_ns.max() + 1, MINUTE)
    falling = Baseline("always long", ts, np.zeros(len(ts), np.int64), 100 * 0.99 ** np.minimum(np.arange(len(ts)), 10), np.ones(len(ts)))
    found, alone = assess(o, falling, EASY), assess(o, None, EASY)
    periods = alone.risk.periods
    lost = 10 * 0.01 + 1 / 1e4  # ten bars and one entry at one hundredth of a percent
    assert found.uplift == pytest.approx(alone.uplift + lost / periods)
    assert found.baseline is not None and found.baseline.net == pytest.approx(-lost) and found.baseline.trades == 1
    assert found.uplift_low < found.uplift < found.uplift_high


def test_what_cannot_be_told_has_not_passed() -> None:
    found = assess(made(50).saying(np.full(50, 0.5), "flat"), None, replace(EASY, rows_min=1, periods_min=1))
    assert [c.name for c in found.checks if not c.passed] == ["accuracy"]


def test_a_certificate_says_everything_and_is_chained(tmp_path: Path) -> None:
    path = tmp_path / "certificates.jsonl"
    o = made()
    plan = fallback_plan(3, ("momentum",), 0.45)
    one = certify(path, {"name": "trees", "version": 4}, o, None, EASY, plan, 1_700)
    two = certify(path, {"name": "trees", "version": 5}, o, None, replace(EASY, uplift_min=0.9), plan, 1_800)
    assert (one["verdict"], two["verdict"]) == (CERTIFIED, REFUSED)
    assert two["previous"] == one["digest"] and (one["number"], two["number"]) == (1, 2)
    assert {c["name"] for c in one["checks"]} == set(CASES)
    assert "version 3" in one["fallback"][1] and "momentum" in one["fallback"][2]
    assert one["limits"]["drawdown_max"] == 0.9 and one["risk"]["trades"] > 0
    assert verify_certificates(path) == {"ok": True, "certificates": 2, "head": two["digest"], "broken": 0, "why": ""}
    assert certificates(path) == [one, two]
    # the digest again, by the definition
    from blake3 import blake3
    body = {k: v for k, v in two.items() if k != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert blake3((one["digest"] + text).encode()).hexdigest() == two["digest"]


def _chain(path: Path, n: int = 3) -> list[str]:
    for k in range(n):
        append_certificate(path, {"model": {"name": "m"}, "value": 0.1 * k, "nothing": float("nan")})
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(("change", "line", "why"), [
    (lambda lines: [lines[0], lines[1].replace("0.1", "0.2"), lines[2]], 2, "other contents"),
    (lambda lines: [lines[0], lines[2]], 2, "does not follow"),
    (lambda lines: [lines[1], lines[0], lines[2]], 1, "does not follow"),
    (lambda lines: [lines[0], lines[0], lines[1]], 2, "does not follow"),
    (lambda lines: [lines[0], "{}\n", lines[2]], 2, "not a certificate"),
    (lambda lines: [lines[0], "[]\n", lines[2]], 2, "not a certificate"),
    (lambda lines: [lines[0], "\n", lines[2]], 2, "not a certificate"),
])
def test_any_change_is_found_and_not_built_on(tmp_path: Path, change, line: int, why: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(change(_chain(path))))
    found = verify_certificates(path)
    assert (found["ok"], found["broken"]) == (False, line) and why in found["why"]
    assert len(certificates(path)) == line - 1
    with pytest.raises(PenstockError, match=f"line {line}"):
        append_certificate(path, {"x": 1})


def test_a_torn_line_is_said_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    lines = _chain(path)
    path.write_text("".join(lines[:2]) + lines[2][:30])
    assert not verify_certificates(path)["ok"]
    append_certificate(path, {"x": 1})
    assert verify_certificates(path)["certificates"] == 3
    assert verify_certificates(tmp_path / "none.jsonl")["ok"]


def _many(path: Path) -> None:
    for k in range(25):
        append_certificate(path, {"k": k})


def test_processes_that_certify_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_many, args=(path,)) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    found = verify_certificates(path)
    assert found["ok"] and found["certificates"] == 75


def candidate(name: str, uplift: float, low: float = 0.001, rows: int = 2000, accuracy: float = 0.55, certified: bool = True) -> Candidate:
    return Candidate(name, rows, uplift, low, accuracy, certified)


@pytest.mark.parametrize(("given_", "settings", "want"), [
    ([], {}, RULES),
    ([candidate("a", 0.01)], {}, "a"),
    ([candidate("a", 0.01), candidate("b", 0.02)], {}, "b"),
    ([candidate("a", 0.01, rows=999)], {}, RULES),
    ([candidate("a", 0.01, certified=False)], {}, RULES),
    ([candidate("a", 0.01, low=-0.001)], {}, RULES),
    ([candidate("a", 0.01, low=-0.001)], {"sure": False}, "a"),
    ([candidate("a", 0.01, low=math.nan)], {}, RULES),
    ([candidate("a", math.nan)], {}, RULES),
    ([candidate("a", 0.01, accuracy=0.49)], {}, RULES),
    ([candidate("a", 0.01)], {"uplift_min": 0.01}, "a"),
    ([candidate("a", 0.0099)], {"uplift_min": 0.01}, RULES),
    ([candidate("a", 0.01), candidate("b", 0.012)], {"incumbent": "a", "margin": 0.005}, "a"),
    ([candidate("a", 0.01), candidate("b", 0.016)], {"incumbent": "a", "margin": 0.005}, "b"),
    ([candidate("a", 0.01, accuracy=0.4), candidate("b", 0.012)], {"incumbent": "a", "margin": 0.005}, "b"),
    ([candidate("a", 0.01), candidate("b", 0.01)], {"incumbent": "b"}, "b"),
    ([candidate("a", 0.01), candidate("b", 0.01)], {}, "a"),
])
def test_selector(given_: list[Candidate], settings: dict[str, object], want: str) -> None:
    found = choose(given_, **settings)  # type: ignore[arg-type]
    assert found.name == want
    assert [n for n, _ in found.why] == [c.name for c in given_] and all(reason for _, reason in found.why)
    assert [n for n, reason in found.why if reason == "chosen"] == ([want] if want != RULES else [])


BASE = Watched(500, 0.55, 0.56, previous=2, previous_accuracy=0.54, p_worse=0.6)


@pytest.mark.parametrize(("seen", "want"), [
    (BASE, KEEP),
    (replace(BASE, rows=199, accuracy=0.1), KEEP),
    (replace(BASE, accuracy=0.4499), ROLLBACK),
    (replace(BASE, accuracy=0.45), KEEP),
    (replace(BASE, accuracy=math.nan), ROLLBACK),
    (replace(BASE, accuracy=0.44, previous_accuracy=0.44), TO_RULES),
    (replace(BASE, accuracy=0.44, previous_accuracy=math.nan), TO_RULES),
    (replace(BASE, accuracy=0.44, previous=0), TO_RULES),
    (replace(BASE, p_worse=0.049), ROLLBACK),
    (replace(BASE, p_worse=0.05), KEEP),
    (replace(BASE, p_worse=0.01, previous=0), KEEP),
    (replace(BASE, p_worse=math.nan), KEEP),
    (replace(BASE, accuracy=0.46, trained_accuracy=0.62), ALERT),
    (replace(BASE, trained_accuracy=math.nan), KEEP),
])
def test_reversion(seen: Watched, want: str) -> None:
    found = reversion(seen, rows_min=200, accuracy_floor=0.45, degraded=0.75, p_max=0.05)
    assert found.action == want and found.why


STATE = Trained(3, 100 * DAY, 0.58, (0.2, 0.6, 0.2))
LIMITS = LearnConfig(rows=5000, pause="6h", recent_rows=500)
QUIET = Observations(rows=100, recent=500, accuracy=0.56, drift_events=1, regimes=(0.2, 0.6, 0.2))


@pytest.mark.parametrize(("seen", "days", "want"), [
    (QUIET, 106.9, []),
    (QUIET, 107.0, ["age"]),
    (replace(QUIET, rows=5000), 101, ["rows"]),
    (replace(QUIET, rows=4999), 101, []),
    (replace(QUIET, accuracy=0.5299), 101, ["decay"]),
    (replace(QUIET, accuracy=0.5301), 101, []),
    (replace(QUIET, accuracy=0.1, recent=499), 101, []),
    (replace(QUIET, accuracy=math.nan), 101, []),
    (replace(QUIET, drift_events=3), 101, ["drift"]),
    (replace(QUIET, regimes=(0.0, 0.39, 0.61)), 101, ["regime"]),
    (replace(QUIET, regimes=(0.0, 0.41, 0.59)), 101, []),
    (replace(QUIET, regimes=(0.0, 0.0, 1.0), recent=10), 101, []),
    (replace(QUIET, manual="Ada asked"), 101, ["manual"]),
    (replace(QUIET, manual="Ada asked", drift_events=9, rows=9000), 120, ["manual", "age", "rows", "drift"]),
])
def test_triggers(seen: Observations, days: float, want: list[str]) -> None:
    now = int(days * DAY)
    found = due(STATE, now, seen, LIMITS)
    assert [t.kind for t in found] == want
    assert all(t.ts_ns == now and t.why and t.observed >= t.bound for t in found)


def test_the_first_version_and_the_pause() -> None:
    assert [t.kind for t in due(None, 5 * DAY, Observations(), LIMITS)] == ["first"]
    hour = 3600 * 10**9
    now = 120 * DAY
    assert due(STATE, now, QUIET, LIMITS, now - 5 * hour) == []
    assert [t.kind for t in due(STATE, now, replace(QUIET, manual="now"), LIMITS, now - 5 * hour)] == ["manual"]
    assert [t.kind for t in due(STATE, now, QUIET, LIMITS, now - 6 * hour)] == ["age"]
    off = LearnConfig(age="0", rows=0, accuracy_drop=0.0, drift_events=0, regime_shift=0.0)
    assert due(STATE, now * 9, replace(QUIET, accuracy=0.0, drift_events=99, regimes=(1.0, 0.0, 0.0)), off) == []


def test_history_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path / "m" / "triggers.jsonl")
    history.append(due(STATE, 120 * DAY, QUIET, LIMITS), 1)
    history.append(due(STATE, 130 * DAY, replace(QUIET, drift_events=4), LIMITS), 2)
    assert [(r["cycle"], r["kind"]) for r in history.read()] == [(1, "age"), (2, "age"), (2, "drift")]
    with history.path.open("a") as file:
        file.write('{"cycle": 3')
    assert len(history.read()) == 3
    history.path.write_text("nonsense\n")
    with pytest.raises(PenstockError, match="line 1"):
        history.read()


@pytest.mark.parametrize(("change", "message"), [
    ({"age": "soon"}, 'learn age: "soon" is not an interval'), ({"evaluate_share": 1.5}, "evaluate_share: 1.5"),
    ({"evaluate_share": 0.6, "shadow_share": 0.3}, "less than a fifth"), ({"p_max": 2.0}, "p_max: 2"),
    ({"watch_rows": 10}, "watch_rows 10"), ({"governance": {"drawdwn_max": 0.1}}, 'did you mean "drawdown_max"'),
    ({"governance": {"period": "1 day"}}, "governance period"),
])
def test_bad_limits(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        check_learn(replace(LearnConfig(), **change))
