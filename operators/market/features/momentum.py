"""Momentum oscillators. Where a window is flat an oscillator says its neutral value, not NaN."""

from operators.market.features.columns import CLOSE, HIGH, LOW, Codes, Floats, compiled
from operators.market.features.registry import feature, window
from operators.market.features.windows import NAN, max_push, ring_push, ring_size, sum_push, sum_size

STOCH, WILLR = 0.0, 1.0


@feature("rsi", "momentum", "Relative strength index, 0 to 100.",
         formula="100 U / (U + D), Wilder averages of gains and losses, from the means of the first n changes; 50 "
                 "where nothing moved", source="Wilder (1978), 6", params=(window(14),), warm_up=lambda n: n,
         state=lambda n: 4)
@compiled
def rsi(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to n + 1, last close, average gain, average loss."""
    n = p[0]
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        change = x - state[r, 1]
        state[r, 1] = x
        seen = state[r, 0]
        if seen == 0.0:
            state[r, 0] = 1.0
            out[0, i] = NAN
            continue
        gain = change if change > 0.0 else 0.0
        loss = -change if change < 0.0 else 0.0
        if seen <= n:
            up = state[r, 2] + gain / n
            down = state[r, 3] + loss / n
            state[r, 0] = seen + 1.0
        else:
            up = state[r, 2] + (gain - state[r, 2]) / n
            down = state[r, 3] + (loss - state[r, 3]) / n
        state[r, 2] = up
        state[r, 3] = down
        if seen < n:
            out[0, i] = NAN
        else:
            out[0, i] = 100.0 * up / (up + down) if up + down > 0.0 else 50.0


@feature("cmo", "momentum", "Chande momentum oscillator, -100 to 100.",
         formula="100 (sum gains - sum losses) / (sum of both) over n changes",
         source="Chande, Kroll, The New Technical Trader (1994)", params=(window(14),), warm_up=lambda n: n,
         state=lambda n: 1 + 2 * sum_size(n), windowed=lambda n: n)
@compiled
def cmo(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last close (0: none), windows of gains and of losses."""
    n = int(p[0])
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        last = state[r, 0]
        state[r, 0] = x
        if last == 0.0:
            out[0, i] = NAN
            continue
        change = x - last
        up = sum_push(state, r, 1, n, change if change > 0.0 else 0.0)
        down = sum_push(state, r, 4 + 2 * n, n, -change if change < 0.0 else 0.0)
        out[0, i] = 0.0 if up + down == 0.0 else 100.0 * (up - down) / (up + down)


@feature("stoch", "momentum",
         "Stochastic oscillator: the close within the n-bar range, smoothed, and its average; 0 to 100.",
         formula="k = SMA(100 (C - LL) / (HH - LL), smooth); d = SMA(k, signal); 0 where the range is empty",
         source="Lane (1984)", params=(window(14), window(3, "smooth"), window(3, "signal")), outputs=("k", "d"),
         fixed=(STOCH,), warm_up=lambda n, k, d: (n + k - 2, n + k + d - 3),
         state=lambda n, k, d: 2 * sum_size(n) + sum_size(k) + sum_size(d), windowed=lambda n, k, d: n + k + d - 3)
@feature("willr", "momentum", "Williams %R: the close within the n-bar range, -100 to 0.",
         formula="-100 (HH - C) / (HH - LL)", source="Williams, How I Made One Million Dollars (1973)",
         params=(window(14),), fixed=(1.0, 1.0, WILLR), warm_up=lambda n: n - 1,
         state=lambda n: 2 * sum_size(n) + 2 * sum_size(1), windowed=lambda n: n - 1)
@compiled
def stochastic(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    smooth = int(p[1])
    signal = int(p[2])
    mode = p[3]
    size = 3 + 2 * n
    at_d = 2 * size + 3 + 2 * smooth
    for i in range(code.shape[0]):
        r = code[i]
        high = max_push(state, r, 0, n, b[HIGH, i])
        low = -max_push(state, r, size, n, -b[LOW, i])
        raw = 0.0 if high == low else 100.0 * (b[CLOSE, i] - low) / (high - low)
        if mode == WILLR:
            out[0, i] = raw - 100.0
            continue
        k = NAN
        d = NAN
        if raw == raw:
            k = sum_push(state, r, 2 * size, smooth, raw) / smooth
            if k == k:
                d = sum_push(state, r, at_d, signal, k) / signal
        out[0, i] = k
        out[1, i] = d


@feature("stochrsi", "momentum", "Stochastic of the RSI, smoothed, and its average; 0 to 100.",
         formula="k = SMA(100 (RSI - min RSI) / (max RSI - min RSI), smooth); d = SMA(k, signal); 0 where the RSI "
                 "stood still", source="Chande, Kroll (1994)",
         params=(window(14, "rsi_length"), window(14), window(3, "smooth"), window(3, "signal")), outputs=("k", "d"),
         warm_up=lambda m, n, k, d: (m + n + k - 2, m + n + k + d - 3),
         state=lambda m, n, k, d: 4 + 2 * sum_size(n) + sum_size(k) + sum_size(d))
@compiled
def stochrsi(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: that of `rsi`, windows of largest, smallest, k, d. The RSI is made by `rsi` in `out[0]`."""
    n = int(p[1])
    smooth = int(p[2])
    signal = int(p[3])
    at_low = 4 + 3 + 2 * n
    at_k = at_low + 3 + 2 * n
    at_d = at_k + 3 + 2 * smooth
    rsi(code, b, p, state, out)
    for i in range(code.shape[0]):
        r = code[i]
        x = out[0, i]
        k = NAN
        d = NAN
        if x == x:
            high = max_push(state, r, 4, n, x)
            low = -max_push(state, r, at_low, n, -x)
            raw = 0.0 if high == low else 100.0 * (x - low) / (high - low)
            if raw == raw:
                k = sum_push(state, r, at_k, smooth, raw) / smooth
                if k == k:
                    d = sum_push(state, r, at_d, signal, k) / signal
        out[0, i] = k
        out[1, i] = d


@feature("cci", "momentum", "Commodity channel index: distance of the typical price from its mean, in mean deviations.",
         formula="(TP - mean TP) / (0.015 mean |TP - mean TP|), TP = (H + L + C)/3; 0 where the window is flat",
         source="Lambert, Commodities 9 (1980)", params=(window(20),), warm_up=lambda n: n - 1,
         state=lambda n: ring_size(n), windowed=lambda n: n - 1)
@compiled
def cci(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """The mean deviation has no recurrence: two passes over the ring, in four lanes, as distances from the newest."""
    n = int(p[0])
    lanes = n - n % 4
    for i in range(code.shape[0]):
        r = code[i]
        x = (b[HIGH, i] + b[LOW, i] + b[CLOSE, i]) / 3.0
        ring_push(state, r, 0, n, x)
        if state[r, 1] == 0.0:
            out[0, i] = NAN
            continue
        ring = state[r, 2 : 2 + n]
        a0 = 0.0
        a1 = 0.0
        a2 = 0.0
        a3 = 0.0
        for j in range(0, lanes, 4):
            a0 += ring[j] - x
            a1 += ring[j + 1] - x
            a2 += ring[j + 2] - x
            a3 += ring[j + 3] - x
        for j in range(lanes, n):
            a0 += ring[j] - x
        off = ((a0 + a1) + (a2 + a3)) / n
        mean = x + off
        a0 = 0.0
        a1 = 0.0
        a2 = 0.0
        a3 = 0.0
        for j in range(0, lanes, 4):
            a0 += abs(ring[j] - mean)
            a1 += abs(ring[j + 1] - mean)
            a2 += abs(ring[j + 2] - mean)
            a3 += abs(ring[j + 3] - mean)
        for j in range(lanes, n):
            a0 += abs(ring[j] - mean)
        deviation = ((a0 + a1) + (a2 + a3)) / n
        out[0, i] = -off / (0.015 * deviation) if deviation > 0.0 else 0.0
