"""Returns and distances from a bar some way back, and shapes of a single bar."""

from operators.market.features.columns import CLOSE, HIGH, LOG_CLOSE, LOW, OPEN, Codes, Floats, compiled
from operators.market.features.registry import feature, window
from operators.market.features.windows import NAN, ring_push, ring_size

RET, LOG_RET, ROC, MOM = 0.0, 1.0, 2.0, 3.0
GAP, BODY, TRUE_RANGE, RANGE = 0.0, 1.0, 2.0, 3.0


@feature("ret", "returns", "Simple return over n bars, as a fraction.", formula="C[t] / C[t-n] - 1",
         source="Campbell, Lo, MacKinlay (1997), 1.4", params=(window(1),), fixed=(RET,), warm_up=lambda n: n,
         state=ring_size, windowed=lambda n: n)
@feature("log_ret", "returns", "Logarithmic return over n bars.", formula="ln(C[t] / C[t-n])",
         source="Campbell, Lo, MacKinlay (1997), 1.4", params=(window(1),), fixed=(LOG_RET,), warm_up=lambda n: n,
         state=ring_size, windowed=lambda n: n)
@feature("roc", "momentum", "Rate of change over n bars, in percent.", formula="100 (C[t] / C[t-n] - 1)",
         source="Murphy, Technical Analysis of the Financial Markets (1999), 10", params=(window(14),), fixed=(ROC,),
         warm_up=lambda n: n, state=ring_size, windowed=lambda n: n)
@feature("mom", "momentum", "Momentum: change of the close over n bars, in price.", formula="C[t] - C[t-n]",
         source="Murphy (1999), 10", params=(window(10),), fixed=(MOM,), warm_up=lambda n: n, state=ring_size,
         windowed=lambda n: n)
@compiled
def lagged(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    mode = p[1]
    column = LOG_CLOSE if mode == LOG_RET else CLOSE
    for i in range(code.shape[0]):
        x = b[column, i]
        old = ring_push(state, code[i], 0, n, x)
        if mode == RET:
            out[0, i] = x / old - 1.0
        elif mode == ROC:
            out[0, i] = 100.0 * (x / old - 1.0)
        else:
            out[0, i] = x - old


@feature("gap_ret", "returns", "Return from the last close to this open: the overnight or weekend gap.",
         formula="O[t] / C[t-1] - 1", source="Yang, Zhang (2000)", fixed=(GAP,), warm_up=lambda: 1, windowed=lambda: 1)
@feature("body_ret", "returns", "Return from the open to the close of the bar.", formula="C[t] / O[t] - 1",
         source="Nison, Japanese Candlestick Charting Techniques (1991)", fixed=(BODY,), windowed=lambda: 0)
@feature("true_range", "volatility", "True range: the bar's range with the gap before it.",
         formula="max(H, C[t-1]) - min(L, C[t-1])",
         source="Wilder, New Concepts in Technical Trading Systems (1978), 3", fixed=(TRUE_RANGE,), warm_up=lambda: 1,
         windowed=lambda: 1)
@feature("range_ratio", "volatility", "The bar's range as a fraction of its close.", formula="(H - L) / C",
         source="Parkinson (1980), without the logarithm", fixed=(RANGE,), windowed=lambda: 0)
@compiled
def bar_shape(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: the last close, 0 before there is one."""
    mode = p[0]
    for i in range(code.shape[0]):
        last = state[code[i], 0]
        if last == 0.0:
            last = NAN
        close = b[CLOSE, i]
        state[code[i], 0] = close
        if mode == GAP:
            out[0, i] = b[OPEN, i] / last - 1.0
        elif mode == BODY:
            out[0, i] = close / b[OPEN, i] - 1.0
        elif mode == RANGE:
            out[0, i] = (b[HIGH, i] - b[LOW, i]) / close
        else:
            high = b[HIGH, i]
            low = b[LOW, i]
            high = last if last > high else high
            low = last if last < low else low
            out[0, i] = high - low if last == last else NAN
