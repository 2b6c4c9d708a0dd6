"""Labels: the values of a plain reference, and the laws: any cut, any resume, nothing from the future, nothing before its time."""

import math
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.learners.labels import Labels
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError
from schemas.tables import BARS, Rows
from schemas.tables_models import LABELS, T_HORIZON, T_LOWER, T_UPPER

MINUTE = 60 * 10**9
START = 1_700_000_040 * 10**9  # a whole minute
SYMBOLS = 3
CONFIGS = {
    "forward_return": LabelConfig("forward_return", 15 * MINUTE, threshold=1e-4),
    "one bar": LabelConfig("forward_return", MINUTE),
    "between bars": LabelConfig("forward_return", 150 * 10**9),
    "volatility_scaled": LabelConfig("volatility_scaled", 15 * MINUTE, volatility_bars=20, threshold=0.1),
    "triple_barrier": LabelConfig("triple_barrier", 40 * MINUTE, upper=1.0, lower=0.7, volatility_bars=20),
    "far barriers": LabelConfig("triple_barrier", 70 * MINUTE, upper=2.0, lower=3.0, volatility_bars=5),
    "barriers between bars": LabelConfig("triple_barrier", 150 * 10**9, upper=1.0, lower=1.0, volatility_bars=10),
}


def walk(seed: int, n: int = 500) -> Rows:
    """Random walks of three symbols, of different volatility, with gaps; the bars of a minute become known at different moments, some
    of them at the same tape position."""
    random = np.random.default_rng(seed)
    rows = []
    for symbol in range(SYMBOLS):
        price, minute = 100.0, 0
        for _ in range(n):
            minute += 1 if random.random() < 0.93 else int(random.integers(2, 60))
            first, price = price, price * math.exp(random.normal(0, 0.001 * (symbol + 1)))
            wick = abs(random.normal(0, 0.001 * (symbol + 1), 2))
            rows.append((minute, symbol, first, max(first, price) * (1 + wick[0]), min(first, price) * (1 - wick[1]), price))
    rows.sort()
    out = BARS.empty(len(rows))
    for i, (minute, symbol, first, high, low, close) in enumerate(rows):
        seq = 10 * minute + (0 if random.random() < 0.2 else symbol)
        out[i]["seq"], out[i]["symbol"], out[i]["interval_ns"] = seq, symbol, MINUTE
        out[i]["ts_open_ns"], out[i]["ts_close_ns"] = START + minute * MINUTE, START + (minute + 1) * MINUTE
        out[i]["ts_event_ns"] = START + (minute + 1) * MINUTE + seq % 10 + 7
        out[i]["open"], out[i]["high"], out[i]["low"], out[i]["close"] = first, high, low, close
    return out[np.lexsort((out["symbol"], out["seq"]))]


def reference(bars: Rows, label: LabelConfig) -> list[tuple[int, int, int, float, int]]:
    """(releasing bar, its label's bar, touch, value, up), one bar at a time and with no thought of speed."""
    out = []
    for symbol in range(SYMBOLS):
        mine = [i for i, bar in enumerate(bars) if bar["symbol"] == symbol]
        closes = [float(bars[i]["close"]) for i in mine]
        for k, i in enumerate(mine):
            scale = math.nan
            if label.kind != "forward_return":
                if k < label.volatility_bars:
                    continue
                returns = [math.log(closes[j] / closes[j - 1]) for j in range(k - label.volatility_bars + 1, k + 1)]
                scale = float(np.std(returns, ddof=1)) * math.sqrt(label.horizon_ns / MINUTE)
            due = bars[i]["ts_close_ns"] + label.horizon_ns
            for j in mine[k + 1:]:
                bar, touch = bars[j], T_HORIZON
                if label.kind == "triple_barrier" and bar["ts_open_ns"] < due:
                    if bar["low"] <= closes[k] * (1 - label.lower * scale):
                        touch = T_LOWER
                    elif bar["high"] >= closes[k] * (1 + label.upper * scale):
                        touch = T_UPPER
                if touch == T_HORIZON and bar["ts_close_ns"] < due:
                    continue
                value = {T_UPPER: 1.0, T_LOWER: -1.0, T_HORIZON: 0.0}[touch]
                if label.kind != "triple_barrier":
                    value = math.log(bar["close"] / closes[k]) / (scale if label.kind == "volatility_scaled" else 1.0)
                out.append((j, i, touch, value, int(value > label.threshold)))
                break
    return sorted(out)


