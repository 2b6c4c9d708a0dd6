"""`Distribution`: whether a model's features still look as they did in the window that it was trained on, as a state machine over rows.

Every `every` rows the last `window` rows of a symbol are compared, bin by bin, with the shares of the training window, and so are the
rows in all symbols' windows together (symbol -1); an alarm is given when a statistic rises above its bound, and not again before it was
back at or below it. With a the shares now and e those of training (see `histogram` for the bins):

    PSI  sum (a - e) ln(a / e)   population stability index; Siddiqi 2006, Credit Risk Scorecards: below 0.1 the same, above 0.25 another
    KL   sum a ln(a / e)         Kullback and Leibler 1951, On Information and Sufficiency

Half a row is added to every bin of a window, of `a` and `e` alike, so that an empty bin costs much and not infinitely much. Nothing is
said before a symbol's window is full; of all symbols, before their windows together hold `window` rows. Rows are counted as integers, so
nothing drifts. Rows that follow each other are alike, and a window of them says less than as many rows drawn from the whole: a slow
feature needs a longer window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import inner, kernel
from operators.state import grown
from schemas.errors import PenstockError
from schemas.tables import ALL_SYMBOLS
from schemas.tables_models import DETECTORS

PSI, KL = DETECTORS.index("psi"), DETECTORS.index("kl")
BINS_MAX = 256
"""A row's bin is kept as one byte."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def histogram(values: npt.ArrayLike, bins: int = 10) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Inner edges and shares of one feature in a training window, as a `Card` keeps them for each of its features.

    values: (rows,) float64; NaN is a value of its own kind. A value v is in the bin k with edges[k - 1] <= v < edges[k]; the last of the
    len(edges) + 2 bins is for NaN. Edges are the values at the ranks k / bins (no interpolation). A value that holds more than one
    rank, such as the 0 of a flag or a constant, gets a bin to itself, so that a move away from it shows on either side.
    """
    column = np.asarray(values, np.float64)
    if column.ndim != 1:
        raise ValueError(f"a histogram is of one feature's values, not of an array of shape {column.shape}")
    known = column[~np.isnan(column)]
    edges: Floats = np.empty(0)
    if len(known):
        at, ranks = np.unique(np.quantile(known, np.arange(1, bins) / bins, method="lower"), return_counts=True)
        edges = np.unique(np.concatenate([at, np.nextafter(at[ranks > 1], np.inf)]))
    counts = np.zeros(len(edges) + 2)
    np.add.at(counts, np.searchsorted(edges, known, side="right"), 1.0)
    counts[-1] = len(column) - len(known)
    return tuple(edges.tolist()), tuple((counts / max(len(column), 1)).tolist())


@dataclass(frozen=True)
class Alarms:
    """Alarms in the order of the rows that caused them, one array entry each: row in the step, tape position, symbol (-1: all), index of
    the feature, code of the detector (`DETECTORS`), what was measured and what is allowed."""

    row: Ints
    seq: Ints
    symbol: Ints
    feature: Ints
    detector: Ints
    statistic: Floats
    bound: Floats

    def __len__(self) -> int:
        return len(self.row)


class Distribution:
    """edges, shares: per feature, as `histogram` gives them and the model's card holds them. window, every: rows."""

    def __init__(self, edges: Sequence[Sequence[float]], shares: Sequence[Sequence[float]], window: int = 2000, every: int = 250,
                 psi_bound: float = 0.25, kl_bound: float = 0.1) -> None:
        if window < 1 or every < 1:
            raise ValueError(f"window {window} and every {every} are rows, at least 1")
        _check(edges, shares)
        self._window, self._every = window, every
        n, most = len(edges), max((len(each) for each in shares), default=1)
        self._bins = np.array([len(each) for each in shares], np.int64)
        self._edges = np.full((n, most), np.inf)
        self._expected = np.ones((n, most))
        for f in range(n):
            self._edges[f, :len(edges[f])] = edges[f]
            self._expected[f, :len(shares[f])] = (np.asarray(shares[f]) * window + 0.5) / (window + 0.5 * len(shares[f]))
        self._bounds = np.array([psi_bound, kl_bound])
        self._ring = np.zeros((1, window, n), np.uint8)
        self._counts = np.zeros((2, n, most), np.int64)
        self._seen = np.zeros(2, np.int64)
        self._raised = np.zeros((2, n, 2), np.bool_)

    def step(self, values: Floats, symbols: Ints, n_symbols: int, seqs: Ints) -> Alarms:
        """Rows in the order (seq, symbol): values (rows, features), symbols and seqs (rows,)."""
        if values.shape[1] != len(self._bins):
            raise PenstockError(f"{values.shape[1]} features, and the model was trained on {len(self._bins)}")
        self._ring = grown(self._ring, n_symbols)
        self._counts, self._seen = grown(self._counts, n_symbols + 1), grown(self._seen, n_symbols + 1)
        self._raised = grown(self._raised, n_symbols + 1, False)
        floats, codes = np.ascontiguousarray(values, np.float64), np.ascontiguousarray(symbols, np.int64)
        ints = np.zeros((64 + 4 * len(self._bins), 4), np.int64)
        statistics = np.zeros(len(ints))
        cursor = np.zeros(2, np.int64)
        while not _advance(floats, codes, self._edges, self._expected, self._bins, self._window, self._every, self._bounds, self._ring,
                           self._counts, self._seen, self._raised, ints, statistics, cursor):
            ints, statistics = grown(ints, 2 * len(ints)), grown(statistics, 2 * len(statistics))
        row, symbol, feature, which = np.ascontiguousarray(ints[:cursor[1]].T)
        detector = np.where(which == 0, PSI, KL)
        return Alarms(row, np.asarray(seqs, np.int64)[row], symbol, feature, detector, statistics[:cursor[1]], self._bounds[which])

    def snapshot(self) -> dict[str, Any]:
        return {"ring": self._ring.copy(), "counts": self._counts.copy(), "seen": self._seen.copy(), "raised": self._raised.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        if state["ring"].shape[1:] != self._ring.shape[1:] or state["counts"].shape[1:] != self._counts.shape[1:]:
            raise ValueError(f"the snapshot is of windows (rows, features) {state['ring'].shape[1:]}, this one has {self._ring.shape[1:]}")
        self._ring, self._counts = state["ring"].copy(), state["counts"].copy()
        self._seen, self._raised = state["seen"].copy(), state["raised"].copy()


def _check(edges: Sequence[Sequence[float]], shares: Sequence[Sequence[float]]) -> None:
    """PenstockError where these are not what `histogram` gives."""
    if len(edges) != len(shares):
        raise PenstockError(f"the model's card has edges of {len(edges)} features and shares of {len(shares)}")
    for f, (steps, share) in enumerate(zip(edges, shares, strict=True)):
        if len(share) != len(steps) + 2 or len(share) > BINS_MAX:
            raise PenstockError(f"the model's card has {len(steps)} edges and {len(share)} shares for feature {f}; shares are two more, "
                                f"for the last bin and for NaN, and at most {BINS_MAX}")
        if any(not a < z for a, z in pairwise(steps)) or not abs(sum(share) - 1.0) < 1e-6 or min(share) < 0.0:
            raise PenstockError(f"the model's card is wrong for feature {f}: edges rise, shares are from 0 to 1 and are 1 in all")


@inner
def _bin(value: float, edges: Any, bins: int) -> int:
    if math.isnan(value):
        return bins - 1
    k = 0
    while k < bins - 2 and edges[k] <= value:
        k += 1
    return k


@inner
def _compare(at: int, row: int, total: int, window: int, counts: Any, expected: Any, bins: Any, bounds: Any, raised: Any, ints: Any,
             statistics: Any, n: int) -> int:
    """Write the alarms of the rows counted at place `at` (0: all symbols); how many are written in all."""
    for f in range(len(bins)):
        psi, kl = 0.0, 0.0
        for k in range(bins[f]):
            actual = (counts[at, f, k] / total * window + 0.5) / (window + 0.5 * bins[f])
            ratio = math.log(actual / expected[f, k])
            psi += (actual - expected[f, k]) * ratio
            kl += actual * ratio
        for which in range(2):
            statistic = psi if which == 0 else kl
            above = statistic > bounds[which]
            if above and not raised[at, f, which]:
                ints[n, 0], ints[n, 1], ints[n, 2], ints[n, 3] = row, at - 1, f, which
                statistics[n] = statistic
                n += 1
            raised[at, f, which] = above
    return n


@kernel
def _advance(values: Any, symbols: Any, edges: Any, expected: Any, bins: Any, window: int, every: int, bounds: Any, ring: Any, counts: Any,
             seen: Any, raised: Any, ints: Any, statistics: Any, cursor: Any) -> bool:
    """Rows from cursor[0] on, alarms from cursor[1] on; False: there may be too little room for the next row's."""
    n = cursor[1]
    for i in range(cursor[0], len(values)):
        cursor[0], cursor[1] = i, n
        if n + 4 * len(bins) > len(ints):
            return False
        s = symbols[i]
        place = seen[s + 1] % window
        full = seen[s + 1] >= window
        for f in range(len(bins)):
            if full:
                old = ring[s, place, f]
                counts[s + 1, f, old] -= 1
                counts[0, f, old] -= 1
            new = _bin(values[i, f], edges[f], bins[f])
            ring[s, place, f] = new
            counts[s + 1, f, new] += 1
            counts[0, f, new] += 1
        seen[s + 1] += 1
        seen[0] += 1
        if seen[s + 1] >= window and seen[s + 1] % every == 0:
            n = _compare(s + 1, i, window, window, counts, expected, bins, bounds, raised, ints, statistics, n)
        if len(bins) and seen[0] % every == 0:
            total = 0
            for k in range(bins[0]):
                total += counts[0, 0, k]
            if total >= window:
                n = _compare(0, i, total, window, counts, expected, bins, bounds, raised, ints, statistics, n)
    cursor[0], cursor[1] = len(values), n
    return True


assert ALL_SYMBOLS == -1, "place 0 is that of all symbols"
