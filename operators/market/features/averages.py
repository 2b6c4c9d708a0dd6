"""Moving averages of the close. Exponential ones start from the simple mean of their first n values."""

import math

from operators.market.features.columns import CLOSE, NOTIONAL, VOLUME, Codes, Floats, compiled
from operators.market.features.registry import feature, window
from operators.market.features.windows import NAN, line_push, line_size, ring_push, ring_size, sum_push, sum_size

SMA, VOLUME_SMA, VOLUME_RATIO = 0.0, 1.0, 2.0
VWMA, VWAP_DISTANCE = 0.0, 1.0
EMA, DEMA, TEMA, TRIX, RMA = 0.0, 1.0, 2.0, 3.0, 4.0


@feature("sma", "averages", "Simple moving average of the close.", formula="sum of the last n closes / n",
         source="Murphy (1999), 9", params=(window(20),), fixed=(SMA,), warm_up=lambda n: n - 1, state=sum_size,
         windowed=lambda n: n - 1)
@feature("volume_sma", "volume", "Simple moving average of the volume, this bar included.",
         formula="sum of the last n volumes / n", source="Murphy (1999), 7", params=(window(20),), fixed=(VOLUME_SMA,),
         warm_up=lambda n: n - 1, state=sum_size, windowed=lambda n: n - 1)
@feature("volume_ratio", "volume", "Relative volume: the bar's volume over the n-bar average that includes it.",
         formula="V / volume_sma(n); 1 where the window has no volume", source="Murphy (1999), 7", params=(window(20),),
         fixed=(VOLUME_RATIO,), warm_up=lambda n: n - 1, state=sum_size, windowed=lambda n: n - 1)
