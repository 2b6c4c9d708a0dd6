"""The model of the simulated market: an hour of a symbol from its seed, its state at the start and the market's moves.

Every hour of every symbol draws from a generator of its own, seeded by (seed, symbol, hour): a symbol's hour does not
depend on how many symbols or hours are asked for, nor on the order in which they are made. Stylised facts as in Cont,
"Empirical properties of asset returns" (Quantitative Finance 1, 2001): clustered volatility, fat tails, correlated
returns, self-exciting arrivals (Hawkes, Biometrika 58, 1971), autocorrelated order flow.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.tables import BUY, QUOTES, SELL, TRADES, Rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECONDS = 3600
HOUR_NS = SECONDS * 10**9
_MINUTES = 60
_SECONDS_PER_YEAR = 365 * 86400
_MARKET, _TRAITS = 1 << 40, 1 << 41
"""Stream numbers of the generators that belong to no symbol and to no hour."""

RANGE, UP, DOWN, CRASH = 0, 1, 2, 3
REGIMES = ("range", "trend up", "trend down", "crash")
_NEXT = np.cumsum(
    np.array([[0.0, 0.495, 0.495, 0.01], [0.72, 0.0, 0.26, 0.02], [0.72, 0.26, 0.0, 0.02], [0.5, 0.3, 0.2, 0.0]]),
    axis=1,
)
"""Cumulative probabilities of the regime that follows; the length of a stay is geometric, in minutes."""
_STAY_MINUTES = np.array([75.0, 55.0, 55.0, 9.0])
_DRIFT = np.array([0.0, 0.018, -0.018, -0.16])
"""In units of the volatility of a second, per second."""
_PULL = np.array([1 / 900, 0.0, 0.0, 0.0])
"""Mean reversion to the price at which the range began, per second."""
_STORM = np.array([0.85, 1.0, 1.05, 3.2])
"""Factor on volatility."""

_LOG_VOL_KEEP = 0.985
_LOG_VOL_NOISE = 0.09
"""AR(1) of the logarithm of volatility, per minute: a half-life of 46 minutes."""
_KEEP = _LOG_VOL_KEEP ** np.arange(_MINUTES + 1)
_AR = np.tril(_KEEP[np.abs(np.subtract.outer(np.arange(_MINUTES), np.arange(_MINUTES)))])

_BRANCHING = 0.55
"""Children per trade. Below 1, or a burst would never end."""
_CHILD_AFTER_S = 2.5
_CHILD_SAME_SIDE = 0.8


@dataclass(frozen=True)
class Traits:
    """What a symbol is: price, tick and lot (as decimals), volatility a year, weight of the market, trades an hour."""

    price: float
    price_decimals: int
    size_decimals: int
    size: float
    volatility: float
    beta: float
    trades_per_hour: float
    spread_ticks: float
    quiet: bool


@dataclass
class Walk:
    """What a symbol takes from one hour into the next."""

    price: float
    anchor: float
    regime: int
    minutes_left: int
    log_vol: float = 0.0
    trade_id: int = 1
    pending_s: Floats = field(default_factory=lambda: np.zeros(0))
    pending_side: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    bid_k: int = 0
    ask_k: int = 0


def generator(seed: int, symbol: int, hour: int) -> np.random.Generator:
    """The generator of an hour of a symbol."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, symbol, hour])))


def traits_of(seed: int, symbol: int) -> Traits:
    """Every fifth symbol is quiet: some tens of trades an hour instead of thousands."""
    rng = generator(seed, symbol, _TRAITS)
    price = float(10 ** rng.uniform(-0.5, 4.5))
    decimals = 4 - int(np.floor(np.log10(price)))
    quiet = symbol % 5 == 4
    rate = float(np.exp(rng.normal(3.4, 0.4)) if quiet else 4600 * np.exp(rng.normal(-0.18, 0.6)))
    size = float(np.exp(rng.normal(6.0, 0.5))) / price
    return Traits(
        round(price, max(0, decimals)),
        decimals,
        max(0, min(6, 2 - int(np.floor(np.log10(size))))),
        size,
        float(rng.uniform(0.45, 1.1)),
        float(rng.uniform(0.35, 0.8)),
        rate,
        float(rng.uniform(1.0, 4.0) * (3.0 if quiet else 1.0)),
        quiet,
    )


def start_of(seed: int, symbol: int, traits: Traits) -> Walk:
    """The state before the first hour."""
    rng = generator(seed, symbol, _TRAITS + 1)
    regime = int(rng.integers(0, 3))
    return Walk(
        traits.price, traits.price, regime, int(rng.geometric(1 / _STAY_MINUTES[regime])), float(rng.normal(0.0, 0.4))
    )


