"""Order flow and liquidity: who trades, how often, and what a trade costs. NaN where a recording has no sides or
quotes.
"""

import math

from operators.market.features.columns import (
    ASK,
    ASK_SIZE,
    BID,
    BID_SIZE,
    BUY_VOLUME,
    CLOSE,
    INTERVAL,
    LOG_CLOSE,
    NOTIONAL,
    TRADE_COUNT,
    VOLUME,
    Codes,
    Floats,
    compiled,
)
from operators.market.features.registry import feature, window
from operators.market.features.windows import NAN, pair_push, pair_size, sum_push, sum_size

BUY_RATIO, SIGNED_VOLUME, INTENSITY, TRADE_SIZE, AMIHUD = 0.0, 1.0, 2.0, 3.0, 4.0
ROLL, KYLE, AUTOCORR = 0.0, 1.0, 2.0
IMBALANCE, SPREAD, MICROPRICE = 0.0, 1.0, 2.0


@feature("buy_ratio", "orderflow", "Share of the volume whose aggressor bought, over n bars; 0.5 without volume.",
         formula="sum buy volume / sum V", source="Easley, López de Prado, O'Hara (2012), order imbalance",
         params=(window(20),), fixed=(BUY_RATIO,), warm_up=lambda n: n - 1, state=lambda n: 1 + 2 * sum_size(n),
         windowed=lambda n: n - 1)
@feature("signed_volume", "orderflow", "Volume bought less volume sold by aggressors, over n bars, in base units.",
         formula="sum (2 buy volume - V)", source="Hasbrouck, Empirical Market Microstructure (2007), 9",
         params=(window(20),), fixed=(SIGNED_VOLUME,), warm_up=lambda n: n - 1, state=lambda n: 1 + 2 * sum_size(n),
         windowed=lambda n: n - 1)
@feature("trade_intensity", "orderflow", "Trades per second over n bars; 0 where the recording does not count trades.",
         formula="sum trades / sum of the bars' lengths", source="Engle, Russell, Econometrica 66:5 (1998)",
         params=(window(20),), fixed=(INTENSITY,), warm_up=lambda n: n - 1, state=lambda n: 1 + 2 * sum_size(n),
         windowed=lambda n: n - 1)
@feature("trade_size", "orderflow", "Average trade over n bars, in base units; NaN without trades.",
         formula="sum V / sum trades", source="Hasbrouck (2007)", params=(window(20),), fixed=(TRADE_SIZE,),
         warm_up=lambda n: n - 1, state=lambda n: 1 + 2 * sum_size(n), windowed=lambda n: n - 1)
@feature("amihud", "orderflow",
         "Amihud illiquidity: price moved per million of quote currency traded, over the n bars that traded.",
         formula="1e6 mean(|ln(C/C')| / notional); NaN where none of them traded",
         source="Amihud, Journal of Financial Markets 5:1 (2002)", params=(window(20),), fixed=(AMIHUD,),
         warm_up=lambda n: n, state=lambda n: 1 + 2 * sum_size(n), windowed=lambda n: n)