def run(bars: Rows, label: LabelConfig, cuts: list[int] = [], operator: Labels | None = None) -> tuple[Rows, Any]:  # noqa: B006
    operator = operator or Labels(label, MINUTE)
    rows, index = [], []
    for a, z in pairwise([0, *sorted(cuts), len(bars)]):
        known = 1 + max((int(s) for s in bars["symbol"][:z]), default=0)
        made, at = operator.step(bars[a:z], known)
        assert len(made) == len(at)
        rows.append(made)
        index.append(at + a)
    return np.concatenate(rows), np.concatenate(index)


MARKET = walk(1)
WHOLE = {name: run(MARKET, label) for name, label in CONFIGS.items()}
every_config = pytest.mark.parametrize("name", CONFIGS)


@every_config
@pytest.mark.parametrize("seed", [1, 2])
def test_labels_are_those_of_the_reference(name: str, seed: int) -> None:
    bars, label = walk(seed), CONFIGS[name]
    rows, index = run(bars, label)
    expected = reference(bars, label)
    assert len(rows) == len(expected) > 1000
    by, of = [e[0] for e in expected], [e[1] for e in expected]
    assert list(index) == by and list(rows["touch"]) == [e[2] for e in expected] and list(rows["up"]) == [e[4] for e in expected]
    np.testing.assert_allclose(rows["value"], [e[3] for e in expected], rtol=1e-9, atol=0)
    for column, made in (("ts_made_ns", "ts_event_ns"), ("made_seq", "seq"), ("price", "close"), ("ts_open_ns", "ts_open_ns")):
        assert (rows[column] == bars[made][of]).all()
    for column, released in (("ts_event_ns", "ts_event_ns"), ("seq", "seq"), ("symbol", "symbol"), ("price_end", "close")):
        assert (rows[column] == bars[released][by]).all()
    assert (rows["label_id"] == label.label_id).all() and (rows["interval_ns"] == MINUTE).all()
    assert (rows["horizon_ns"] == label.horizon_ns).all() and set(rows["kind"]) == {LABELS.field("kind").labels.index(label.kind)}


def test_the_reference_sees_every_end_of_a_triple_barrier() -> None:
    touches = WHOLE["triple_barrier"][0]["touch"]
    assert all((touches == each).sum() > 20 for each in (T_HORIZON, T_UPPER, T_LOWER))


@every_config
def test_nothing_is_released_before_its_horizon(name: str) -> None:
    rows, index = WHOLE[name]
    early = MARKET["ts_close_ns"][index] < rows["ts_open_ns"] + MINUTE + rows["horizon_ns"]
    assert (rows["touch"][early] != T_HORIZON).all() and early.any() == (CONFIGS[name].kind == "triple_barrier")
    assert (rows["ts_event_ns"] > rows["ts_made_ns"]).all() and (rows["seq"] > rows["made_seq"]).all()


@every_config
@given(cuts=st.lists(st.integers(0, len(MARKET)), max_size=10))
def test_batch_law(name: str, cuts: list[int]) -> None:
    rows, index = run(MARKET, CONFIGS[name], cuts)
    assert rows.tobytes() == WHOLE[name][0].tobytes() and list(index) == list(WHOLE[name][1])


@every_config
def test_batches_of_one(name: str) -> None:
    assert run(MARKET, CONFIGS[name], list(range(len(MARKET))))[0].tobytes() == WHOLE[name][0].tobytes()


