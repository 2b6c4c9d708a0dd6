"""Statistics of windows: shape of returns, straight lines, memory. Deviations are in `bands`, pairs in `orderflow`."""

import math

from operators.market.features.columns import CLOSE, LOG_CLOSE, Codes, Floats, compiled
from operators.market.features.registry import feature, window
from operators.market.features.windows import (
    NAN,
    line_push,
    line_size,
    moments_push,
    moments_size,
    powers_push,
    powers_size,
    ring_push,
    ring_size,
    sum_push,
    sum_size,
)


@feature("skew", "statistics", "Skewness of the last n log returns (sample); 0 where they did not vary.",
         formula="sqrt(n (n-1)) / (n-2) m3 / m2**1.5", source="Joanes, Gill, The Statistician 47:1 (1998), G1",
         params=(window(50, low=3),), fixed=(0.0,), warm_up=lambda n: n, state=lambda n: 1 + powers_size(n),
         windowed=lambda n: n)
@feature("kurtosis", "statistics", "Excess kurtosis of the last n log returns (sample); 0 where they did not vary.",
         formula="(n-1) / ((n-2)(n-3)) ((n+1) m4/m2**2 - 3 (n-1))", source="Joanes, Gill (1998), G2",
         params=(window(50, low=4),), fixed=(1.0,), warm_up=lambda n: n, state=lambda n: 1 + powers_size(n),
         windowed=lambda n: n)
@compiled
def shape(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last log close (0: none), window of returns."""
    n = int(p[0])
    tails = p[1] != 0.0
    for i in range(code.shape[0]):
        r = code[i]
        x = b[LOG_CLOSE, i]
        last = state[r, 0]
        state[r, 0] = x if x != 0.0 else 1e-300  # 0: no bar yet
        if last == 0.0:
            out[0, i] = NAN
            continue
        m2, m3, m4 = powers_push(state, r, 1, n, x - last)
        if m2 == 0.0:
            out[0, i] = 0.0
        elif tails:
            out[0, i] = (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * m4 / (m2 * m2) - 3.0 * (n - 1.0))
        else:
            out[0, i] = math.sqrt(n * (n - 1.0)) / (n - 2.0) * m3 / (m2 * math.sqrt(m2))


@feature("slope", "statistics", "Straight line through the last n closes, by least squares.",
         formula="close = intercept + slope x, x = 0 at the oldest bar; r2 explained share, 0 where flat; line: its "
                 "value at this bar", source="least squares; Murphy (1999)", params=(window(20, low=2),),
         outputs=("slope", "intercept", "r2", "line"), warm_up=lambda n: n - 1, state=line_size,
         windowed=lambda n: n - 1)
@compiled
def slope(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    sxx = p[0] * (p[0] * p[0] - 1.0) / 12.0
    for i in range(code.shape[0]):
        c, s, t, q = line_push(state, code[i], 0, n, b[CLOSE, i])
        rise = (t - 0.5 * (n + 1) * s) / sxx
        mean = c + s / n
        syy = q - s * s / n
        out[0, i] = rise
        out[1, i] = mean - 0.5 * (n - 1) * rise
        out[2, i] = 0.0 if syy <= 0.0 else min(1.0, rise * rise * sxx / syy) if syy == syy else NAN
        out[3, i] = mean + 0.5 * (n - 1) * rise


@feature("variance_ratio", "statistics",
         "Variance ratio of q-bar to one-bar returns: 1 random walk, above it trend, below it reversal.",
         formula="VR(q) with overlapping q-bar returns inside n bars and both corrections for bias; 1 where nothing "
                 "moved", source="Lo, MacKinlay, Review of Financial Studies 1:1 (1988)",
         params=(window(100, low=4), window(5, "q", low=2)), rising=("q", "length"), warm_up=lambda n, q: n,
         state=lambda n, q: ring_size(q) + moments_size(n) + moments_size(max(1, n - q + 1)), windowed=lambda n, q: n)
@compiled
def variance_ratio(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: ring of q log closes, window of one-bar returns, window of q-bar returns."""
    n = int(p[0])
    q = int(p[1])
    inside = n - q + 1
    at_one = 2 + q
    at_many = at_one + 5 + 3 * n
    scale = q * inside * (1.0 - p[1] / p[0])
    for i in range(code.shape[0]):
        r = code[i]
        x = b[LOG_CLOSE, i]
        k = int(state[r, 0])
        last = state[r, 2 + (q - 1 if k == 0 else k - 1)]
        started = k > 0 or state[r, 1] != 0.0
        old = ring_push(state, r, 0, q, x)
        out[0, i] = NAN
        if started:
            mean, variance = moments_push(state, r, at_one, n, x - last)
            if old == old:
                mean_q, variance_q = moments_push(state, r, at_many, inside, x - old)
                off = mean_q - q * mean
                long = inside * (variance_q + off * off) / scale
                short = n * variance / (n - 1.0)
                if mean == mean:
                    out[0, i] = 1.0 if short == 0.0 else long / short


@feature("hurst", "statistics",
         "Hurst exponent: 0.5 random walk, above it persistence, below it reversal; 0.5 where nothing moved.",
         formula="half the slope of ln mean((ln C[t] - ln C[t-s])**2) on ln s, s = 1, 2, 4, 8, 16, over n differences "
                 "of each", source="generalised Hurst exponent, q = 2: Di Matteo, Quantitative Finance 7:1 (2007)",
         params=(window(100, low=16),), warm_up=lambda n: n + 15, state=lambda n: 17 + 4 * sum_size(n),
         windowed=lambda n: n + 15)
@compiled
def hurst(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to 31, ring of 16 log closes, windows for s = 1, 2, 8, 16 (4 has no weight in the slope)."""
    n = int(p[0])
    size = 3 + 2 * n
    for i in range(code.shape[0]):
        r = code[i]
        x = b[LOG_CLOSE, i]
        seen = int(state[r, 0])
        d1 = x - state[r, 1 + (seen + 15) % 16]
        d2 = x - state[r, 1 + (seen + 14) % 16]
        d8 = x - state[r, 1 + (seen + 8) % 16]
        d16 = x - state[r, 1 + seen % 16]
        state[r, 1 + seen % 16] = x
        state[r, 0] = seen + 1 if seen < 31 else 16
        out[0, i] = NAN
        if seen >= 16:  # shorter differences exist before, but are not needed
            k1 = sum_push(state, r, 17, n, d1 * d1)
            k2 = sum_push(state, r, 17 + size, n, d2 * d2)
            k8 = sum_push(state, r, 17 + 2 * size, n, d8 * d8)
            k16 = sum_push(state, r, 17 + 3 * size, n, d16 * d16)
            if k1 > 0.0 and k2 > 0.0 and k8 > 0.0 and k16 > 0.0:
                far = k16 / k1
                out[0, i] = math.log(far * far * (k8 / k2)) / (20.0 * math.log(2.0))
            elif k16 == k16:
                out[0, i] = 0.5


@feature("percent_rank", "statistics", "Share of the last n closes that were at or below this one, in percent.",
         formula="100 count(C[t-k] <= C[t], k = 1 .. n) / n", source="percent rank; as TradingView",
         params=(window(20),), warm_up=lambda n: n, state=ring_size, windowed=lambda n: n)
@compiled
def percent_rank(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        full = state[r, 1] != 0.0
        below = 0
        if full:
            for j in range(n):
                below += 1 if state[r, 2 + j] <= x else 0
        ring_push(state, r, 0, n, x)
        out[0, i] = 100.0 * below / n if full else NAN
