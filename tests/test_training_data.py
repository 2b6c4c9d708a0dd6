"""The data set: what the pipeline saw, no more and no less, with labels that were known before the data ended."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from operators.market.features import FeatureSet
from operators.market.features.columns import compiled
from operators.market.features.registry import FEATURES, feature
from research.learning import dataset as module
from research.learning.dataset import DEFAULT_FEATURES, Dataset, dataset, leaking
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame
from schemas.tables import BARS, RECORDED, Rows
from tests.market_tapes import MINUTE

NAMES = ("log_ret(1)", "rsi(14)", "zscore(20)", "volume_ratio(20)")
LABEL = LabelConfig(horizon_ns=5 * MINUTE)


def recorded(minutes: int, symbols: int = 2, seed: int = 1, holes: bool = True) -> Rows:
    """Recorded minutes of several symbols in the order of the tape; some are missing."""
    rng = np.random.default_rng(seed)
    rows = RECORDED.empty(minutes * symbols)
    minute, rows["symbol"] = np.divmod(np.arange(len(rows)), symbols)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, (minutes, symbols)), axis=0)).reshape(-1)
    rows["open"], rows["close"] = price, price * np.exp(rng.normal(0, 5e-4, len(rows)))
    rows["high"], rows["low"] = np.maximum(rows["open"], rows["close"]) * 1.0003, np.minimum(rows["open"], rows["close"]) * 0.9997
    rows["volume"] = rng.integers(1, 100, len(rows))
    rows["notional"] = rows["volume"] * rows["close"]
    rows["vwap"] = rows["close"]
    rows["interval_ns"] = MINUTE
    rows["ts_open_ns"] = 1_600_000_020 * 10**9 + minute * MINUTE
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + MINUTE
    for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    if holes:
        rows = rows[rng.random(len(rows)) > 0.03]
    rows["seq"] = np.arange(len(rows))
    return rows


class Held:
    """A source of recorded bars in memory."""

    def __init__(self, rows: Rows, symbols: int = 2, batch: int = 65_536) -> None:
        self.rows, self.batch = rows, batch
        self.symbols = tuple(f"S{k}" for k in range(symbols))
        self.kinds, self.recorded_ns, self.data_hash, self.rows_total = ("recorded",), (MINUTE,), "held", len(rows)
        self.ts_range = (0, 1)

    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]:
        for number, at in enumerate(range(0, len(self.rows), self.batch)):
            yield Frame("held", number, 0, self.symbols, {"recorded": self.rows[at:at + self.batch]})


def of(rows: Rows, names: tuple[str, ...] = NAMES, label: LabelConfig = LABEL, **more: Any) -> Dataset:
    return dataset(Held(rows, **{k: more.pop(k) for k in ("batch", "symbols") if k in more}), names, MINUTE, label, **more)


def same(a: Dataset, b: Dataset) -> bool:
    return a.content_hash == b.content_hash and a.counts == b.counts


def test_it_is_what_plain_python_finds() -> None:
    """Returns and labels written out: the label of a bar is of the first bar that closes at or after its close plus the horizon."""
    rows = recorded(400)
    data = of(rows)
    expected = []
    for symbol in (0, 1):
        mine = rows[rows["symbol"] == symbol]
        for t in range(len(mine)):
            later = [k for k in range(t + 1, len(mine)) if mine["ts_close_ns"][k] >= mine["ts_close_ns"][t] + LABEL.horizon_ns]
            if t >= 19 and later:  # zscore(20) is the last to be warm
                end = mine[later[0]]
                expected.append((int(mine["seq"][t]), symbol, int(mine["ts_close_ns"][t]), int(end["ts_close_ns"]),
                                 np.log(mine["close"][t] / mine["close"][t - 1]), np.log(end["close"] / mine["close"][t]), mine["close"][t]))
    expected.sort()
    assert len(data) == len(expected) == 776 - 38 - data.counts["unlabelled"] + (len(rows) - 776)
    assert data.symbol.tolist() == [e[1] for e in expected]
    assert data.ts_made_ns.tolist() == [e[2] for e in expected] and data.ts_end_ns.tolist() == [e[3] for e in expected]
    assert data.x[:, 0] == pytest.approx([e[4] for e in expected], abs=1e-14)
    assert data.value == pytest.approx([e[5] for e in expected], abs=1e-14) and data.return_ == pytest.approx(data.value, abs=1e-14)
    assert (data.up == (data.value > 0)).all() and data.price.tolist() == [e[6] for e in expected]
    assert data.counts == {"bars": len(rows), "missing": 38, "unlabelled": len(rows) - 38 - len(data), "before_limit": 0}
    assert data.symbols == ("S0", "S1") and data.source == {"data_hash": "held"}


@pytest.mark.parametrize("kind", ["forward_return", "volatility_scaled", "triple_barrier"])
def test_the_cut_into_frames_changes_nothing(kind: str) -> None:
    rows, label = recorded(300), LabelConfig(kind=kind, horizon_ns=5 * MINUTE, volatility_bars=20)
    whole = of(rows, label=label)
    assert same(whole, of(rows, label=label, batch=1)) and same(whole, of(rows, label=label, batch=37))
    assert len(whole) > 400


def test_no_label_is_made_up_beyond_the_data() -> None:
    """Rows of a longer tape that were labelled within the shorter one are the shorter one's, to the bit; none ends after it."""
    rows = recorded(400)
    at = 500
    short, whole = of(rows[:at]), of(rows)
    assert short.ts_end_ns.max() <= rows["ts_event_ns"][:at].max()
    known = whole.ts_end_ns <= rows["ts_event_ns"][:at].max()
    assert short.content_hash == whole.take(known).content_hash and len(short) < len(whole)


