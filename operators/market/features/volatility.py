"""Volatility per bar, never annualised: from true ranges in price, from returns and ranges as a fraction."""

import math

from operators.market.features.columns import (
    CLOSE,
    HIGH,
    LOG_CLOSE,
    LOG_HIGH,
    LOG_LOW,
    LOG_OPEN,
    LOW,
    Codes,
    Floats,
    compiled,
)
from operators.market.features.registry import feature, real, window
from operators.market.features.windows import (
    NAN,
    max_push,
    moments_push,
    moments_size,
    not_below_zero,
    sum_push,
    sum_size,
)

ATR, NATR, ATR_RATIO = 0.0, 1.0, 2.0
PARKINSON, GARMAN_KLASS, ROGERS_SATCHELL = 0.0, 1.0, 2.0


@feature("atr", "volatility", "Average true range, in price.",
         formula="A += (TR - A)/n, from the mean of the first n true ranges (from bar 2 on)", source="Wilder (1978), 3",
         params=(window(14),), fixed=(1.0, ATR), warm_up=lambda n: n, state=lambda n: 4)
@feature("natr", "volatility", "Average true range in percent of the close.", formula="100 ATR / C",
         source="Forman, Stocks & Commodities 24:5 (2006)", params=(window(14),), fixed=(1.0, NATR),
         warm_up=lambda n: n, state=lambda n: 4)
@feature("atr_ratio", "volatility", "Short over long average true range: above 1 volatility rises.",
         formula="ATR(short) / ATR(long); 1 where nothing moved", source="ratio of Wilder's averages",
         params=(window(20, "short"), window(100, "long")), rising=("short", "long"), fixed=(ATR_RATIO,),
         warm_up=lambda s, g: g, state=lambda s, g: 4)
