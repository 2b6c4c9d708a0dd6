"""The feature operator: closed bars in, one row of feature values per bar out.

Each timeframe is a `FeatureSet`: a state matrix per distinct feature, a row per symbol, gone over in chunks of bars by
every kernel in turn, all in one call. Values are a function of the symbol's bars alone, whatever the frames and whichever other symbols
came with them.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from operators.market.features.columns import AT, INTERVAL_AT, KIND_AT, as_columns, select_bars
from operators.market.features.driver import Kernels
from operators.market.features.registry import FEATURES, Feature, Numbers, Request, expand
from schemas.frame import FeatureRows, Frame
from schemas.rows import picked
from schemas.tables import BARS, Rows


class FeatureSet:
    """The features of one timeframe and their state.

    `names` are the columns, as they were asked for; a feature of several outputs, asked for without one, gives them
    all.
    """

    def __init__(self, interval_ns: int, texts: Sequence[str]) -> None:
        requests = expand(texts)
        self.interval_ns = interval_ns
        self.names = tuple(request.text for request in requests)
        distinct: dict[tuple[str, Numbers], Request] = {}
        for request in requests:
            distinct.setdefault(request.key, request)
        plans = list(distinct.values())
        outputs = [len(plan.feature.outputs) for plan in plans]
        at = dict(zip(distinct, accumulate(outputs, initial=0), strict=False))
        self._nothing = FeatureRows(interval_ns, self.names, BARS.empty(0), np.empty((0, len(self.names))))
        self._kernels = Kernels(
            [plan.feature.kernel for plan in plans], [(*plan.values, *plan.feature.fixed, 0.0) for plan in plans],
            [plan.feature.state(plan.values) for plan in plans], outputs, [at[request.key] + request.output for request in requests],
        )

    def step(self, bars: Rows, symbols: int) -> FeatureRows:
        """The values of the time bars of this interval among `bars`; `symbols` is how many codes there are."""
        if not len(bars):
            return self._nothing
        floats, ints = as_columns(bars)
        index = np.empty(len(bars), np.int64)
        n = select_bars(ints, KIND_AT, INTERVAL_AT, self.interval_ns, index)
        if n != len(bars):
            bars = picked(bars, index[:n])
            floats, ints = as_columns(bars)
        return FeatureRows(self.interval_ns, self.names, bars, self._kernels.step(floats, ints, AT, symbols))

    def snapshot(self) -> dict[str, Any]:
        return {"names": self.names, "states": [state.copy() for state in self._kernels.states()]}

    def restore(self, state: dict[str, Any]) -> None:
        if tuple(state["names"]) != self.names:
            raise ValueError(f"the snapshot holds the features {state['names']}, this operator has {self.names}")
        self._kernels.set_states(state["states"])


class Features:
    """Operator: adds a `FeatureRows` per timeframe to every frame, in the order of the requests; a timeframe without
    bars is empty.
    """

    name = "features"

    def __init__(self, requests: Mapping[int, Sequence[str]]) -> None:
        self._sets = [FeatureSet(interval_ns, texts) for interval_ns, texts in requests.items()]

    @property
    def names(self) -> dict[int, tuple[str, ...]]:
        """interval in ns → the columns that come out."""
        return {each.interval_ns: each.names for each in self._sets}

    def step(self, frame: Frame) -> Frame:
        bars = frame.rows(BARS)
        return frame.with_features(*(each.step(bars, len(frame.symbols)) for each in self._sets))

    def snapshot(self) -> dict[int, Any]:
        return {each.interval_ns: each.snapshot() for each in self._sets}

    def restore(self, state: dict[int, Any]) -> None:
        if list(state) != [each.interval_ns for each in self._sets]:
            raise ValueError(f"the snapshot holds the timeframes {list(state)}, this operator has {list(self.names)}")
        for each in self._sets:
            each.restore(state[each.interval_ns])


def compute_features(bars: Rows, symbols: Sequence[str], interval_ns: int, names: Sequence[str]) -> FeatureRows:
    """The features of a table of bars, exactly as the pipeline computes them; bars of other kinds and intervals are
    passed over.
    """
    return FeatureSet(interval_ns, names).step(bars, len(symbols))


def default_features() -> tuple[str, ...]:
    """Every feature with its default parameters, every output."""
    return tuple(column for found in FEATURES.values() for column in found.columns())


def kernels() -> list[tuple[str, Callable[[], None]]]:
    """What there is to compile: labels, and calls that compile (or load from the cache) by running on one bar."""
    first: dict[Any, Feature] = {}
    for found in FEATURES.values():
        first.setdefault(found.kernel, found)
    return [(f"features: {found.name}", _Warm(found)) for found in first.values()]


class _Warm:
    """Runs one feature over one bar; picklable, so that other processes can do it."""

    def __init__(self, found: Feature) -> None:
        self.text = found.columns()[0]

    def __call__(self) -> None:
        bars = BARS.empty(1)
        bars["interval_ns"] = 1
        for price in ("open", "high", "low", "close"):
            bars[price] = 1.0
        FeatureSet(1, (self.text,)).step(bars, 1)


def warm_kernels(progress: Callable[[str, int, int], None] | None = None) -> None:
    """Compile every kernel in this process; `progress(label, done, total)` after each."""
    todo = kernels()
    for done, (label, compile_one) in enumerate(todo, 1):
        compile_one()
        if progress is not None:
            progress(label, done, len(todo))


__all__ = ["FeatureSet", "Features", "compute_features", "default_features", "kernels", "warm_kernels"]
