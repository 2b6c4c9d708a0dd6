"""Bands, channels and trailing lines around the price."""

import math

from operators.market.features.columns import CLOSE, HIGH, LOW, VOLUME, Codes, Floats, compiled
from operators.market.features.registry import feature, real, window
from operators.market.features.windows import NAN, max_push, moments_push, moments_size, sum_size

BOLLINGER, STDEV, ZSCORE, VOLUME_Z = 0.0, 1.0, 2.0, 3.0


@feature("bollinger", "bands", "Bollinger bands, the close's place in them (%B) and their width over the middle.",
         formula="middle = SMA(C, n); bands = middle ± k population deviations; percent_b = (C - lower)/(upper - "
                 "lower); width = (upper - lower)/middle", source="Bollinger on Bollinger Bands (2001)",
         params=(window(20, low=2), real("k", 2.0, 0.01, 100.0)),
         outputs=("upper", "middle", "lower", "percent_b", "width"), fixed=(BOLLINGER,), warm_up=lambda n, k: n - 1,
         state=lambda n, k: moments_size(n), windowed=lambda n, k: n - 1)
@feature("stdev", "volatility", "Standard deviation of the close over n bars (population), in price.",
         formula="sqrt(mean (C - mean C)**2)", source="population estimator", params=(window(20, low=2),),
         fixed=(0.0, STDEV), warm_up=lambda n: n - 1, state=moments_size, windowed=lambda n: n - 1)
@feature("zscore", "statistics",
         "Distance of the close from its n-bar mean in population deviations; 0 where the window is flat.",
         formula="(C - mean C) / stdev C", source="standard score", params=(window(20, low=2),), fixed=(0.0, ZSCORE),
         warm_up=lambda n: n - 1, state=moments_size, windowed=lambda n: n - 1)
@feature("volume_z", "volume",
         "Distance of the volume from its n-bar mean in population deviations; 0 where the window is flat.",
         formula="(V - mean V) / stdev V", source="standard score", params=(window(20, low=2),), fixed=(0.0, VOLUME_Z),
         warm_up=lambda n: n - 1, state=moments_size, windowed=lambda n: n - 1)