@compiled
def flow(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: last log close (0: none), windows of what is above and below the line."""
    n = int(p[0])
    mode = p[1]
    for i in range(code.shape[0]):
        r = code[i]
        above = b[VOLUME, i]
        below = above
        if mode == BUY_RATIO:
            above = b[BUY_VOLUME, i]
        elif mode == SIGNED_VOLUME:
            above = 2.0 * b[BUY_VOLUME, i] - below
        elif mode == INTENSITY:
            above = b[TRADE_COUNT, i]
            below = b[INTERVAL, i]
        elif mode == TRADE_SIZE:
            below = b[TRADE_COUNT, i]
        else:
            x = b[LOG_CLOSE, i]
            last = state[r, 0]
            state[r, 0] = x if x != 0.0 else 1e-300  # 0: no bar yet
            if last == 0.0:
                out[0, i] = NAN
                continue
            traded = b[NOTIONAL, i] > 0.0
            above = 1e6 * abs(x - last) / b[NOTIONAL, i] if traded else 0.0
            below = 1.0 if traded else 0.0
        a = sum_push(state, r, 1, n, above)
        z = sum_push(state, r, 4 + 2 * n, n, below)
        if mode == SIGNED_VOLUME:
            out[0, i] = a
        elif z != 0.0:
            out[0, i] = a / z
        else:
            out[0, i] = 0.5 if mode == BUY_RATIO and a == a else NAN


@feature("roll_spread", "orderflow",
         "Roll's effective spread, from the bounce of price changes over n pairs, in price; 0 where they trend.",
         formula="2 sqrt(-cov(dC[t], dC[t-1])), 0 where the covariance is positive",
         source="Roll, Journal of Finance 39:4 (1984)", params=(window(20, low=2),), fixed=(1.0, ROLL),
         warm_up=lambda n: n + 1, state=lambda n: 3 + pair_size(n), windowed=lambda n: n + 1)
@feature("kyle_lambda", "orderflow",
         "Kyle's lambda: price moved per base unit of signed volume, over n bars; 0 where the volume did not vary.",
         formula="cov(dC, 2 buy volume - V) / var(2 buy volume - V)",
         source="Kyle, Econometrica 53:6 (1985); Hasbrouck (2007)", params=(window(20, low=2),), fixed=(1.0, KYLE),
         warm_up=lambda n: n, state=lambda n: 3 + pair_size(n), windowed=lambda n: n)
@feature("autocorr", "statistics", "Autocorrelation of log returns at a lag, over n pairs; 0 where they did not vary.",
         formula="corr(r[t], r[t-lag])", source="Campbell, Lo, MacKinlay (1997), 2.4",
         params=(window(50, low=2), window(1, "lag")), fixed=(AUTOCORR,), warm_up=lambda n, lag: n + lag,
         state=lambda n, lag: 2 + lag + pair_size(n), windowed=lambda n, lag: n + lag)
@compiled
def pairs(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: changes seen up to 2 lag + 1, last price, ring of `lag` changes, window of pairs."""
    n = int(p[0])
    lag = int(p[1])
    mode = p[2]
    column = LOG_CLOSE if mode == AUTOCORR else CLOSE
    for i in range(code.shape[0]):
        r = code[i]
        x = b[column, i]
        seen = int(state[r, 0])
        change = x - state[r, 1]
        state[r, 1] = x
        state[r, 0] = seen + 1 if seen < 2 * lag else lag + 1
        if seen == 0:
            out[0, i] = NAN
            continue
        slot = 2 + (seen - 1) % lag
        other = state[r, slot]
        state[r, slot] = change
        if mode == KYLE:
            other = 2.0 * b[BUY_VOLUME, i] - b[VOLUME, i]
        elif seen <= lag:
            out[0, i] = NAN
            continue
        var_x, var_y, cov = pair_push(state, r, 2 + lag, n, change, other)
        if mode == ROLL:
            out[0, i] = 2.0 * math.sqrt(-cov) if cov < 0.0 or cov != cov else 0.0
        elif mode == KYLE:
            out[0, i] = 0.0 if var_y == 0.0 else cov / var_y
        else:
            out[0, i] = 0.0 if var_x == 0.0 or var_y == 0.0 else cov / math.sqrt(var_x * var_y)


@feature("book_imbalance", "orderflow", "Imbalance of the best quotes at the close: 1 all bids, -1 all offers.",
         formula="(bid size - ask size) / (bid size + ask size)", source="Cartea, Jaimungal, Penalva (2015), 12",
         fixed=(IMBALANCE,), windowed=lambda: 0)
@feature("spread", "orderflow", "Quoted spread at the close, in basis points of the middle.",
         formula="1e4 (ask - bid) / middle", source="Hasbrouck (2007)", fixed=(SPREAD,), windowed=lambda: 0)
@feature("microprice", "orderflow",
         "Distance of the size-weighted middle from the middle of the quotes, in basis points.",
         formula="1e4 ((bid ask_size + ask bid_size) / (bid_size + ask_size) / middle - 1)",
         source="Stoikov, Quantitative Finance 18:12 (2018)", fixed=(MICROPRICE,), windowed=lambda: 0)
@compiled
def quoted(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    mode = p[0]
    for i in range(code.shape[0]):
        bid = b[BID, i]
        ask = b[ASK, i]
        below = b[BID_SIZE, i]
        above = b[ASK_SIZE, i]
        middle = 0.5 * (bid + ask)
        value = NAN
        if mode == SPREAD:
            if bid > 0.0 and ask > 0.0:
                value = 1e4 * (ask - bid) / middle
        elif below + above > 0.0:
            if mode == IMBALANCE:
                value = (below - above) / (below + above)
            elif bid > 0.0 and ask > 0.0:
                value = 1e4 * ((bid * above + ask * below) / (below + above) / middle - 1.0)
        out[0, i] = value