@compiled
def atr(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to the longest length + 1, last close, the two averages."""
    n = p[0]
    m = p[1]
    mode = p[2]
    longest = max(n, m)
    for i in range(code.shape[0]):
        r = code[i]
        high = b[HIGH, i]
        low = b[LOW, i]
        close = b[CLOSE, i]
        seen = state[r, 0]
        last = state[r, 1]
        state[r, 1] = close
        if seen <= longest:
            state[r, 0] = seen + 1.0
        if seen == 0.0:
            out[0, i] = NAN
            continue
        tr = (last if last > high else high) - (last if last < low else low)
        a1 = state[r, 2]
        a2 = state[r, 3]
        a1 += tr / n if seen <= n else (tr - a1) / n
        a2 += tr / m if seen <= m else (tr - a2) / m
        state[r, 2] = a1
        state[r, 3] = a2
        if seen < longest:
            out[0, i] = NAN
        elif mode == ATR:
            out[0, i] = a1
        elif mode == NATR:
            out[0, i] = 100.0 * a1 / close
        else:
            out[0, i] = a1 / a2 if a2 > 0.0 else 1.0


@feature("ewma_vol", "volatility", "Exponentially weighted volatility of log returns.",
         formula="sqrt(sum w r**2 / sum w), w = lambda**age over all returns so far; first value after 1/(1 - lambda) "
                 "returns", source="RiskMetrics Technical Document (1996), 5; weights that sum to one from the start",
         params=(real("lambda", 0.94, 0.5, 0.9999),), warm_up=lambda decay: round(1.0 / (1.0 - decay)),
         state=lambda decay: 4)
@compiled
def ewma_vol(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to the warm-up + 1, last log close, weighted sum of squares, sum of weights."""
    decay = p[0]
    ready = float(round(1.0 / (1.0 - decay)))
    for i in range(code.shape[0]):
        r = code[i]
        x = b[LOG_CLOSE, i]
        seen = state[r, 0]
        change = x - state[r, 1]
        state[r, 1] = x
        if seen <= ready:
            state[r, 0] = seen + 1.0
        if seen == 0.0:
            out[0, i] = NAN
            continue
        total = decay * state[r, 2] + change * change
        weight = decay * state[r, 3] + 1.0
        state[r, 2] = total
        state[r, 3] = weight
        out[0, i] = math.sqrt(total / weight) if seen >= ready else NAN


@feature("parkinson", "volatility", "Parkinson volatility, from the ranges of n bars.",
         formula="sqrt(mean ln(H/L)**2 / (4 ln 2))", source="Parkinson, Journal of Business 53:1 (1980)",
         params=(window(20),), fixed=(PARKINSON,), warm_up=lambda n: n - 1, state=sum_size, windowed=lambda n: n - 1)
@feature("garman_klass", "volatility", "Garman-Klass volatility, from ranges and bodies of n bars.",
         formula="sqrt(mean(ln(H/L)**2 / 2 - (2 ln 2 - 1) ln(C/O)**2))",
         source="Garman, Klass, Journal of Business 53:1 (1980)", params=(window(20),), fixed=(GARMAN_KLASS,),
         warm_up=lambda n: n - 1, state=sum_size, windowed=lambda n: n - 1)
@feature("rogers_satchell", "volatility", "Rogers-Satchell volatility of n bars, unbiased under drift.",
         formula="sqrt(mean(ln(H/C) ln(H/O) + ln(L/C) ln(L/O)))",
         source="Rogers, Satchell, Annals of Applied Probability 1:4 (1991)", params=(window(20),),
         fixed=(ROGERS_SATCHELL,), warm_up=lambda n: n - 1, state=sum_size, windowed=lambda n: n - 1)
@compiled
def range_volatility(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    mode = p[1]
    by_range = 1.0 / (4.0 * math.log(2.0)) if mode == PARKINSON else 0.5
    by_body = 0.0 if mode == PARKINSON else 2.0 * math.log(2.0) - 1.0
    for i in range(code.shape[0]):
        o = b[LOG_OPEN, i]
        h = b[LOG_HIGH, i]
        low = b[LOG_LOW, i]
        c = b[LOG_CLOSE, i]
        if mode == ROGERS_SATCHELL:
            term = (h - c) * (h - o) + (low - c) * (low - o)
        else:
            term = by_range * (h - low) * (h - low) - by_body * (c - o) * (c - o)
        mean = sum_push(state, code[i], 0, n, term) / n
        out[0, i] = math.sqrt(not_below_zero(mean))


@feature("yang_zhang", "volatility",
         "Yang-Zhang volatility of n bars: unbiased under drift, with the gaps between bars.",
         formula="sqrt(var ln(O/C') + k var ln(C/O) + (1-k) RS), k = 0.34/(1.34 + (n+1)/(n-1)); sample variances",
         source="Yang, Zhang, Journal of Business 73:3 (2000)", params=(window(20, low=2),), warm_up=lambda n: n,
         state=lambda n: 1 + 2 * moments_size(n) + sum_size(n), windowed=lambda n: n)
@compiled
def yang_zhang(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last log close (0: none), windows of gaps, bodies, Rogers-Satchell terms; the first bar is not pushed."""
    n = int(p[0])
    k = 0.34 / (1.34 + (n + 1.0) / (n - 1.0))
    size = 5 + 3 * n
    for i in range(code.shape[0]):
        r = code[i]
        o = b[LOG_OPEN, i]
        h = b[LOG_HIGH, i]
        low = b[LOG_LOW, i]
        c = b[LOG_CLOSE, i]
        last = state[r, 0]
        state[r, 0] = c if c != 0.0 else 1e-300  # 0: no bar yet
        if last == 0.0:
            out[0, i] = NAN
            continue
        _, gaps = moments_push(state, r, 1, n, o - last)
        _, bodies = moments_push(state, r, 1 + size, n, c - o)
        drift_free = sum_push(state, r, 1 + 2 * size, n, (h - c) * (h - o) + (low - c) * (low - o)) / n
        out[0, i] = math.sqrt((gaps + k * bodies) * (n / (n - 1.0)) + (1.0 - k) * not_below_zero(drift_free))


@feature("realized_vol", "volatility", "Standard deviation of the last n log returns (sample).",
         formula="sqrt(sum (r - mean r)**2 / (n - 1))", source="Campbell, Lo, MacKinlay (1997), 9.3",
         params=(window(20, low=2),), warm_up=lambda n: n, state=lambda n: 1 + moments_size(n), windowed=lambda n: n)
@compiled
def realized_vol(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    for i in range(code.shape[0]):
        r = code[i]
        x = b[LOG_CLOSE, i]
        last = state[r, 0]
        state[r, 0] = x if x != 0.0 else 1e-300  # 0: no bar yet
        if last == 0.0:
            out[0, i] = NAN
            continue
        _, variance = moments_push(state, r, 1, n, x - last)
        out[0, i] = math.sqrt(variance * (n / (n - 1.0)))


@feature("choppiness", "volatility", "Choppiness index: near 100 the market goes nowhere, near 0 it trends.",
         formula="100 log(sum TR / (max H - min L)) / log n over n bars; 100 where the range is empty",
         source="Dreiss (1992)", params=(window(14, low=2),), warm_up=lambda n: n,
         state=lambda n: 1 + 3 * sum_size(n), windowed=lambda n: n)
@compiled
def choppiness(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last close (0: none), windows of true ranges, highs, minus lows; the first bar is not pushed."""
    n = int(p[0])
    size = 3 + 2 * n
    scale = 100.0 / math.log(p[0])
    for i in range(code.shape[0]):
        r = code[i]
        high = b[HIGH, i]
        low = b[LOW, i]
        last = state[r, 0]
        state[r, 0] = b[CLOSE, i]
        if last == 0.0:
            out[0, i] = NAN
            continue
        tr = (last if last > high else high) - (last if last < low else low)
        path = sum_push(state, r, 1, n, tr)
        reach = max_push(state, r, 1 + size, n, high) + max_push(state, r, 1 + 2 * size, n, -low)
        out[0, i] = 100.0 if reach == 0.0 else scale * math.log(path / reach)
