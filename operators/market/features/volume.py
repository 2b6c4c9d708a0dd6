"""Volume and money flow. Averages of volume are in `averages`, its z-score in `bands`, next to the kernels they share.
"""

from operators.market.features.columns import CLOSE, HIGH, LOW, TS_OPEN, VOLUME, Codes, Floats, compiled
from operators.market.features.registry import Param, feature, window
from operators.market.features.windows import NAN, sum_push, sum_size

OBV, ADL, VWAP = 0.0, 1.0, 2.0


@feature("obv", "volume", "On-balance volume since the tape began; 0 on the first bar.",
         formula="± V with the sign of the close's change, summed",
         source="Granville, New Key to Stock Market Profits (1963)", fixed=(0.0, OBV), state=lambda: 3)
@feature("adl", "volume", "Accumulation/distribution line since the tape began.",
         formula="sum of V ((C - L) - (H - C)) / (H - L); 0 for a bar without range",
         source="Chaikin; Achelis, Technical Analysis from A to Z (1995)", fixed=(0.0, ADL), state=lambda: 3)
@feature("vwap", "volume",
         "Volume-weighted average of the typical price since the tape began, or since the last anchor.",
         formula="sum TP V / sum V, TP = (H + L + C)/3; anchor: start again every so many minutes since 1970 UTC "
                 "(1440: each day), 0 never", source="Berkowitz, Logue, Noser, Journal of Finance 43:1 (1988)",
         params=(Param("anchor", 0, 0, 525_600),), fixed=(VWAP,), state=lambda anchor: 3)
@compiled
def cumulative(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: sum; last close (0: none) or sum of volumes; number of the anchor period + 1."""
    anchor = 60.0 * p[0]
    mode = p[1]
    for i in range(code.shape[0]):
        r = code[i]
        close = b[CLOSE, i]
        high = b[HIGH, i]
        low = b[LOW, i]
        volume = b[VOLUME, i]
        total = state[r, 0]
        second = state[r, 1]
        if mode == OBV:
            if second != 0.0 and close != second:
                total += volume if close > second else -volume
            second = close
            value = total
        elif mode == ADL:
            if high > low:
                total += volume * ((close - low) - (high - close)) / (high - low)
            value = total
        else:
            typical = (high + low + close) / 3.0
            if anchor > 0.0:
                period = b[TS_OPEN, i] // anchor + 1.0
                if period != state[r, 2]:
                    state[r, 2] = period
                    total = 0.0
                    second = 0.0
            total += typical * volume
            second += volume
            value = total / second if second > 0.0 else typical
        state[r, 0] = total
        state[r, 1] = second
        out[0, i] = value


@feature("mfi", "volume", "Money flow index, the volume-weighted RSI; 0 to 100.",
         formula="100 P / (P + N): TP V summed over n bars where TP rose and where it fell; 50 where neither",
         source="Quong, Soudack, Stocks & Commodities 7:3 (1989)", params=(window(14),), fixed=(0.0,),
         warm_up=lambda n: n, state=lambda n: 1 + 2 * sum_size(n), windowed=lambda n: n)
@feature("cmf", "volume", "Chaikin money flow, -1 to 1.",
         formula="sum V ((C - L) - (H - C)) / (H - L) / sum V over n bars; 0 without volume",
         source="Chaikin; Achelis (1995)", params=(window(20),), fixed=(1.0,), warm_up=lambda n: n - 1,
         state=lambda n: 1 + 2 * sum_size(n), windowed=lambda n: n - 1)
@compiled
def money_flow(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last typical price (0: none), two windows."""
    n = int(p[0])
    chaikin = p[1] != 0.0
    for i in range(code.shape[0]):
        r = code[i]
        close = b[CLOSE, i]
        high = b[HIGH, i]
        low = b[LOW, i]
        volume = b[VOLUME, i]
        if chaikin:
            first = volume * ((close - low) - (high - close)) / (high - low) if high > low else 0.0
            second = volume
        else:
            typical = (high + low + close) / 3.0
            last = state[r, 0]
            state[r, 0] = typical
            if last == 0.0:
                out[0, i] = NAN
                continue
            first = typical * volume if typical > last else 0.0
            second = typical * volume if typical < last else 0.0
        a = sum_push(state, r, 1, n, first)
        z = sum_push(state, r, 4 + 2 * n, n, second)
        if chaikin:
            out[0, i] = a / z if z != 0.0 else 0.0
        else:
            out[0, i] = 100.0 * a / (a + z) if a + z != 0.0 else 50.0
