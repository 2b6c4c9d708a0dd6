"""The signal validator, layer by layer, just inside and just outside each bound; its configuration; the quality of signals over time."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from operators.strategies.validator import Quality, Validator, signal_quality
from schemas.config_models import ValidatorConfig
from schemas.errors import UserError
from schemas.tables import ENTER_LONG, ENTER_SHORT, Rows
from schemas.tables_models import LAYERS, P_STOPPED, P_WARMING, SHADOW_ROLE
from tests.validator_tapes import (
    CODE,
    DAY,
    HOUR,
    MINUTE,
    MODELS,
    NOT_APPLICABLE,
    OFF,
    PASSED,
    REFUSED,
    START,
    STRATEGIES,
    Tape,
    bar,
    entry,
    frames,
    out_,
    run,
    said,
    score,
    tape,
)


def ask(config: ValidatorConfig, rows: Tape, returns: bool = False) -> tuple[Rows, Rows]:
    return run(Validator(config, STRATEGIES, MODELS, returns), frames(rows))


def last(config: ValidatorConfig, layer: str, rows: Tape, returns: bool = False) -> tuple[int, float]:
    """Verdict and measurement of the last entry in one layer; the other layers are off."""
    validations, signals = ask(config, rows, returns)
    row, at = validations[-1], LAYERS.index(layer)
    assert list(np.delete(row["verdicts"], at)) == [NOT_APPLICABLE] * 4 and np.isnan(np.delete(row["observed"], at)).all()
    assert bool(row["passed"]) == (row["verdicts"][at] != REFUSED) == (signals[-1]["strength"] != -1.0)
    return int(row["verdicts"][at]), float(row["observed"][at])


def prices(seed: int, n: int, deviation: float = 0.001) -> Any:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, deviation, n)))


def series(closes: Iterable[float], symbol: int = 0, **more: Any) -> list[dict[str, Any]]:
    """A bar a minute, at tape positions 0, 10, 20, … plus the symbol."""
    return [bar(10 * k + symbol, float(close), symbol, **more) for k, close in enumerate(closes)]


def edges(layer: str, config: Callable[[float], ValidatorConfig], rows: Tape, expected: float, least: bool, returns: bool = False) -> None:
    """Just inside and just outside the bound, which is what a plain computation says is measured."""
    inside, outside = (expected * (1 - 1e-9), expected * (1 + 1e-9)) if least else (expected * (1 + 1e-9), expected * (1 - 1e-9))
    assert last(config(inside), layer, rows, returns) == (PASSED, pytest.approx(expected, rel=1e-12))
    assert last(config(outside), layer, rows, returns) == (REFUSED, pytest.approx(expected, rel=1e-12))


def hits(right: int, wrong: int, first: int = 100) -> list[dict[str, Any]]:
    return [score(first + k, int(k < right)) for k in range(right + wrong)]


def test_statistics() -> None:
    rows = tape(series([100.0]), [entry(1000)], hits(60, 40))
    edges("statistics", lambda bound: replace(OFF, model="logit", hits_min=bound), rows, 0.6, least=True)
    assert last(replace(OFF, model="logit", hits_min=0.6), "statistics", rows) == (PASSED, 0.6)


def test_statistics_say_nothing_without_labels_enough_or_a_model() -> None:
    strict = replace(OFF, model="logit", hits_min=0.9)
    assert last(strict, "statistics", tape(series([100.0]), [entry(1000)], hits(0, 99))) == (NOT_APPLICABLE, 0.0)
    assert last(strict, "statistics", tape(series([100.0]), [entry(1000)], hits(0, 100))) == (REFUSED, 0.0)
    none = last(replace(strict, labels_min=0), "statistics", tape(series([100.0]), [entry(1000)]))
    assert none[0] == NOT_APPLICABLE and math.isnan(none[1])
    verdict, observed = last(replace(strict, model=""), "statistics", tape(series([100.0]), [entry(1000)], hits(0, 100)))
    assert verdict == NOT_APPLICABLE and math.isnan(observed)


def test_statistics_are_of_the_active_model_and_of_labels_with_a_direction() -> None:
    noise = [*(score(50, 0, model=CODE - 1) for _ in range(500)), *(score(50, 0, role=SHADOW_ROLE) for _ in range(500)),
             *(score(50, -1) for _ in range(500)), *(score(1001, 0) for _ in range(500))]  # the last come after the signal
    rows = tape(series([100.0]), [entry(1000)], [*hits(70, 30), *noise])
    assert last(replace(OFF, model="logit", hits_min=0.5), "statistics", rows) == (PASSED, 0.7)


@pytest.mark.parametrize(("hours", "share"), [(719, 0.0), (720, 1.0)])
def test_statistics_forget_what_is_older_than_the_window(hours: int, share: float) -> None:
    """A hundred wrong labels in one hour and a hundred right ones `hours` later, with a window of 30 days."""
    later = [score(500 + k, 1, START + hours * HOUR) for k in range(100)] if share else []
    rows = tape(series([100.0]), [entry(1000, ts_event_ns=START + hours * HOUR)], [*(score(100 + k, 0, START) for k in range(100)), *later])
    assert last(replace(OFF, model="logit", hits_min=0.5), "statistics", rows) == (PASSED if share else REFUSED, share)


def test_statistics_take_labels_that_come_late_and_out_of_order() -> None:
    """The newest event time counts, a label's as well as a signal's; one older than the window neither counts nor wipes out another."""
    right = [score(100 + k, 1, START + 720 * HOUR) for k in range(100)]
    old = [score(50 + k, 0, START) for k in range(50)]
    late = [score(300 + k, 0, START) for k in range(50)]
    inside = [score(400 + k, 0, START + HOUR) for k in range(100)]
    config = replace(OFF, model="logit", hits_min=0.5)
    for signal in (entry(1000, ts_event_ns=START), entry(1000, ts_event_ns=START + 720 * HOUR)):
        assert last(config, "statistics", tape(series([100.0]), [signal], [*old, *right, *late])) == (PASSED, 1.0)
        assert last(config, "statistics", tape(series([100.0]), [signal], [*old, *right, *late, *inside])) == (PASSED, 0.5)


def test_regime() -> None:
    closes = prices(1, 80)
    expected = float(np.std(np.diff(np.log(closes[-61:])), ddof=1)) * math.sqrt(365 * DAY / MINUTE)
    edges("regime", lambda bound: replace(OFF, volatility_max=bound), tape(series(closes), [entry(790)]), expected, least=False)


def test_regime_needs_a_full_window_and_looks_at_the_signals_own_timeframe() -> None:
    verdict, observed = last(replace(OFF, volatility_max=1e-6), "regime", tape(series(prices(1, 60)), [entry(590)]))
    assert verdict == NOT_APPLICABLE and math.isnan(observed)
    hours = series(prices(2, 61), interval_ns=HOUR)
    mixed = tape([*hours, *series(prices(1, 61)), *series(prices(3, 61, 0.1), bar_kind=1)], [entry(600, interval_ns=HOUR)])
    alone = tape(hours, [entry(600, interval_ns=HOUR)])
    on = replace(OFF, volatility_max=1.0)
    assert last(on, "regime", mixed) == last(on, "regime", alone)


def test_size() -> None:
    rows = tape([bar(0, 100.0, notional=123_456.0)], [entry(0)])
    edges("size", lambda bound: replace(OFF, participation_max=bound), rows, 10_000 / 123_456, least=False)


def test_size_where_the_recording_has_no_notional() -> None:
    config = replace(OFF, participation_max=0.1)
    derived = tape([bar(0, 100.0, notional=0.0, volume=3000.0, high=104.0, low=96.0)], [entry(0)])
    assert last(config, "size", derived) == (PASSED, pytest.approx(10_000 / 300_000))
    assert last(config, "size", tape([bar(0, 100.0, notional=0.0, volume=0.0)], [entry(0)])) == (REFUSED, math.inf)
    quotes = tape([bar(0, 100.0, notional=0.0, volume=0.0, bid=99.0, ask=101.0)], [entry(0)])
    verdict, observed = last(config, "size", quotes)
    assert verdict == NOT_APPLICABLE and math.isnan(observed)
    assert last(replace(config, notional=0.0), "size", derived)[0] == NOT_APPLICABLE


def correlated(seed: int = 5, n: int = 80) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    a = random.normal(0, 0.001, n)
    return 100 * np.exp(np.cumsum(a)), 50 * np.exp(np.cumsum(a + random.normal(0, 0.0005, n)))


def r(a: Any, b: Any) -> float:
    return float(np.corrcoef(np.diff(np.log(a)), np.diff(np.log(b)))[0, 1])


def test_correlation() -> None:
    a, b = correlated()
    rows = tape([*series(a), *series(b, 1)], [entry(5, 1), entry(791, 0)])
    edges("correlation", lambda bound: replace(OFF, correlation_max=bound), rows, r(a[-61:], b[-61:]), least=False)


@pytest.mark.parametrize(("held", "new", "sign"), [(ENTER_LONG, ENTER_SHORT, -1), (ENTER_SHORT, ENTER_LONG, -1), (ENTER_SHORT, ENTER_SHORT, 1)])
def test_correlation_is_that_of_the_positions(held: int, new: int, sign: int) -> None:
    """A short beside a long of the same kind is a hedge."""
    a, b = correlated()
    rows = tape([*series(a), *series(b, 1)], [entry(5, 1, action=held), entry(791, 0, action=new)])
    assert last(replace(OFF, correlation_max=0.5), "correlation", rows) == (PASSED if sign < 0 else REFUSED, pytest.approx(sign * r(a[-61:], b[-61:])))


def test_correlation_is_the_largest_with_what_the_strategy_holds() -> None:
    a, b = correlated()
    c = prices(9, 80)
    bars = [*series(a), *series(b, 1), *series(c, 2)]
    config = replace(OFF, correlation_max=0.999)
    both = last(config, "correlation", tape(bars, [entry(5, 1), entry(5, 2), entry(792)]))
    assert both == (PASSED, pytest.approx(max(r(a[-61:], b[-61:]), r(a[-61:], c[-61:]))))
    one = last(config, "correlation", tape(bars, [entry(5, 1), entry(5, 2), out_(10, 1), entry(792)]))
    assert one == (PASSED, pytest.approx(r(a[-61:], c[-61:])))
    nothing: list[list[dict[str, Any]]] = [
        [], [entry(5, 0)], [entry(5, 1, strategy=1)], [entry(5, 1), out_(6, 1)], [entry(5, 1, strength=0.0)]]
    for signals in nothing:  # none, itself, another strategy's, closed, lost to another strategy
        verdict, observed = last(config, "correlation", tape(bars, [*signals, entry(792)]))
        assert verdict == NOT_APPLICABLE and math.isnan(observed)


def test_a_refused_entry_is_not_held() -> None:
    a, b = correlated()
    rows = tape([*series(a, notional=1.0), *series(b, 1)], [entry(780, 0), entry(791, 1)])
    validations, signals = ask(replace(OFF, correlation_max=0.5, participation_max=0.1), rows)
    assert list(signals["strength"]) == [-1.0, 1.0] and list(validations["passed"]) == [0, 1]


def test_correlation_is_over_the_closes_that_both_have() -> None:
    a, b = correlated()
    kept = [k for k in range(80) if k % 4]
    rows = tape([*series(a), *(each for k, each in enumerate(series(b, 1)) if k in kept)], [entry(15, 1), entry(790)])
    common = [k for k in kept if k in range(19, 79)]  # the other's bar at 790 is not known yet
    assert last(replace(OFF, correlation_max=0.999), "correlation", rows) == (PASSED, pytest.approx(r(a[common], b[common])))
    few = tape([*series(a), *series(b[:48], 1)], [entry(15, 1), entry(790)])
    verdict, observed = last(replace(OFF, correlation_max=0.1), "correlation", few)  # 29 returns of 60
    assert verdict == NOT_APPLICABLE and math.isnan(observed)
    enough = tape([*series(a), *series(b[:50], 1)], [entry(15, 1), entry(790)])
    assert last(replace(OFF, correlation_max=0.1), "correlation", enough) == (REFUSED, pytest.approx(r(a[19:50], b[19:50])))


@pytest.mark.parametrize(("hold_ns", "held_bars"), [(0, 15), (40 * MINUTE, 40), (MINUTE // 2, 1)])
def test_cost_without_a_model_that_predicts_returns(hold_ns: int, held_bars: int) -> None:
    closes = prices(1, 80)
    expected = 1e4 * float(np.abs(np.diff(np.log(closes[-61:]))).mean()) * math.sqrt(held_bars)
    rows = tape(series(closes), [entry(790, hold_ns=hold_ns)])
    edges("cost", lambda bound: replace(OFF, cost_bps=bound / 2, edge_min=2.0), rows, expected, least=True)


def test_cost_with_a_model_that_predicts_returns() -> None:
    predictions = [said(700, 0.5), said(780, -0.003), said(780, 0.1, symbol=1), said(785, 0.2, role=SHADOW_ROLE), said(785, 0.3, model=CODE - 1),
                   said(791, 0.4)]
    rows = tape(series(prices(1, 80)), [entry(790)], predictions=predictions)
    edges("cost", lambda bound: replace(OFF, model="logit", cost_bps=bound), rows, 30.0, least=True, returns=True)


def test_cost_where_the_model_abstains_or_predicts_something_else() -> None:
    closes = prices(1, 80)
    config = replace(OFF, model="logit", cost_bps=1.0)
    plain = last(config, "cost", tape(series(closes), [entry(790)]))
    abstains = tape(series(closes), [entry(790)], predictions=[said(700, 0.5), said(780, math.nan, state=P_WARMING)])
    stopped = tape(series(closes), [entry(790)], predictions=[said(700, 0.5, state=P_STOPPED)])
    assert last(config, "cost", abstains, returns=True) == last(config, "cost", stopped, returns=True) == plain
    assert last(config, "cost", tape(series(closes), [entry(790)], predictions=[said(780, 0.9)]), returns=False) == plain


def test_all_layers_are_asked_and_bounds_are_told() -> None:
    a, b = correlated()
    config = ValidatorConfig("logit", 30.0, 0.9, 100, 1e-6, 1e6, 0.1, 0.5, 60, 1e6, 2.0)
    rows = tape([*series(a, notional=1e9), *series(b, 1)], [entry(5, 0), entry(791, 1, slot=1)], hits(1, 99))
    validations, signals = ask(config, rows)
    first, second = validations
    assert first["passed"] and list(first["verdicts"]) == [0, 0, 1, 0, 0]
    assert not second["passed"] and list(second["verdicts"]) == [REFUSED] * 5 and second["slot"] == 1
    assert list(second["bounds"]) == [0.9, 1e-6, 0.1, 0.5, 2e6]
    assert list(signals["strength"]) == [1.0, -1.0]
    for column in ("ts_event_ns", "seq", "symbol", "strategy", "slot"):
        assert (validations[column] == signals[column]).all()


def test_exits_always_pass_and_other_columns_stay() -> None:
    config = replace(OFF, participation_max=1e-9)
    rows = tape(series([100.0]), [out_(10), entry(11, price=5.0), out_(12, slot=0), entry(12, action=ENTER_SHORT, slot=1), entry(13, strength=0.0)])
    before = rows["signals"].copy()
    validations, signals = ask(config, rows)
    assert list(signals["strength"]) == [1.0, -1.0, 1.0, -1.0, 0.0]  # one that lost to another strategy stays what it is
    assert list(validations["seq"]) == [11, 12, 13] and not validations["passed"].any()
    assert (rows["signals"] == before).all()
    signals["strength"] = before["strength"]
    assert (signals == before).all()


def test_a_frame_without_entries_passes_as_it_is() -> None:
    operator = Validator(OFF, STRATEGIES, MODELS)
    for rows in (tape([], []), tape(series([100.0]), []), tape(series([101.0]), [out_(0)])):
        frame = frames(rows)[0]
        assert operator.step(frame) is frame


@pytest.mark.parametrize(("config", "message"), [
    (replace(OFF, model="logti"), 'validator model "logti".*did you mean "?logit'),
    (replace(OFF, hits_min=-0.1), "validator hits_min: -0.1 is below 0"),
    (replace(OFF, volatility_max=math.nan), "validator volatility_max: nan"),
    (replace(OFF, window_days=0.0), "validator window_days: 0"),
    (replace(OFF, correlation_bars=1), "validator correlation_bars: 1 is not from 2"),
])
def test_a_configuration_that_makes_no_sense_is_named(config: ValidatorConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Validator(config, STRATEGIES, MODELS)


def test_a_snapshot_of_another_configuration_and_a_signal_without_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="2 strategies and windows of 21 closes, this operator has 2 and 61"):
        Validator(OFF, STRATEGIES, MODELS).restore(Validator(replace(OFF, correlation_bars=20), STRATEGIES, MODELS).snapshot())
    with pytest.raises(ValueError, match="not among those of the bars so far"):
        ask(OFF, tape([], [entry(0)]))


def test_signal_quality() -> None:
    """Ten labels a day for 60 days: six right in the first 30, five in the others; one without direction a day."""
    days = np.repeat(np.arange(60), 11)
    made = np.tile([1, 1, 1, 1, 1, 2, 0, 0, 0, 0, -1], 60)
    right = np.where(made == 2, days < 30, made)
    rows = signal_quality(right, (19_000 + days) * DAY + np.tile(np.arange(11), 60) * HOUR)
    assert len(rows) == 60 and [row.ts_end_ns for row in rows] == [(19_001 + k) * DAY for k in range(60)]
    assert rows[0] == Quality(19_001 * DAY, 10, 6, 0.6, "APPROVE")
    assert rows[29] == Quality(19_030 * DAY, 300, 180, 0.6, "APPROVE") and rows[59] == Quality(19_060 * DAY, 300, 150, 0.5, "IMPROVE")
    changes = [k for k in range(1, 60) if rows[k].verdict != rows[k - 1].verdict]
    assert changes == [44] and rows[44].share == 0.55  # exactly the bound is not above it


def test_signal_quality_of_gaps_disorder_and_nothing() -> None:
    assert signal_quality([], []) == [] and signal_quality([-1, -1], [0, DAY]) == []
    rows = signal_quality([0, 1, 1], [40 * DAY, 0, 1])
    assert [(row.labels, row.verdict) for row in rows] == [(2, "APPROVE")] * 30 + [(0, "IMPROVE")] * 10 + [(1, "IMPROVE")]
    assert math.isnan(rows[30].share) and rows[40].share == 0.0
    assert len(signal_quality([1], [5], window_days=1.0)) == 1
