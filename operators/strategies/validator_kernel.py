"""The compiled loop behind `Validator`: one pass over signals, and before each all that its tape position makes known.

Bars, scores and predictions come in the order of `seq`; those at the position of a signal are taken in before it, later ones after it.
Everything is summed anew from rings and buckets, so nothing drifts.
"""

import math
from typing import Any

import numpy as np

from operators.compiled import inner, kernel
from schemas.tables import ENTER_LONG, EXIT
from schemas.tables_models import ACTIVE_ROLE, P_OK

BUCKETS = 720
"""The window of the statistics is kept in so many parts, an hour each where it is 30 days."""
HOLD_BARS = 15
"""Bars that a position without a limit is taken to last, for the move that is expected of it."""
NOT_APPLICABLE, PASSED, REFUSED = range(3)
"""What a layer says of a signal, in `validations.verdicts`."""
STATISTICS, REGIME, SIZE, CORRELATION, COST = range(5)
"""The layers, in the order of `LAYERS`."""
LABELS_MIN, NOTIONAL = range(5, 7)
"""Further places in `numbers`, whose first five are the layers' bounds, 0 for a layer that is off."""
NEVER = np.iinfo(np.int64).min
YEAR_NS = 365 * 86_400 * 10**9
TIME = 0
"""Code of `bar_kind`."""

SERIES = np.dtype([("closes", "i8"), ("notional", "f8")])
"""Of a symbol and interval: how many closes there were, the notional of the last bar."""
HITS = np.dtype([("bucket", "i8"), ("hits", "i8"), ("labels", "i8")])


@inner
def _place(interval_ns: int, intervals_ns: Any) -> int:
    for k in range(len(intervals_ns)):
        if intervals_ns[k] == interval_ns:
            return k
    return -1


@kernel
def new_interval(bars: Any, intervals_ns: Any) -> int:
    """The timeframe of the first time bar that has no place yet, 0 for none."""
    for i in range(len(bars)):
        if bars[i].bar_kind == TIME and _place(bars[i].interval_ns, intervals_ns) < 0:
            return int(bars[i].interval_ns)
    return 0


@kernel
def all_known(signals: Any, intervals_ns: Any) -> bool:
    """Whether the timeframe of every signal has a place."""
    for k in range(len(signals)):
        if _place(signals[k].interval_ns, intervals_ns) < 0:
            return False
    return True


@inner
def _take_bar(bar: Any, intervals_ns: Any, series: Any, times: Any, logs: Any) -> None:
    """Keep a time bar's close and notional. A recording without notional: typical price times volume; quotes alone: NaN."""
    if bar.bar_kind != TIME:
        return
    place = _place(bar.interval_ns, intervals_ns)
    each = series[bar.symbol, place]
    at = each.closes % logs.shape[2]
    times[bar.symbol, place, at] = bar.ts_close_ns
    logs[bar.symbol, place, at] = math.log(bar.close)
    each.closes += 1
    if bar.volume == 0.0 and bar.bid > 0.0 and bar.ask > 0.0:
        each.notional = math.nan
    else:
        each.notional = bar.notional if bar.notional > 0.0 else (bar.high + bar.low + bar.close) / 3.0 * bar.volume


@inner
def _take_score(score: Any, model: int, bucket_ns: int, buckets: Any, clock: Any) -> None:
    """Count a label of the active model in its bucket; a bucket that has passed out of the window begins anew."""
    if score.model != model or score.role != ACTIVE_ROLE or score.hit < 0:
        return
    bucket = score.ts_event_ns // bucket_ns
    each = buckets[bucket % BUCKETS]
    if each.bucket < bucket:
        each.bucket, each.hits, each.labels = bucket, 0, 0
    if each.bucket == bucket:
        each.hits += score.hit
        each.labels += 1
    clock[0] = max(clock[0], bucket)


@inner
def _hits(buckets: Any, now: int, labels_min: float) -> tuple[float, bool]:
    """Share of the labels in the window that were right, and whether there are enough of them."""
    hits, labels = 0, 0
    for k in range(BUCKETS):
        if now - BUCKETS < buckets[k].bucket <= now:
            hits += buckets[k].hits
            labels += buckets[k].labels
    return (hits / labels if labels else math.nan), labels > 0 and labels >= labels_min


@inner
def _moves(logs: Any, closes: int) -> tuple[float, float]:
    """Sample standard deviation and mean absolute value of the returns in a full ring, NaN while it is not full."""
    n = len(logs)
    if closes < n:
        return math.nan, math.nan
    mean = (logs[(closes - 1) % n] - logs[closes % n]) / (n - 1)
    squares, total = 0.0, 0.0
    for k in range(1, n):
        move = logs[(closes + k) % n] - logs[(closes + k - 1) % n]
        squares += (move - mean) ** 2
        total += abs(move)
    return math.sqrt(squares / (n - 2)), total / (n - 1)


