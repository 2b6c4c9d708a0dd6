"""Sliding windows that never subtract: sums, moments, extremes, straight lines and pairs over the last n values.

Each is the two-block scheme of van Herk (1992) and Gil and Werman (1993): the stream is cut into blocks of n; a window
is a suffix of the block before and a prefix of this one; suffixes are made once a block. So a push costs O(1) however
long the window is, a value that left the window leaves nothing behind (no drift, an absurd outlier is forgotten
exactly), and the error is that of adding n numbers. Powers are taken of `x - c`, where `c` is the last value of the
block before, which is always inside the window; therefore (mean - c)**2 <= n * variance, and cancellation costs at
most a factor n in the variance.

A window lives in row `r` of a state matrix, from column `o` on; all zeros is an empty one. `*_size(n)` columns are
taken. A push returns NaN until n values have come.
"""

import math

from operators.market.features.columns import Floats, helper

NAN = math.nan


def sum_size(n: int) -> int:
    return 3 + 2 * n


def moments_size(n: int) -> int:
    return 5 + 3 * n


def powers_size(n: int) -> int:
    return 7 + 5 * n


def line_size(n: int) -> int:
    return 6 + 4 * n


def pair_size(n: int) -> int:
    return 9 + 7 * n


def ring_size(n: int) -> int:
    return 2 + n


@helper
def not_below_zero(x: float) -> float:
    """`x`, or zero where rounding took it below; NaN stays NaN."""
    return 0.0 if x < 0.0 else x


@helper
def ring_push(st: Floats, r: int, o: int, n: int, x: float) -> float:
    """Store `x`; return the value of n pushes ago, NaN while there is none. Layout: position, full, ring."""
    k = int(st[r, o])
    old = st[r, o + 2 + k] if st[r, o + 1] != 0.0 else NAN
    st[r, o + 2 + k] = x
    k += 1
    if k == n:
        k = 0
        st[r, o + 1] = 1.0
    st[r, o] = k
    return old


@helper
def sum_push(st: Floats, r: int, o: int, n: int, x: float) -> float:
    """Sum of the last n values. Layout: position, full, prefix, ring, suffixes."""
    k = int(st[r, o])
    ring = o + 3
    suf = ring + n
    prefix = x if k == 0 else st[r, o + 2] + x
    st[r, ring + k] = x
    if k < n - 1:
        st[r, o + 2] = prefix
        st[r, o] = k + 1
        return prefix + st[r, suf + k + 1] if st[r, o + 1] != 0.0 else NAN
    total = 0.0
    for j in range(n - 1, -1, -1):
        total += st[r, ring + j]
        st[r, suf + j] = total
    st[r, o] = 0.0
    st[r, o + 1] = 1.0
    return total


@helper
def max_push(st: Floats, r: int, o: int, n: int, x: float) -> float:
    """Largest of the last n values; push -x for the smallest. Layout as `sum_push`."""
    k = int(st[r, o])
    ring = o + 3
    suf = ring + n
    prefix = st[r, o + 2]
    if k == 0 or x > prefix:
        prefix = x
    st[r, ring + k] = x
    if k < n - 1:
        st[r, o + 2] = prefix
        st[r, o] = k + 1
        if st[r, o + 1] == 0.0:
            return NAN
        before: float = st[r, suf + k + 1]
        return before if before > prefix else prefix
    top = x
    for j in range(n - 1, -1, -1):
        v = st[r, ring + j]
        top = v if v > top else top
        st[r, suf + j] = top
    st[r, o] = 0.0
    st[r, o + 1] = 1.0
    return top


@helper
def moments_push(st: Floats, r: int, o: int, n: int, x: float) -> tuple[float, float]:
    """Mean and population variance of the last n values. Layout: position, full, c, two prefixes, ring, two suffixes
    each.
    """
    k = int(st[r, o])
    ring = o + 5
    suf = ring + n
    if k < n - 1:
        c = st[r, o + 2]
        d = x - c
        s1 = d if k == 0 else st[r, o + 3] + d
        s2 = d * d if k == 0 else st[r, o + 4] + d * d
        st[r, ring + k] = x
        st[r, o + 3] = s1
        st[r, o + 4] = s2
        st[r, o] = k + 1
        if st[r, o + 1] == 0.0:
            return NAN, NAN
        s1 += st[r, suf + 2 * k + 2]
        s2 += st[r, suf + 2 * k + 3]
    else:
        c = x
        st[r, ring + k] = x
        s1 = 0.0
        s2 = 0.0
        for j in range(n - 1, -1, -1):
            d = st[r, ring + j] - c
            s1 += d
            s2 += d * d
            st[r, suf + 2 * j] = s1
            st[r, suf + 2 * j + 1] = s2
        st[r, o] = 0.0
        st[r, o + 1] = 1.0
        st[r, o + 2] = c
    m = s1 / n
    return c + m, not_below_zero(s2 / n - m * m)