@every_config
@given(cut=st.integers(0, len(MARKET)))
def test_resume_law(name: str, cut: int) -> None:
    first = Labels(CONFIGS[name], MINUTE)
    before, _ = first.step(MARKET[:cut], SYMBOLS)
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    first.step(MARKET[cut:], SYMBOLS)
    assert pickle.dumps(kept) == saved  # later steps do not change it
    second = Labels(CONFIGS[name], MINUTE)
    second.restore(pickle.loads(saved))
    after, _ = second.step(MARKET[cut:], SYMBOLS)
    assert np.concatenate([before, after]).tobytes() == WHOLE[name][0].tobytes()


@every_config
@given(cut=st.integers(0, len(MARKET)))
def test_prefix_law(name: str, cut: int) -> None:
    """Whatever comes from a bar on, the labels that bars before it release stay what they are."""
    poisoned = MARKET.copy()
    for column in ("open", "high", "low", "close"):
        poisoned[column][cut:] = 1e9
    rows, index = run(poisoned, CONFIGS[name])
    whole, released = WHOLE[name]
    assert rows[index < cut].tobytes() == whole[released < cut].tobytes()


@given(st.integers(60, len(MARKET) - 60))
def test_a_label_is_a_function_of_the_bars_up_to_its_release(at: int) -> None:
    """One bar of the middle is changed: labels whose life, with the bars of their volatility, does not reach it, do not move."""
    label, changed = CONFIGS["triple_barrier"], MARKET.copy()
    changed["low"][at] = 1e-3
    rows, _ = run(changed, label)
    whole, released = WHOLE["triple_barrier"]
    spans = whole["ts_made_ns"] >= changed["ts_event_ns"][at]
    away = (whole["symbol"] != changed["symbol"][at]) | (released < at) | spans
    same = {row.tobytes() for row in rows}
    assert all(row.tobytes() in same for row in whole[away])
    moved = whole[(whole["symbol"] == changed["symbol"][at]) & (released > at) & (whole["ts_made_ns"] < changed["ts_event_ns"][at])]
    assert not any(row.tobytes() in same for row in moved)


def bars_of(*rows: dict[str, float]) -> Rows:
    """Bars of one symbol; a row may name minute, close, high, low; by default a minute after the one before, at 100."""
    out, minute = BARS.empty(len(rows)), -1
    for i, row in enumerate(rows):
        minute = int(row.get("minute", minute + 1))
        close = row.get("close", 100.0)
        out[i]["seq"], out[i]["interval_ns"] = i, MINUTE
        out[i]["ts_open_ns"], out[i]["ts_close_ns"] = minute * MINUTE, (minute + 1) * MINUTE
        out[i]["ts_event_ns"] = out[i]["ts_close_ns"]
        out[i]["close"], out[i]["high"], out[i]["low"] = close, row.get("high", close), row.get("low", close)
    return out


def told(rows: Rows) -> list[tuple[int, int, str, float]]:
    """(made_seq, seq, what ended it, value)."""
    touches = LABELS.field("touch").labels
    return [(int(r["made_seq"]), int(r["seq"]), touches[r["touch"]], float(r["value"])) for r in rows]


def test_a_label_due_in_a_gap_is_released_by_the_first_bar_after_it() -> None:
    bars = bars_of({}, {"close": 101.0}, {"minute": 500, "close": 110.0}, {"close": 120.0})
    rows, _ = run(bars, LabelConfig("forward_return", 2 * MINUTE))
    assert told(rows) == [(0, 2, "horizon", pytest.approx(math.log(1.1))), (1, 2, "horizon", pytest.approx(math.log(110 / 101)))]


UP_DOWN: list[dict[str, float]] = [{}, {"close": 101.0}, {}]  # two returns of ln 1.01 and its negative
BARRIERS = LabelConfig("triple_barrier", 4 * MINUTE, upper=1.0, lower=1.0, volatility_bars=2)
STEP = math.log(1.01) * math.sqrt(2) * 2  # sample deviation of (+a, -a) is a sqrt 2; the root of four bars