@inner
def _correlation(a: int, b: int, interval: int, series: Any, times: Any, logs: Any, pairs: Any) -> float:
    """Pearson's correlation of the log returns between the closes that both symbols have, NaN for too few or where one did not move.

    Too few: less than half of what a ring holds. pairs: (2, closes) of scratch.
    """
    size = logs.shape[2]
    na, nb = series[a, interval].closes, series[b, interval].closes
    i, j, n = max(na - size, 0), max(nb - size, 0), 0
    while i < na and j < nb:
        ta, tb = times[a, interval, i % size], times[b, interval, j % size]
        if ta == tb:
            pairs[0, n], pairs[1, n] = logs[a, interval, i % size], logs[b, interval, j % size]
            n += 1
        if ta <= tb:
            i += 1
        if tb <= ta:
            j += 1
    n -= 1
    if n < 2 or 2 * n < size - 1:
        return math.nan
    mean_a, mean_b = (pairs[0, n] - pairs[0, 0]) / n, (pairs[1, n] - pairs[1, 0]) / n
    aa, bb, ab = 0.0, 0.0, 0.0
    for k in range(n):
        da, db = pairs[0, k + 1] - pairs[0, k] - mean_a, pairs[1, k + 1] - pairs[1, k] - mean_b
        aa += da * da
        bb += db * db
        ab += da * db
    return ab / math.sqrt(aa * bb) if aa > 0.0 and bb > 0.0 else math.nan


@inner
def _observe(g: Any, side: int, numbers: Any, intervals_ns: Any, series: Any, times: Any, logs: Any, foreseen: Any, held: Any, pairs: Any,
             observed: Any) -> None:
    """What the layers after the first measure of an entry, NaN for what is not known."""
    place = _place(g.interval_ns, intervals_ns)
    each = series[g.symbol, place]
    deviation, move = _moves(logs[g.symbol, place], each.closes)
    observed[REGIME] = deviation * math.sqrt(YEAR_NS / g.interval_ns)
    observed[SIZE] = numbers[NOTIONAL] / each.notional  # no notional: infinitely much of it
    observed[CORRELATION] = math.nan
    for other in range(len(held)):
        if held[other, g.strategy] != 0 and other != g.symbol:
            found = side * held[other, g.strategy] * _correlation(g.symbol, other, place, series, times, logs, pairs)
            if not found <= observed[CORRELATION] and not math.isnan(found):
                observed[CORRELATION] = found
    expected = abs(foreseen[g.symbol])
    if math.isnan(expected):
        bars = max(g.hold_ns // g.interval_ns, 1) if g.hold_ns > 0 else HOLD_BARS
        expected = move * math.sqrt(bars)
    observed[COST] = 1e4 * expected


@inner
def _judge(numbers: Any, enough: bool, observed: Any, verdicts: Any) -> bool:
    """The verdict of every layer; whether all let the signal pass."""
    passed = True
    for layer in range(5):
        bound = numbers[layer]
        if bound == 0.0:
            observed[layer] = math.nan
        elif not math.isnan(observed[layer]) and (layer != STATISTICS or enough):
            inside = observed[layer] >= bound if layer in (STATISTICS, COST) else observed[layer] <= bound
            verdicts[layer] = PASSED if inside else REFUSED
            passed = passed and inside
    return passed


@kernel
def advance(signals: Any, bars: Any, scores: Any, predictions: Any, model: int, foresees: bool, bucket_ns: int, numbers: Any,
            intervals_ns: Any, series: Any, times: Any, logs: Any, buckets: Any, foreseen: Any, held: Any, clock: Any, verdicts: Any,
            observed: Any, passed: Any) -> None:
    """model: its code. foresees: whether its score is a log return. clock: (1,), the latest bucket seen. held: (symbols, strategies), 1
    long, -1 short. verdicts, observed, passed: a row for each signal; those of exits are left as they are.
    """
    pairs = np.empty((2, logs.shape[2]))
    b, s, p = 0, 0, 0
    for k in range(len(signals) + 1):
        last = k == len(signals)
        while b < len(bars) and (last or bars[b].seq <= signals[k].seq):
            _take_bar(bars[b], intervals_ns, series, times, logs)
            b += 1
        while s < len(scores) and (last or scores[s].seq <= signals[k].seq):
            _take_score(scores[s], model, bucket_ns, buckets, clock)
            s += 1
        while foresees and p < len(predictions) and (last or predictions[p].seq <= signals[k].seq):
            said = predictions[p]
            if said.model == model and said.role == ACTIVE_ROLE:
                foreseen[said.symbol] = said.score if said.state == P_OK else math.nan
            p += 1
        if last:
            return
        g = signals[k]
        if g.action == EXIT:
            held[g.symbol, g.strategy] = 0
            continue
        side = 1 if g.action == ENTER_LONG else -1
        clock[0] = max(clock[0], g.ts_event_ns // bucket_ns)
        observed[k, STATISTICS], enough = _hits(buckets, clock[0], numbers[LABELS_MIN])
        _observe(g, side, numbers, intervals_ns, series, times, logs, foreseen, held, pairs, observed[k])
        passed[k] = _judge(numbers, enough, observed[k], verdicts[k])
        if passed[k] and g.strength > 0.0:  # one of strength 0 lost to another strategy: the desk refuses it
            held[g.symbol, g.strategy] = side