def test_the_last_rows() -> None:
    rows = recorded(300)
    whole, last = of(rows), of(rows, limit=100)
    assert len(last) == 100 and last.content_hash == whole.take(slice(-100, None)).content_hash == whole.last(100).content_hash
    assert last.counts["before_limit"] == len(whole) - 100 == whole.last(100).counts["before_limit"]
    assert of(rows, limit=10**6).content_hash == whole.content_hash


def test_a_run_gives_the_same_as_its_tape() -> None:
    """A stored run is asked for its bars and gives the data set of the tape that it was made of."""
    rows = recorded(300)
    made = of(rows)

    class Stored:
        run_id, symbols, data = "r1", made.symbols, {"data_hash": "held"}

        def table(self, spec: Any, where: str, **parameters: Any) -> Any:
            from schemas.codec import to_arrow
            assert "interval_ns" in where
            shuffled = rows.astype(BARS.dtype)[np.random.default_rng(1).permutation(len(rows))]
            return to_arrow(BARS, shuffled[shuffled["interval_ns"] == parameters["i"]], self.symbols)

        def query(self, sql: str) -> Any:
            import pyarrow as pa
            return pa.table({"interval_ns": [MINUTE]})

    assert module.dataset_of_run(Stored(), NAMES, MINUTE, LABEL).content_hash == made.content_hash
    with pytest.raises(UserError, match="run r1 has no bars of 5m; it has: 1m"):
        module.dataset_of_run(Stored(), NAMES, 5 * MINUTE, LABEL)


@pytest.mark.parametrize(("names", "minutes", "said"), [
    (("rsi(14)", "buy_ratio(20)", "spread"), 200, "NaN in all 400 bars: buy_ratio(20), spread; up to 19 bars a symbol warm it up"),
    (("rsi(14)",), 3, "NaN in all 6 bars: rsi(14); up to 14 bars a symbol warm it up"),
    (("rsi(14)", "month"), 200, "constant in all 362 rows: month"),
    (("log_ret(1)",), 5, "none of 10 bars is a row to learn from: 2 lack a feature, 8 have no label 5m ahead"),
    (("rsj(14)",), 50, 'unknown feature "rsj"; did you mean "rsi"'),
    ((), 50, "no features"),
])
def test_what_cannot_be_learned_from_is_named(names: tuple[str, ...], minutes: int, said: str) -> None:
    with pytest.raises(UserError) as error:
        of(recorded(minutes, holes=False), names)
    assert said in str(error.value)


def test_a_horizon_below_a_bar_and_an_interval_that_does_not_divide() -> None:
    with pytest.raises(UserError, match="shorter than a bar of 1m"):
        of(recorded(50), label=LabelConfig(horizon_ns=MINUTE // 2))
    with pytest.raises(UserError, match="cannot be made from recorded bars"):
        dataset(Held(recorded(50)), NAMES, 90 * 10**9, LABEL)


# look-ahead


def test_no_feature_of_the_default_set_looks_ahead() -> None:
    assert leaking(recorded(400).astype(BARS.dtype), 2, MINUTE, DEFAULT_FEATURES) == []


@pytest.mark.parametrize("ahead", [1, 5])
def test_a_planted_leak_is_caught(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature that is the return of a later bar predicts perfectly, and no data set is made of it."""
    monkeypatch.setattr("operators.market.features.registry.FEATURES", FEATURES)

    @feature("tomorrow", "returns", "A later return.", formula="ln(C[t+n] / C[t])", source="a mistake")
    @compiled
    def tomorrow(code: Any, b: Any, p: Any, state: Any, out: Any) -> None:
        for i in range(len(code)):
            out[0, i] = 0.0
            left = ahead
            for k in range(i + 1, len(code)):
                left -= code[k] == code[i]
                if left == 0:
                    out[0, i] = b[3, k]
                    break

    try:
        rows = recorded(120)
        bars = rows.astype(BARS.dtype)
        assert leaking(bars, 2, MINUTE, ("rsi(14)", "tomorrow")) == ["tomorrow"]
        with pytest.raises(PenstockError, match="look-ahead: tomorrow changes when later bars do"):
            of(rows, ("rsi(14)", "tomorrow"))
        clean, dirty = FeatureSet(MINUTE, ("tomorrow",)).step(bars, 2), FeatureSet(MINUTE, ("tomorrow",)).step(bars[:100], 2)
        assert (clean.values[:100] != dirty.values).any()  # the prefix law itself
    finally:
        del FEATURES["tomorrow"]


def test_a_row_that_the_quality_step_drops_is_not_learned_from() -> None:
    rows = recorded(200)
    bad = rows.copy()
    bad["close"][150] = -1.0
    clean = of(rows[np.arange(len(rows)) != 150])
    dropped = of(bad)
    assert np.array_equal(clean.x, dropped.x) and np.array_equal(clean.value, dropped.value)


def test_outcomes_carry_the_label_and_the_horizon() -> None:
    data = of(recorded(200))
    score = np.linspace(0, 1, len(data))
    found = data.outcomes("m", "classify", score)
    assert found.horizon_bars == 5 and (found.p_up == score).all() and (found.up == data.up).all()
    part = data.outcomes("m", "regress", score[:10], np.arange(10))
    assert len(part) == 10 and np.isnan(part.p_up).all()
    assert replace(data, interval_ns=2 * MINUTE).horizon_bars == 3