@compiled
def simple_mean(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    mode = p[1]
    column = CLOSE if mode == SMA else VOLUME
    for i in range(code.shape[0]):
        x = b[column, i]
        mean = sum_push(state, code[i], 0, n, x) / n
        if mode == VOLUME_RATIO:
            out[0, i] = 1.0 if mean == 0.0 else x / mean
        else:
            out[0, i] = mean


@feature("vwma", "averages",
         "Volume-weighted moving average of the close; the simple one where the window has no volume.",
         formula="sum C V / sum V over n bars", source="Arms, Volume Cycles in the Stock Market (1994)",
         params=(window(20),), fixed=(VWMA,), warm_up=lambda n: n - 1, state=lambda n: 3 * sum_size(n),
         windowed=lambda n: n - 1)
@feature("vwap_distance", "volume",
         "Distance of the close from the n-bar volume-weighted average price, as a fraction of it.",
         formula="C / (sum of notional / sum of volume over n bars) - 1", source="Berkowitz, Logue, Noser (1988)",
         params=(window(20),), fixed=(VWAP_DISTANCE,), warm_up=lambda n: n - 1, state=lambda n: 3 * sum_size(n),
         windowed=lambda n: n - 1)
@compiled
def volume_weighted(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    mode = p[1]
    size = 3 + 2 * n
    for i in range(code.shape[0]):
        r = code[i]
        close = b[CLOSE, i]
        volume = b[VOLUME, i]
        worth = close * volume
        if mode == VWAP_DISTANCE:
            worth = b[NOTIONAL, i]
        total = sum_push(state, r, 0, n, volume)
        paid = sum_push(state, r, size, n, worth)
        plain = sum_push(state, r, 2 * size, n, close) / n
        mean = plain if total == 0.0 else paid / total
        out[0, i] = mean if mode == VWMA else close / mean - 1.0


@feature("ema", "averages", "Exponential moving average of the close.",
         formula="E += 2/(n+1) (C - E), from the mean of the first n closes", source="Appel; Murphy (1999), 9",
         params=(window(20),), fixed=(EMA,), warm_up=lambda n: n - 1, state=lambda n: 5)
@feature("dema", "averages", "Double exponential moving average.",
         formula="2 E1 - E2, both from the mean of the first n closes",
         source="Mulloy, Stocks & Commodities 12:1 (1994)", params=(window(20),), fixed=(DEMA,),
         warm_up=lambda n: n - 1, state=lambda n: 5)
@feature("tema", "averages", "Triple exponential moving average.",
         formula="3 E1 - 3 E2 + E3, all from the mean of the first n closes",
         source="Mulloy, Stocks & Commodities 12:1 (1994)", params=(window(20),), fixed=(TEMA,),
         warm_up=lambda n: n - 1, state=lambda n: 5)
@feature("rma", "averages", "Wilder's moving average (smoothed, running).",
         formula="E += (C - E)/n, from the mean of the first n closes", source="Wilder (1978)", params=(window(14),),
         fixed=(RMA,), warm_up=lambda n: n - 1, state=lambda n: 5)
@feature("trix", "momentum", "Change of the triple-smoothed average from bar to bar, in percent.",
         formula="100 (E3[t] / E3[t-1] - 1)", source="Hutson, Stocks & Commodities 1:5 (1983)", params=(window(15),),
         fixed=(TRIX,), warm_up=lambda n: n, state=lambda n: 5)
@compiled
def ema_family(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: count up to n, sum of the first n, three averages."""
    n = p[0]
    mode = p[1]
    alpha = 1.0 / n if mode == RMA else 2.0 / (n + 1.0)
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        count = state[r, 0]
        if count < n:
            count += 1.0
            total = state[r, 1] + x
            state[r, 0] = count
            state[r, 1] = total
            seed = total / n
            state[r, 2] = seed
            state[r, 3] = seed
            state[r, 4] = seed
            out[0, i] = seed if count == n and mode != TRIX else NAN
            continue
        e1 = state[r, 2]
        e2 = state[r, 3]
        last = state[r, 4]
        e1 += alpha * (x - e1)
        e2 += alpha * (e1 - e2)
        e3 = last + alpha * (e2 - last)
        state[r, 2] = e1
        state[r, 3] = e2
        state[r, 4] = e3
        if mode == DEMA:
            out[0, i] = 2.0 * e1 - e2
        elif mode == TEMA:
            out[0, i] = 3.0 * e1 - 3.0 * e2 + e3
        elif mode == TRIX:
            out[0, i] = 100.0 * (e3 / last - 1.0)
        else:
            out[0, i] = e1


@feature("wma", "averages", "Linearly weighted moving average of the close: n for the newest, 1 for the oldest.",
         formula="sum t C[t] / (n (n+1) / 2), t = 1 .. n", source="Murphy (1999), 9", params=(window(20),),
         warm_up=lambda n: n - 1, state=line_size, windowed=lambda n: n - 1)
@compiled
def weighted(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    whole = 0.5 * n * (n + 1)
    for i in range(code.shape[0]):
        c, _, t, _ = line_push(state, code[i], 0, n, b[CLOSE, i])
        out[0, i] = c + t / whole


def _hull(n: int) -> int:
    return math.isqrt(n)


@feature("hma", "averages", "Hull moving average: little lag, smooth.",
         formula="WMA(2 WMA(C, n/2) - WMA(C, n), sqrt n), both rounded down", source="Hull (2005), alanhull.com",
         params=(window(20, low=2),), warm_up=lambda n: n - 1 + _hull(n) - 1,
         state=lambda n: line_size(n // 2) + line_size(n) + line_size(_hull(n)),
         windowed=lambda n: n - 1 + _hull(n) - 1)
@compiled
def hull(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    half = n // 2
    root = int(math.sqrt(p[0]))
    at_full = 6 + 4 * half
    at_root = at_full + 6 + 4 * n
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        c, _, t, _ = line_push(state, r, 0, half, x)
        quick = c + t / (0.5 * half * (half + 1))
        c, _, t, _ = line_push(state, r, at_full, n, x)
        slow = c + t / (0.5 * n * (n + 1))
        if slow == slow:
            c, _, t, _ = line_push(state, r, at_root, root, 2.0 * quick - slow)
            out[0, i] = c + t / (0.5 * root * (root + 1))
        else:
            out[0, i] = NAN


@feature("kama", "averages", "Kaufman's adaptive moving average, which follows fast in trends and slowly in noise.",
         formula="K += (ER (2/(fast+1) - 2/(slow+1)) + 2/(slow+1))**2 (C - K); ER = |C[t] - C[t-n]| / sum |dC|; "
                 "starts at bar n's close", source="Kaufman, Smarter Trading (1995)",
         params=(window(10), window(2, "fast"), window(30, "slow")), rising=("fast", "slow"), fixed=(0.0,),
         warm_up=lambda n, fast, slow: n - 1, state=lambda n, fast, slow: 2 + ring_size(n) + sum_size(n))
@feature("efficiency_ratio", "statistics",
         "Kaufman's efficiency ratio: net change over the path; 1 is a straight line, 0 noise.",
         formula="|C[t] - C[t-n]| / sum |dC| over n changes; 0 where nothing moved", source="Kaufman (1995)",
         params=(window(10),), fixed=(2.0, 30.0, 1.0), warm_up=lambda n: n,
         state=lambda n: 2 + ring_size(n) + sum_size(n), windowed=lambda n: n)
@compiled
def kaufman(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: average, bars seen up to n, ring of closes, window of absolute changes."""
    n = int(p[0])
    fast = 2.0 / (p[1] + 1.0)
    slow = 2.0 / (p[2] + 1.0)
    ratio_only = p[3] != 0.0
    at_path = 4 + n
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        k = int(state[r, 2])
        newest = state[r, 4 + (n - 1 if k == 0 else k - 1)]
        old = ring_push(state, r, 2, n, x)
        seen = state[r, 1]
        path = NAN
        if seen > 0.0:
            path = sum_push(state, r, at_path, n, abs(x - newest))
        if seen < n:
            state[r, 1] = seen + 1.0
            state[r, 0] = x
            out[0, i] = x if seen + 1.0 == n and not ratio_only else NAN
            continue
        ratio = abs(x - old) / path if path > 0.0 else 0.0
        if ratio_only:
            out[0, i] = ratio
        else:
            k1 = ratio * (fast - slow) + slow
            average = state[r, 0] + k1 * k1 * (x - state[r, 0])
            state[r, 0] = average
            out[0, i] = average
