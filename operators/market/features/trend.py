"""Momentum that speaks of trends: MACD, directional movement, Aroon."""

from operators.market.features.columns import CLOSE, HIGH, LOW, Codes, Floats, compiled
from operators.market.features.registry import feature, window
from operators.market.features.windows import NAN


@feature("macd", "momentum",
         "Moving average convergence divergence: fast less slow average, its average, and the rest between them.",
         formula="macd = EMA(C, fast) - EMA(C, slow); signal = EMA(macd, signal); histogram = macd - signal",
         source="Appel (1979)", params=(window(12, "fast"), window(26, "slow"), window(9, "signal")),
         outputs=("macd", "signal", "histogram"), rising=("fast", "slow"),
         warm_up=lambda f, s, g: (s - 1, s + g - 2, s + g - 2), state=lambda f, s, g: 7)
@compiled
def macd(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to slow + signal, then sum and average of fast, slow and signal, each starting from a simple
    mean.
    """
    fast = p[0]
    slow = p[1]
    signal = p[2]
    a_fast = 2.0 / (fast + 1.0)
    a_slow = 2.0 / (slow + 1.0)
    a_signal = 2.0 / (signal + 1.0)
    ready = slow + signal - 1.0
    for i in range(code.shape[0]):
        r = code[i]
        x = b[CLOSE, i]
        seen = state[r, 0]
        if seen < ready:
            seen += 1.0
            state[r, 0] = seen
            if seen <= fast:
                state[r, 1] += x
                state[r, 2] = state[r, 1] / fast
            else:
                state[r, 2] += a_fast * (x - state[r, 2])
            if seen <= slow:
                state[r, 3] += x
                state[r, 4] = state[r, 3] / slow
            else:
                state[r, 4] += a_slow * (x - state[r, 4])
            line = state[r, 2] - state[r, 4]
            if seen >= slow:
                state[r, 5] += line
                state[r, 6] = state[r, 5] / signal
            out[0, i] = line if seen >= slow else NAN
            out[1, i] = state[r, 6] if seen == ready else NAN
            out[2, i] = line - state[r, 6] if seen == ready else NAN
            continue
        quick = state[r, 2] + a_fast * (x - state[r, 2])
        late = state[r, 4] + a_slow * (x - state[r, 4])
        line = quick - late
        average = state[r, 6] + a_signal * (line - state[r, 6])
        state[r, 2] = quick
        state[r, 4] = late
        state[r, 6] = average
        out[0, i] = line
        out[1, i] = average
        out[2, i] = line - average


@feature("adx", "momentum", "Average directional index, and the two directional indicators; 0 to 100.",
         formula="DI = 100 smoothed DM / smoothed TR; DX = 100 |+DI - -DI| / (+DI + -DI); ADX: Wilder average of DX, "
                 "from the mean of n", source="Wilder (1978), 4", params=(window(14),),
         outputs=("adx", "plus_di", "minus_di"), warm_up=lambda n: (2 * n - 1, n, n), state=lambda n: 8)
@compiled
def adx(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to 2n, last high, low, close, smoothed TR, +DM, -DM, average of DX."""
    n = p[0]
    for i in range(code.shape[0]):
        r = code[i]
        high = b[HIGH, i]
        low = b[LOW, i]
        seen = state[r, 0]
        up = high - state[r, 1]
        down = state[r, 2] - low
        last = state[r, 3]
        state[r, 1] = high
        state[r, 2] = low
        state[r, 3] = b[CLOSE, i]
        if seen < 2.0 * n:
            state[r, 0] = seen + 1.0
        if seen == 0.0:
            out[0, i] = NAN
            out[1, i] = NAN
            out[2, i] = NAN
            continue
        tr = (last if last > high else high) - (last if last < low else low)
        keep = 1.0 if seen <= n else 1.0 - 1.0 / n
        tr += keep * state[r, 4]
        plus = keep * state[r, 5] + (up if up > down and up > 0.0 else 0.0)
        minus = keep * state[r, 6] + (down if down > up and down > 0.0 else 0.0)
        state[r, 4] = tr
        state[r, 5] = plus
        state[r, 6] = minus
        if seen < n:
            out[0, i] = NAN
            out[1, i] = NAN
            out[2, i] = NAN
            continue
        out[1, i] = 100.0 * plus / tr if tr > 0.0 else 0.0
        out[2, i] = 100.0 * minus / tr if tr > 0.0 else 0.0
        dx = 100.0 * abs(plus - minus) / (plus + minus) if plus + minus > 0.0 else 0.0
        if seen < 2.0 * n:
            state[r, 7] += dx / n
        else:
            state[r, 7] += (dx - state[r, 7]) / n
        out[0, i] = state[r, 7] if seen >= 2.0 * n - 1.0 else NAN


@feature("aroon", "momentum", "Aroon: how long ago the highest high and the lowest low of n + 1 bars were; 0 to 100.",
         formula="up = 100 (n - bars since highest high) / n, the latest where several are equal; oscillator = up - "
                 "down", source="Chande, Stocks & Commodities 13:9 (1995)", params=(window(25),),
         outputs=("up", "down", "oscillator"), warm_up=lambda n: n, state=lambda n: 6 + 2 * (n + 1),
         windowed=lambda n: n)
@compiled
def aroon(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: position, full, highest, its age, lowest, its age, ring of highs and lows. Searched again when the
    extreme leaves.
    """
    n = int(p[0])
    w = n + 1
    for i in range(code.shape[0]):
        r = code[i]
        k = int(state[r, 0])
        for side in range(2):
            x = b[HIGH, i] if side == 0 else -b[LOW, i]
            best = state[r, 2 + 2 * side]
            age = state[r, 3 + 2 * side] + 1.0
            ring = 6 + side * w
            state[r, ring + k] = x
            if x >= best or (k == 0 and state[r, 1] == 0.0):
                best = x
                age = 0.0
            elif age > n:
                best = x
                age = 0.0
                j = k
                for back in range(1, w):
                    j = w - 1 if j == 0 else j - 1
                    if state[r, ring + j] > best:
                        best = state[r, ring + j]
                        age = back
            state[r, 2 + 2 * side] = best
            state[r, 3 + 2 * side] = age
        k += 1
        if k == w:
            k = 0
            state[r, 1] = 1.0
        state[r, 0] = k
        if state[r, 1] == 0.0:
            out[0, i] = NAN
            out[1, i] = NAN
            out[2, i] = NAN
        else:
            up = 100.0 * (n - state[r, 3]) / n
            down = 100.0 * (n - state[r, 5]) / n
            out[0, i] = up
            out[1, i] = down
            out[2, i] = up - down