@compiled
def deviation(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    n = int(p[0])
    mode = p[2]
    column = VOLUME if mode == VOLUME_Z else CLOSE
    for i in range(code.shape[0]):
        x = b[column, i]
        mean, variance = moments_push(state, code[i], 0, n, x)
        sd = math.sqrt(variance)
        if mode == BOLLINGER:
            half = p[1] * sd
            out[0, i] = mean + half
            out[1, i] = mean
            out[2, i] = mean - half
            out[3, i] = 0.5 if half == 0.0 else 0.5 + 0.5 * (x - mean) / half
            out[4, i] = 2.0 * half / mean
        elif mode == STDEV:
            out[0, i] = sd
        else:
            out[0, i] = 0.0 if sd == 0.0 else (x - mean) / sd


@feature("keltner", "bands", "Keltner channel: an exponential average and k true ranges around it.",
         formula="middle = EMA(C, n); bands = middle ± k ATR(atr_length); width = (upper - lower)/middle",
         source="Raschke's version of Keltner (1960)",
         params=(window(20), real("k", 2.0, 0.01, 100.0), window(10, "atr_length")),
         outputs=("upper", "middle", "lower", "width"), fixed=(0.0,),
         warm_up=lambda n, k, a: (max(n - 1, a), n - 1, max(n - 1, a), max(n - 1, a)), state=lambda n, k, a: 8)
@feature("supertrend", "bands",
         "Supertrend: a trailing line k true ranges off the middle of the bar, on the side of the trend.",
         formula="bands (H + L)/2 ± k ATR(n), which only tighten until the close crosses them",
         source="Seban (2009); as Skender, TradingView", params=(window(10), real("k", 3.0, 0.01, 100.0)),
         fixed=(0.0, 1.0), warm_up=lambda n, k: n, state=lambda n, k: 8)
@compiled
def atr_bands(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen, last close, ATR, then EMA (Keltner) or upper, lower, side 1/-1, 0 before (Supertrend)."""
    trend = p[3] != 0.0
    k = p[1]
    n_ema = p[0]
    n_atr = p[0] if trend else p[2]
    ready = max(n_ema, n_atr + 1.0)
    alpha = 2.0 / (n_ema + 1.0)
    for i in range(code.shape[0]):
        r = code[i]
        high = b[HIGH, i]
        low = b[LOW, i]
        close = b[CLOSE, i]
        seen = state[r, 0]
        last = state[r, 1]
        atr = state[r, 2]
        tr = (last if last > high else high) - (last if last < low else low)
        if seen > n_atr:
            atr += (tr - atr) / n_atr
        elif seen > 0.0:
            atr += tr / n_atr
        if seen < ready:
            state[r, 0] = seen + 1.0
        state[r, 1] = close
        state[r, 2] = atr
        if not trend:
            ema = state[r, 3]
            ema += close / n_ema if seen < n_ema else alpha * (close - ema)
            state[r, 3] = ema
            reach = k * atr if seen >= n_atr and seen + 1.0 >= n_ema else NAN
            out[0, i] = ema + reach
            out[1, i] = ema if seen + 1.0 >= n_ema else NAN
            out[2, i] = ema - reach
            out[3, i] = 2.0 * reach / ema
            continue
        if seen < n_atr:
            out[0, i] = NAN
            continue
        middle = 0.5 * (high + low)
        upper = state[r, 3]
        lower = state[r, 4]
        side = state[r, 5]
        if side == 0.0 or middle + k * atr < upper or last > upper:
            upper = middle + k * atr
        if side == 0.0 or middle - k * atr > lower or last < lower:
            lower = middle - k * atr
        if side == 0.0:
            side = 1.0 if close >= middle else -1.0
        side = -1.0 if close <= (lower if side > 0.0 else upper) else 1.0
        state[r, 3] = upper
        state[r, 4] = lower
        state[r, 5] = side
        out[0, i] = lower if side > 0.0 else upper


@feature("donchian", "bands", "Donchian channel of the n bars before this one, so that a close can break it.",
         formula="upper = max H, lower = min L over t-n .. t-1; middle their mean; width = (upper - lower)/middle. "
                 "Many libraries count the current bar in, TA-Lib and TradingView among them: there, a close never "
                 "leaves the channel", source="Donchian; as Skender.Stock.Indicators", params=(window(20),),
         outputs=("upper", "middle", "lower", "width"), fixed=(0.0,), warm_up=lambda n: n,
         state=lambda n: 2 + 2 * sum_size(n), windowed=lambda n: n)
@feature("dist_high", "statistics",
         "Distance of the close below the highest high of n bars, this one included; 0 or less.",
         formula="C / max H - 1", source="George, Hwang, Journal of Finance 59:5 (2004)", params=(window(20),),
         fixed=(1.0,), warm_up=lambda n: n - 1, state=lambda n: 2 + 2 * sum_size(n), windowed=lambda n: n - 1)
@feature("dist_low", "statistics",
         "Distance of the close above the lowest low of n bars, this one included; 0 or more.", formula="C / min L - 1",
         source="George, Hwang (2004)", params=(window(20),), fixed=(2.0,), warm_up=lambda n: n - 1,
         state=lambda n: 2 + 2 * sum_size(n), windowed=lambda n: n - 1)
@compiled
def extremes(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: highest high and minus lowest low up to the bar before (0: none yet), their windows."""
    n = int(p[0])
    mode = p[1]
    for i in range(code.shape[0]):
        r = code[i]
        close = b[CLOSE, i]
        before_high = state[r, 0] if state[r, 0] != 0.0 else NAN
        before_low = -state[r, 1] if state[r, 0] != 0.0 else NAN
        high = max_push(state, r, 2, n, b[HIGH, i])
        low = max_push(state, r, 5 + 2 * n, n, -b[LOW, i])
        if high == high:
            state[r, 0] = high
            state[r, 1] = low
        if mode == 1.0:
            out[0, i] = close / high - 1.0
        elif mode == 2.0:
            out[0, i] = close / -low - 1.0
        else:
            middle = 0.5 * (before_high + before_low)
            out[0, i] = before_high
            out[1, i] = middle
            out[2, i] = before_low
            out[3, i] = (before_high - before_low) / middle


@feature("ichimoku", "bands",
         "Ichimoku: conversion and base line, and the cloud that stands over this bar (drawn `base` bars ago).",
         formula="tenkan, kijun = (HH + LL)/2 over conversion, base bars; senkou_a = (tenkan + kijun)/2 and senkou_b "
                 "= (HH + LL)/2 over span bars, both of `base` bars ago. The lagging line is a future close and is "
                 "left out", source="Hosoda (1969)",
         params=(window(9, "conversion"), window(26, "base"), window(52, "span")),
         outputs=("tenkan", "kijun", "senkou_a", "senkou_b"), rising=("conversion", "base", "span"),
         warm_up=lambda c, k, s: (c - 1, k - 1, 2 * k - 1, s + k - 1),
         state=lambda c, k, s: 1 + 2 * (sum_size(c) + sum_size(k) + sum_size(s)) + 2 * k,
         windowed=lambda c, k, s: s + k - 1)
@compiled
def ichimoku(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen, ring of the two spans for `base` bars, then the windows."""
    kijun = int(p[1])
    for i in range(code.shape[0]):
        r = code[i]
        seen = int(state[r, 0])
        state[r, 0] = seen + 1.0 if seen < 2 * kijun - 1 else float(kijun)
        at = 1 + 2 * kijun
        for line in range(3):
            n = int(p[line])
            top = max_push(state, r, at, n, b[HIGH, i])
            bottom = max_push(state, r, at + 3 + 2 * n, n, -b[LOW, i])
            out[line, i] = 0.5 * (top - bottom)
            at += 2 * (3 + 2 * n)
        slot = 1 + 2 * (seen % kijun)
        a = 0.5 * (out[0, i] + out[1, i])
        span = out[2, i]
        out[2, i] = state[r, slot] if seen >= kijun else NAN
        out[3, i] = state[r, slot + 1] if seen >= kijun else NAN
        state[r, slot] = a
        state[r, slot + 1] = span


@feature("psar", "bands",
         "Parabolic stop and reverse: the stop that stands for this bar, moved to the other side when the bar touches "
         "it.",
         formula="S += AF (EP - S), never inside the last two bars; AF grows by `step` with each new extreme EP, up "
                 "to `limit`. The first side is that of the larger directional movement of bar 2",
         source="Wilder (1978), 2", params=(real("step", 0.02, 0.0001, 1.0), real("limit", 0.2, 0.0001, 1.0)),
         warm_up=lambda step, limit: 1, state=lambda step, limit: 9)
@compiled
def psar(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen up to 2, side, stop for the next bar, extreme, AF, last high and low, high and low before them.
    """
    step = p[0]
    limit = p[1]
    for i in range(code.shape[0]):
        r = code[i]
        high = b[HIGH, i]
        low = b[LOW, i]
        high1 = state[r, 5]
        low1 = state[r, 6]
        seen = state[r, 0]
        state[r, 5] = high
        state[r, 6] = low
        state[r, 7] = high1
        state[r, 8] = low1
        if seen == 0.0:
            state[r, 0] = 1.0
            out[0, i] = NAN
            continue
        side = state[r, 1]
        stop = state[r, 2]
        extreme = state[r, 3]
        factor = state[r, 4]
        if seen == 1.0:
            state[r, 0] = 2.0
            down = low1 - low
            side = -1.0 if down > 0.0 and down > high - high1 else 1.0
            stop = low1 if side > 0.0 else high1
            extreme = high if side > 0.0 else low
            factor = step
        if (low <= stop) if side > 0.0 else (high >= stop):
            stop = max(extreme, high, high1) if side > 0.0 else min(extreme, low, low1)
            side = -side
            extreme = high if side > 0.0 else low
            factor = step
        elif (high > extreme) if side > 0.0 else (low < extreme):
            extreme = high if side > 0.0 else low
            factor = min(limit, factor + step)
        out[0, i] = stop
        stop += factor * (extreme - stop)
        stop = min(stop, low, low1) if side > 0.0 else max(stop, high, high1)
        state[r, 1] = side
        state[r, 2] = stop
        state[r, 3] = extreme
        state[r, 4] = factor