@pytest.mark.parametrize(("later", "seq", "touch", "value"), [
    ({"high": 100 * (1 + STEP) + 1e-9}, 3, "upper", 1.0),
    ({"high": 100 * (1 + STEP) - 1e-9}, 6, "horizon", 0.0),
    ({"low": 100 * (1 - STEP) - 1e-9}, 3, "lower", -1.0),
    ({"low": 100 * (1 - STEP) + 1e-9}, 6, "horizon", 0.0),
    ({"low": 90.0, "high": 110.0}, 3, "lower", -1.0),  # both: the worse one
    ({"minute": 7, "low": 90.0}, 3, "horizon", 0.0),  # opens after the horizon
    ({"minute": 6, "low": 90.0}, 3, "lower", -1.0),  # the last bar of the horizon
])
def test_barriers(later: dict[str, float], seq: int, touch: str, value: float) -> None:
    rows, _ = run(bars_of(*UP_DOWN, later, {}, {}, {}), BARRIERS)
    assert told(rows[rows["made_seq"] == 2]) == [(2, seq, touch, value)]


def test_a_price_that_did_not_move_has_no_unit_and_gets_no_label() -> None:
    still = bars_of(*([{}] * 30))
    for kind in ("volatility_scaled", "triple_barrier"):
        assert len(run(still, LabelConfig(kind, 2 * MINUTE, volatility_bars=5))[0]) == 0
    grows = bars_of(*({"close": 100 * 1.001**k} for k in range(30)))  # the same return each time, but for rounding
    assert len(run(grows, LabelConfig("volatility_scaled", 2 * MINUTE, volatility_bars=5))[0]) == 0
    assert len(run(still, LabelConfig("forward_return", 2 * MINUTE))[0]) == 28


def test_rings_grow_to_the_horizon_and_no_further() -> None:
    bars = bars_of(*({"close": 100 + k % 7} for k in range(300)))
    for bars_ahead, length in ((1, 2), (10, 11), (100, 101), (1000, 512)):
        operator = Labels(LabelConfig("forward_return", bars_ahead * MINUTE), MINUTE)
        rows, _ = operator.step(bars, 1)
        assert len(rows) == max(300 - bars_ahead, 0)
        assert operator.snapshot()["ring"].shape == (1, length)


def test_a_ring_that_wraps_keeps_its_order_when_it_grows() -> None:
    """A bar every four minutes, of which ten wait and the first have gone; then one a minute, of which forty wait."""
    minutes = [*range(0, 80, 4), *range(80, 260)]
    closes = 100.0 + np.arange(len(minutes))
    bars = bars_of(*({"minute": m, "close": float(c)} for m, c in zip(minutes, closes, strict=True)))
    rows, _ = Labels(LabelConfig("forward_return", 40 * MINUTE), MINUTE).step(bars, 1)
    ends = [next((k for k, later in enumerate(minutes) if later >= m + 40), None) for m in minutes]
    due = [(k, end) for k, end in enumerate(ends) if end is not None]
    assert list(zip(rows["made_seq"].tolist(), rows["seq"].tolist(), strict=True)) == due
    np.testing.assert_allclose(rows["value"], [math.log(closes[end] / closes[k]) for k, end in due], rtol=1e-12)


def test_bars_that_overlap_go_back_or_have_no_price_are_named() -> None:
    label = LabelConfig("forward_return", 3 * MINUTE)
    with pytest.raises(PenstockError, match="tape position 2 closes at .* neither overlap nor go back"):
        Labels(label, MINUTE).step(bars_of({"minute": 4}, {"minute": 5}, {"minute": 5}), 1)
    with pytest.raises(PenstockError, match="tape position 1 has the close 0.0"):
        Labels(label, MINUTE).step(bars_of({}, {"close": 0.0}), 1)
    crowded = bars_of(*([{}] * 9))
    crowded["ts_close_ns"] = 1 + np.arange(9)  # closer together than their interval
    with pytest.raises(PenstockError, match="tape position 4 closes at"):
        Labels(label, MINUTE).step(crowded, 1)


def test_a_snapshot_of_another_label_is_refused() -> None:
    saved = Labels(CONFIGS["triple_barrier"], MINUTE).snapshot()
    with pytest.raises(ValueError, match="another label"):
        Labels(CONFIGS["forward_return"], MINUTE).restore(saved)