@dataclass
class Market:
    """What all symbols share: the market's volatility and its crashes, which pull each symbol down for some minutes."""

    log_vol: float = 0.0

    def hour(self, seed: int, hour: int) -> tuple[Floats, Floats]:
        """Per second, the market's move in units of a symbol's volatility, and the factor on everyone's volatility."""
        rng = generator(seed, _MARKET, hour)
        log_vol = _KEEP[1:] * self.log_vol + _AR @ rng.normal(0.0, _LOG_VOL_NOISE, _MINUTES)
        self.log_vol = float(log_vol[-1])
        storm = np.exp(0.6 * log_vol)
        moves = rng.standard_normal(SECONDS) * np.repeat(storm, 60)
        if rng.random() < 0.03:
            first = int(rng.integers(300, SECONDS - 900))
            moves[first : first + 240] -= rng.uniform(0.35, 0.9)
            moves[first + 240 : first + 600] += rng.uniform(0.1, 0.25)
            storm[first // 60 : first // 60 + 12] *= 2.5
        return moves, np.repeat(storm, 60)


def hour_of(
    seed: int,
    symbol: int,
    hour: int,
    start_ns: int,
    traits: Traits,
    walk: Walk,
    market: tuple[Floats, Floats],
    quotes: bool,
) -> tuple[Rows, Rows]:
    """The trades and, if wanted, the quotes of one symbol in one hour that begins at `start_ns`; moves `walk` on."""
    rng = generator(seed, symbol, hour)
    regimes = _regimes(rng, walk)
    log_vol = _KEEP[1:] * walk.log_vol + _AR @ rng.normal(0.0, _LOG_VOL_NOISE, _MINUTES)
    walk.log_vol = float(log_vol[-1])
    calm = traits.volatility / np.sqrt(_SECONDS_PER_YEAR)
    factor = np.repeat(np.exp(log_vol) * _STORM[regimes], 60)
    moves, storm = market
    noise = rng.standard_normal(SECONDS)
    shocks = traits.beta * moves + np.sqrt(1 - traits.beta**2) * noise * factor
    shocks += np.repeat(_DRIFT[regimes], 60) * factor
    n_jumps = int(rng.poisson(0.12))
    at, jumps = rng.integers(0, SECONDS, n_jumps), rng.normal(0.0, 60.0, n_jumps)
    np.add.at(shocks, at, jumps)
    path, walk.anchor = _path(np.log(walk.price), np.log(walk.anchor), shocks * calm, np.repeat(regimes, 60), _PULL)
    walk.anchor = float(np.exp(walk.anchor))
    mid = np.exp(path)
    walk.price = float(mid[-1])
    scale = 10.0**traits.price_decimals
    half = np.maximum(0.5, 0.5 * traits.spread_ticks * np.sqrt(factor * storm))
    bid_k = np.maximum(1, np.floor(mid * scale - half)).astype(np.int64)
    ask_k = np.maximum(bid_k + 1, np.ceil(mid * scale + half).astype(np.int64))
    trades = _trades(rng, traits, walk, shocks, factor * storm, (bid_k, ask_k), start_ns)
    made = _quotes(rng, traits, walk, (bid_k, ask_k), start_ns) if quotes else QUOTES.empty(0)
    return trades, made


def _regimes(rng: np.random.Generator, walk: Walk) -> Ints:
    """The regime of each minute. Draws a fixed number of variates, whatever happens."""
    out = np.empty(_MINUTES, np.int64)
    chance, stay = rng.random(_MINUTES), rng.random(_MINUTES)
    for m in range(_MINUTES):
        if walk.minutes_left <= 0:
            walk.regime = int(np.searchsorted(_NEXT[walk.regime], chance[m] * _NEXT[walk.regime][-1], side="right"))
            walk.minutes_left = 1 + int(np.log(1.0 - stay[m]) / np.log(1.0 - 1.0 / _STAY_MINUTES[walk.regime]))
        out[m] = walk.regime
        walk.minutes_left -= 1
    return out


@njit(cache=True, nogil=True)
def _path(x, anchor, steps, regimes, pull):  # type: ignore[no-untyped-def]
    """Logarithm of the price per second. A range pulls it to where the range began; elsewhere the anchor follows."""
    out = np.empty(len(steps))
    for t in range(len(steps)):
        x += steps[t] - pull[regimes[t]] * (x - anchor)
        if regimes[t] != 0:
            anchor = x
        out[t] = x
    return out, anchor


def _arrivals(rng: np.random.Generator, walk: Walk, per_second: Floats) -> tuple[Floats, Ints]:
    """Times (s) and sides of a Hawkes process, by its clusters: immigrants, then generations of children. Children that
    fall into the next hour are handed on; so the cut into hours loses none."""
    cumulative = np.concatenate(([0.0], np.cumsum(per_second)))
    born = np.sort(rng.random(int(rng.poisson(cumulative[-1])))) * cumulative[-1]
    times = np.interp(born, cumulative, np.arange(len(cumulative), dtype=np.float64))
    sides = rng.integers(0, 2, len(times))
    times, sides = np.concatenate((walk.pending_s, times)), np.concatenate((walk.pending_side, sides))
    all_times, all_sides, late_times, late_sides = [times], [sides], [], []
    while len(times):
        children = rng.poisson(_BRANCHING, len(times))
        times = np.repeat(times, children) + rng.exponential(_CHILD_AFTER_S, int(children.sum()))
        same = rng.random(len(times)) < _CHILD_SAME_SIDE
        sides = np.where(same, np.repeat(sides, children), rng.integers(0, 2, len(times)))
        later = times >= SECONDS
        late_times.append(times[later] - SECONDS)
        late_sides.append(sides[later])
        times, sides = times[~later], sides[~later]
        all_times.append(times)
        all_sides.append(sides)
    walk.pending_s = np.concatenate([*late_times, np.zeros(0)])
    walk.pending_side = np.concatenate([*late_sides, np.zeros(0, np.int64)])
    return np.concatenate(all_times), np.concatenate(all_sides)


def _trades(
    rng: np.random.Generator,
    traits: Traits,
    walk: Walk,
    shocks: Floats,
    busy: Floats,
    quotes: tuple[Ints, Ints],
    start_ns: int,
) -> Rows:
    rate = traits.trades_per_hour * (1 - _BRANCHING) / SECONDS
    per_second = rate * np.minimum(6.0, 0.55 + 0.45 * busy)
    times, sides = _arrivals(rng, walk, per_second)
    order = np.argsort(times, kind="stable")
    times, sides = times[order], sides[order]
    second = np.minimum(times.astype(np.int64), SECONDS - 1)
    # flow leans with the move of its second, the more the larger the move
    lean = rng.random(len(times)) < 0.35 * np.minimum(1.0, np.abs(shocks[second]))
    sides = np.where(lean, shocks[second] > 0, sides == 1)
    bid_k, ask_k = quotes
    deep = rng.random(len(times)) < 0.06
    ticks = np.where(sides, ask_k[second] + deep, np.maximum(1, bid_k[second] - deep))
    rows = TRADES.empty(len(times))
    rows["ts_event_ns"] = start_ns + (times * 1e6).astype(np.int64) * 1000
    rows["price"] = _on_grid(ticks, traits.price_decimals)
    lots = np.rint(
        traits.size * np.exp(rng.normal(-0.5, 1.0, len(times))) * np.where(deep, 2.5, 1.0) * 10.0**traits.size_decimals
    )
    rows["size"] = _on_grid(np.maximum(1, lots).astype(np.int64), traits.size_decimals)
    rows["side"] = np.where(sides, BUY, SELL)
    rows["trade_id"] = walk.trade_id + np.arange(len(times))
    walk.trade_id += len(times)
    return rows


def _quotes(rng: np.random.Generator, traits: Traits, walk: Walk, quotes: tuple[Ints, Ints], start_ns: int) -> Rows:
    """A quote at each second at which the best bid or offer moved; it stands before the trades of that second."""
    bid_k, ask_k = quotes
    moved = (np.diff(bid_k, prepend=walk.bid_k) != 0) | (np.diff(ask_k, prepend=walk.ask_k) != 0)
    walk.bid_k, walk.ask_k = int(bid_k[-1]), int(ask_k[-1])
    at = np.flatnonzero(moved)
    rows = QUOTES.empty(len(at))
    rows["ts_event_ns"] = start_ns + at * 10**9
    rows["bid"] = _on_grid(bid_k[at], traits.price_decimals)
    rows["ask"] = _on_grid(ask_k[at], traits.price_decimals)
    for column in ("bid_size", "ask_size"):
        lots = np.rint(4 * traits.size * np.exp(rng.normal(0.0, 0.7, len(at))) * 10.0**traits.size_decimals)
        rows[column] = _on_grid(np.maximum(1, lots).astype(np.int64), traits.size_decimals)
    return rows


def _on_grid(ticks: Ints, decimals: int) -> Any:
    """Whole ticks to the double nearest to the decimal number, as a recording would print it."""
    return ticks / 10.0**decimals if decimals >= 0 else ticks * 10.0**-decimals
