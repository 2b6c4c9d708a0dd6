"""A data set to train on: rows of features beside what came true, made by the pipeline's own operators over a tape or a stored run.

A row is a closed bar whose features are all there and whose label was released before the data ended; no label is made up beyond that,
and what was left out is counted. Rows are in the order of the tape (seq, symbol). Everything is kept in 64 bits: a data set takes
8 (features + 9) bytes a row, 16 symbols and six weeks of minutes with 60 features about 0.5 GB, and training takes as much again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from operators.learners.labels import Labels
from operators.market.bars import Bars, BarsConfig, check_recorded
from operators.market.features import Features, compute_features, expand
from operators.market.quality import Quality, QualityConfig
from operators.protocol import Chain
from research.learning.evaluation import Outcomes
from schemas.codec import from_arrow
from schemas.config_models import LabelConfig, label_document
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows, Frame
from schemas.intervals import interval_text
from schemas.tables import BARS, Rows
from sources.tape import Source

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FRAME_ROWS = 65_536
CHECKED_BARS = 20_000
REGIME_USUAL = 1

DEFAULT_FEATURES = (
    "log_ret(1)", "log_ret(5)", "log_ret(15)", "log_ret(60)", "rsi(14)", "zscore(20)", "zscore(60)", "bollinger(20,2).width", "natr(14)",
    "realized_vol(20)", "atr_ratio(20,100)", "range_ratio", "volume_z(20)", "vwap_distance(20)", "cmf(20)", "mfi(14)", "adx(14).adx",
    "efficiency_ratio(10)", "dist_high(60)", "dist_low(60)", "autocorr(50,1)", "skew(50)", "day_sin", "day_cos",
)
"""Returns, oscillators, volatility, volume, trend, the shape of returns and the time of day; none in units of price, so that symbols can
be pooled."""


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from, by time made, then symbol.

    x: float64 (rows, features), finite. value, up: the label. ts_made_ns: when the bar was known; ts_end_ns: when its label was.
    symbol: codes into `symbols`. price: close of the bar; return_: log return to the close of the bar that released the label. counts:
    what was read and what was left out. source: where it comes from, as plain values.
    """

    features: tuple[str, ...]
    interval_ns: int
    label: LabelConfig
    symbols: tuple[str, ...]
    x: Floats
    value: Floats
    up: Ints
    ts_made_ns: Ints
    ts_end_ns: Ints
    symbol: Ints
    price: Floats
    return_: Floats
    counts: Mapping[str, int] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def horizon_bars(self) -> int:
        """How many bars a label spans at most."""
        return -(-self.label.horizon_ns // self.interval_ns)

    @cached_property
    def content_hash(self) -> str:
        """Hex digest of all that a model can learn from: columns, label, symbols and rows."""
        total = blake3(repr((self.features, self.interval_ns, label_document(self.label), self.symbols)).encode())
        for name in _COLUMNS:
            total.update(np.ascontiguousarray(getattr(self, name)).reshape(-1).view(np.uint8).data)
        return total.hexdigest()

    def take(self, rows: Any) -> "Dataset":
        """Some of the rows: numbers, a mask or a slice."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def last(self, limit: int) -> "Dataset":
        """The last `limit` rows; 0: all. What goes is counted."""
        if limit <= 0 or limit >= len(self):
            return self
        return replace(self.take(slice(len(self) - limit, None)), counts={**self.counts, "before_limit": len(self) - limit})

    def outcomes(self, name: str, task: str, score: Floats, rows: Any = slice(None)) -> Outcomes:
        """Forecasts of some rows beside what came true, to be measured."""
        n = len(score)
        p_up = score.copy() if task == "classify" else np.full(n, np.nan)
        return Outcomes(name, task, self.ts_made_ns[rows], self.ts_end_ns[rows], self.symbol[rows], self.symbols,
                        np.full(n, REGIME_USUAL, np.int64), score, p_up, self.value[rows], self.up[rows], self.return_[rows],
                        self.horizon_bars)

    def about(self) -> dict[str, Any]:
        """Range, size and hash as plain values, for a card."""
        return {
            "rows": len(self), "symbols": list(self.symbols), "ts_from_ns": int(self.ts_made_ns[0]), "ts_to_ns": int(self.ts_made_ns[-1]),
            "labels_to_ns": int(self.ts_end_ns.max()), "content_hash": self.content_hash, "share_up": float(self.up.mean()),
            "counts": dict(self.counts), "source": dict(self.source),
        }


_COLUMNS = ("x", "value", "up", "ts_made_ns", "ts_end_ns", "symbol", "price", "return_")


def dataset(source: Source, features: Sequence[str], interval_ns: int, label: LabelConfig, *, limit: int = 0,
            quality: QualityConfig | None = None, told: Mapping[str, Any] | None = None,
            progress: Callable[[int], None] | None = None) -> Dataset:
    """The data set of a tape: quality → bars → features → labels, as in the pipeline. limit: the last so many rows, 0: all.

    told: what the card is to say of the source besides its hash. progress is told the rows read. UserError: an unknown feature, an
    interval that the recording does not give, no bars, a column that is all NaN or constant, data shorter than the horizon.
    """
    for recorded_ns in getattr(source, "recorded_ns", ()):
        check_recorded(BarsConfig((interval_ns,)), recorded_ns)
    chain = Chain([Quality(quality), Bars(BarsConfig((interval_ns,)))])

    def bars() -> Iterator[Frame]:
        read = 0
        for frame in source.frames(FRAME_ROWS):
            yield chain.step(frame)
            read += sum(len(rows) for rows in frame.tables.values())
            if progress is not None:
                progress(read)

    return _gathered(bars(), features, interval_ns, label, limit, {**(told or {}), "data_hash": source.data_hash})


def dataset_of_run(run: Any, features: Sequence[str], interval_ns: int, label: LabelConfig, *, limit: int = 0) -> Dataset:
    """The data set of a run in the warehouse (`research.stored.StoredRun`): its bars, then features and labels as above.

    UserError: the run has no bars of the interval.
    """
    table = run.table(BARS, "bar_kind = 'time' AND interval_ns = {i:Int64}", i=interval_ns)
    if not table.num_rows:
        found = run.query("SELECT DISTINCT interval_ns FROM bars WHERE run_id = {r:String} AND bar_kind = 'time' ORDER BY interval_ns")
        known = ", ".join(interval_text(int(ns)) for ns in found["interval_ns"].to_pylist()) or "none"
        raise UserError(f"run {run.run_id} has no bars of {interval_text(interval_ns)}; it has: {known}")
    rows = from_arrow(BARS, table, run.symbols)
    rows = rows[np.lexsort([rows["symbol"], rows["seq"]])]
    frames = (Frame("run", k, 0, run.symbols, {"bars": rows[at:at + FRAME_ROWS]}) for k, at in enumerate(range(0, len(rows), FRAME_ROWS)))
    return _gathered(frames, features, interval_ns, label, limit, {"run": run.run_id, "data_hash": run.data.get("data_hash", "")})


def leaking(bars: Rows, n_symbols: int, interval_ns: int, names: Sequence[str], compute: Any = compute_features) -> list[str]:
    """Columns that break the prefix law on these bars: their values up to the middle change when the bars after it do."""
    at = len(bars) // 2
    poisoned = bars.copy()
    rng = np.random.default_rng(1)
    for name in ("open", "high", "low", "close", "vwap", "volume", "notional", "buy_volume", "bid", "ask", "bid_size", "ask_size"):
        poisoned[name][at:] *= rng.uniform(2.0, 5.0, len(bars) - at)
    poisoned["trades"][at:] += 17
    symbols = [str(k) for k in range(n_symbols)]
    clean, dirty = (compute(each, symbols, interval_ns, names).values[:at].copy().view(np.int64) for each in (bars, poisoned))
    return [name for k, name in enumerate(names) if (clean[:, k] != dirty[:, k]).any()]


class _Rows:
    """What has been gathered so far, a piece a frame."""

    def __init__(self, width: int) -> None:
        self.x: list[Floats] = []
        self.keys: list[Ints] = []
        self.labels: list[Rows] = []
        self.bars = 0
        self.known = np.zeros(width, np.int64)

    def add(self, found: FeatureRows, labels: Rows, n_symbols: int) -> None:
        finite: npt.NDArray[np.bool_] = np.isfinite(found.values)
        whole = finite.all(axis=1)
        self.bars += len(finite)
        self.known += finite.sum(axis=0)
        self.x.append(found.values[whole])
        self.keys.append(found.bars["seq"][whole] * n_symbols + found.bars["symbol"][whole])
        self.labels.append(labels)


def _gathered(frames: Iterable[Frame], features: Sequence[str], interval_ns: int, label: LabelConfig, limit: int,
              source: Mapping[str, Any]) -> Dataset:
    names = tuple(request.text for request in expand(features))
    if not names:
        raise UserError("no features; name at least one, such as rsi(14)")
    if label.horizon_ns < interval_ns:
        raise UserError(f"horizon {interval_text(label.horizon_ns)} is shorter than a bar of {interval_text(interval_ns)}")
    operator, labels, gathered = Features({interval_ns: names}), Labels(label, interval_ns), _Rows(len(names))
    symbols: tuple[str, ...] = ()
    for frame in frames:
        if symbols and frame.symbols != symbols:
            raise PenstockError(f"the symbols changed from {len(symbols)} to {len(frame.symbols)} while the data set was made")
        symbols = frame.symbols
        found = operator.step(frame).features[-1]
        if len(found.bars) and not gathered.bars:
            first = found.bars[:CHECKED_BARS]
            if leaks := leaking(first, len(symbols), interval_ns, names):
                raise PenstockError(f"look-ahead: {', '.join(leaks)} changes when later bars do; leave it out, and report it")
        gathered.add(found, labels.step(found.bars, len(symbols))[0], len(symbols))
    made = _joined(gathered, names, interval_ns, label, symbols, limit, source)
    constant = [name for name, low, high in zip(names, made.x.min(axis=0), made.x.max(axis=0), strict=True) if low == high]
    if constant:
        raise UserError(f"constant in all {len(made):,} rows: {', '.join(constant)}; leave it out, or give more data")
    return made


def _joined(g: _Rows, names: tuple[str, ...], interval_ns: int, label: LabelConfig, symbols: tuple[str, ...], limit: int,
            source: Mapping[str, Any]) -> Dataset:
    """Bars and labels put together by tape position and symbol."""
    if not g.bars:
        raise UserError(f"no bar of {interval_text(interval_ns)} closed; give more data or a shorter timeframe")
    if empty := [name for name, known in zip(names, g.known, strict=True) if not known]:
        needed = max(r.feature.warm_up(r.values)[r.output] for r in expand(empty))
        raise UserError(f"NaN in all {g.bars:,} bars: {', '.join(empty)}; up to {needed} bars a symbol warm it up, and this data may not "
                        "carry what it is made of: give more data, or leave it out")
    keys = np.concatenate(g.keys)
    found = np.concatenate(g.labels)
    g.labels.clear()
    label_keys = found["made_seq"] * len(symbols) + found["symbol"]
    order = np.argsort(label_keys, kind="stable")
    at = np.searchsorted(label_keys[order], keys)
    labelled = at < len(order)
    labelled[labelled] = label_keys[order[at[labelled]]] == keys[labelled]
    counts = {"bars": g.bars, "missing": g.bars - len(keys), "unlabelled": int((~labelled).sum()), "before_limit": 0}
    if not labelled.any():
        raise UserError(f"none of {g.bars:,} bars is a row to learn from: {counts['missing']:,} lack a feature, {counts['unlabelled']:,} "
                        f"have no label {interval_text(label.horizon_ns)} ahead within the data; give more data")
    kept = np.flatnonzero(labelled)
    if limit > 0:
        counts["before_limit"] = max(0, len(kept) - limit)
        kept = kept[-limit:]
    mine = found[order[at[kept]]]
    x = np.empty((len(kept), len(names)), np.float64)
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in g.x])])
    for k in range(len(g.x) - 1, -1, -1):  # each piece goes as soon as it is copied, so that the matrix is there once
        low, high = np.searchsorted(kept, (starts[k], starts[k + 1]))
        x[low:high] = g.x.pop()[kept[low:high] - starts[k]]
    return Dataset(names, interval_ns, label, symbols, x, mine["value"].copy(), mine["up"].copy(), mine["ts_made_ns"].copy(),
                   mine["ts_event_ns"].copy(), mine["symbol"].copy(), mine["price"].copy(), np.log(mine["price_end"] / mine["price"]),
                   counts, source)