@helper
def line_push(st: Floats, r: int, o: int, n: int, x: float) -> tuple[float, float, float, float]:
    """(c, S, T, Q) of the last n values with d = x - c: S = sum d, T = sum t*d with t = 1 (oldest) .. n, Q = sum d*d.

    Layout: position, full, c, three prefixes, ring, three suffixes each. Inside, t is counted from the block's edge.
    """
    k = int(st[r, o])
    ring = o + 6
    suf = ring + n
    if k < n - 1:
        c = st[r, o + 2]
        d = x - c
        s = d
        t = k * d
        q = d * d
        if k > 0:
            s += st[r, o + 3]
            t += st[r, o + 4]
            q += st[r, o + 5]
        st[r, ring + k] = x
        st[r, o + 3] = s
        st[r, o + 4] = t
        st[r, o + 5] = q
        st[r, o] = k + 1
        if st[r, o + 1] == 0.0:
            return NAN, NAN, NAN, NAN
        at = suf + 3 * (k + 1)
        s += st[r, at]
        t += st[r, at + 1]
        q += st[r, at + 2]
        return c, s, t + (n - k) * s, q
    c = x
    st[r, ring + k] = x
    s = 0.0
    t = 0.0
    q = 0.0
    for j in range(n - 1, -1, -1):
        d = st[r, ring + j] - c
        s += d
        t += (j - n) * d
        q += d * d
        at = suf + 3 * j
        st[r, at] = s
        st[r, at + 1] = t
        st[r, at + 2] = q
    st[r, o] = 0.0
    st[r, o + 1] = 1.0
    st[r, o + 2] = c
    return c, s, t + (n + 1) * s, q


@helper
def powers_push(st: Floats, r: int, o: int, n: int, x: float) -> tuple[float, float, float]:
    """Second, third and fourth central moment of the last n values.

    Layout: position, full, c, four prefixes, ring, four suffixes each.
    """
    k = int(st[r, o])
    ring = o + 7
    suf = ring + n
    if k < n - 1:
        d = x - st[r, o + 2]
        s1 = d
        s2 = d * d
        s3 = s2 * d
        s4 = s2 * s2
        if k > 0:
            s1 += st[r, o + 3]
            s2 += st[r, o + 4]
            s3 += st[r, o + 5]
            s4 += st[r, o + 6]
        st[r, ring + k] = x
        st[r, o + 3] = s1
        st[r, o + 4] = s2
        st[r, o + 5] = s3
        st[r, o + 6] = s4
        st[r, o] = k + 1
        if st[r, o + 1] == 0.0:
            return NAN, NAN, NAN
        at = suf + 4 * (k + 1)
        s1 += st[r, at]
        s2 += st[r, at + 1]
        s3 += st[r, at + 2]
        s4 += st[r, at + 3]
    else:
        st[r, ring + k] = x
        s1 = 0.0
        s2 = 0.0
        s3 = 0.0
        s4 = 0.0
        for j in range(n - 1, -1, -1):
            d = st[r, ring + j] - x
            dd = d * d
            s1 += d
            s2 += dd
            s3 += dd * d
            s4 += dd * dd
            at = suf + 4 * j
            st[r, at] = s1
            st[r, at + 1] = s2
            st[r, at + 2] = s3
            st[r, at + 3] = s4
        st[r, o] = 0.0
        st[r, o + 1] = 1.0
        st[r, o + 2] = x
    m1 = s1 / n
    m2 = s2 / n
    m3 = s3 / n
    m4 = s4 / n
    mm = m1 * m1
    third = m3 - 3.0 * m1 * m2 + 2.0 * m1 * mm
    fourth = m4 - 4.0 * m1 * m3 + 6.0 * mm * m2 - 3.0 * mm * mm
    return not_below_zero(m2 - mm), third, fourth


@helper
def pair_push(st: Floats, r: int, o: int, n: int, x: float, y: float) -> tuple[float, float, float]:
    """Population var(x), var(y), cov(x, y) of the last n pairs.

    Layout: position, full, cx, cy, five prefixes (x, y, xx, yy, xy), ring of pairs, five suffixes each.
    """
    k = int(st[r, o])
    ring = o + 9
    suf = ring + 2 * n
    st[r, ring + 2 * k] = x
    st[r, ring + 2 * k + 1] = y
    if k < n - 1:
        dx = x - st[r, o + 2]
        dy = y - st[r, o + 3]
        sx = dx
        sy = dy
        sxx = dx * dx
        syy = dy * dy
        sxy = dx * dy
        if k > 0:
            sx += st[r, o + 4]
            sy += st[r, o + 5]
            sxx += st[r, o + 6]
            syy += st[r, o + 7]
            sxy += st[r, o + 8]
        st[r, o + 4] = sx
        st[r, o + 5] = sy
        st[r, o + 6] = sxx
        st[r, o + 7] = syy
        st[r, o + 8] = sxy
        st[r, o] = k + 1
        if st[r, o + 1] == 0.0:
            return NAN, NAN, NAN
        at = suf + 5 * (k + 1)
        sx += st[r, at]
        sy += st[r, at + 1]
        sxx += st[r, at + 2]
        syy += st[r, at + 3]
        sxy += st[r, at + 4]
    else:
        sx = 0.0
        sy = 0.0
        sxx = 0.0
        syy = 0.0
        sxy = 0.0
        for j in range(n - 1, -1, -1):
            dx = st[r, ring + 2 * j] - x
            dy = st[r, ring + 2 * j + 1] - y
            sx += dx
            sy += dy
            sxx += dx * dx
            syy += dy * dy
            sxy += dx * dy
            at = suf + 5 * j
            st[r, at] = sx
            st[r, at + 1] = sy
            st[r, at + 2] = sxx
            st[r, at + 3] = syy
            st[r, at + 4] = sxy
        st[r, o] = 0.0
        st[r, o + 1] = 1.0
        st[r, o + 2] = x
        st[r, o + 3] = y
    mx = sx / n
    my = sy / n
    var_x = not_below_zero(sxx / n - mx * mx)
    var_y = not_below_zero(syy / n - my * my)
    return var_x, var_y, sxy / n - mx * my
