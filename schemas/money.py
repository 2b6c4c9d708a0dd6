"""Exact money: int64 in units of 1e-8. Floats enter once, here; a product of two amounts goes through 128 bits.

`floor` is the one rounding of products; a quotient that does not fit int64 is the caller's to avoid: the policy bounds
notional and quantity so that it cannot happen.
"""

import math
from decimal import Decimal, InvalidOperation

from numba import int64, njit, uint64

from schemas.errors import UserError

UNITS = 100_000_000
"""Units of 1e-8 in one."""
UNITS_MAX = 2**63 - 1


@njit(int64(int64, int64), cache=True, inline="always")
def mul_units(a: int, b: int) -> int:
    """floor(a * b / 1e8), exact while the result fits int64.

    Schoolbook multiplication in 32-bit limbs (Knuth, TAOCP 2, 4.3.1, algorithm M), then long division by 1e8 in 32-bit digits.
    """
    negative = (a < 0) != (b < 0)
    ua = uint64(abs(a))
    ub = uint64(abs(b))
    mask = uint64(0xFFFFFFFF)
    half = uint64(32)
    a0 = ua & mask
    a1 = ua >> half
    b0 = ub & mask
    b1 = ub >> half
    p00 = a0 * b0
    p01 = a0 * b1
    p10 = a1 * b0
    mid = (p00 >> half) + (p01 & mask) + (p10 & mask)
    hi = a1 * b1 + (p01 >> half) + (p10 >> half) + (mid >> half)
    lo = (p00 & mask) | (mid << half)
    d = uint64(100_000_000)
    if hi == uint64(0):
        q = lo // d
        r = lo - q * d
    else:
        cur = ((hi % d) << half) | (lo >> half)
        q1 = cur // d
        cur = ((cur % d) << half) | (lo & mask)
        q = (q1 << half) | (cur // d)
        r = cur % d
    v = int64(q)
    if negative:
        v = -v - (int64(1) if r != uint64(0) else int64(0))
    return v


@njit(int64(int64, int64), cache=True, inline="always")
def div_units(a: int, b: int) -> int:
    """trunc(a * 1e8 / b) for b > 0, exact while the result fits int64 (a long division in base 1e8's eight decimal digits)."""
    negative = a < 0
    n = abs(a)
    q = n // b
    r = n - q * b
    for _ in range(8):
        # one decimal digit at a time; r < b <= 2**63 / 16 keeps r * 10 inside int64
        r = r * 10
        d = r // b
        q = q * 10 + d
        r = r - d * b
    return -q if negative else q


@njit("int64(float64)", cache=True, inline="always")
def to_units(x: float) -> int:
    """A float to the nearest unit, half away from zero. From 2**52 units on a float is whole, and adding a half would move it."""
    scaled = abs(x) * 1e8
    units = int64(scaled) if scaled >= 4503599627370496.0 else int64(math.floor(scaled + 0.5))
    return units if x >= 0 else -units


def parse_units(text: object) -> int:
    """A decimal number as written ("0.001", 12, 3.5) to units, exactly; UserError where it has more than eight decimals."""
    try:
        scaled = Decimal(str(text)) * UNITS
        whole = int(scaled)
    except (InvalidOperation, ValueError, OverflowError):
        raise UserError(f'"{text}" is not an amount; write a decimal number such as 0.001') from None
    if scaled != whole:
        raise UserError(f'amount "{text}" has more than 8 decimals')
    if abs(whole) > UNITS_MAX:
        raise UserError(f'amount "{text}" is beyond {UNITS_MAX / UNITS:.0f}')
    return whole


def to_decimal(units: int) -> Decimal:
    """Units to an exact decimal with eight places."""
    return Decimal(int(units)).scaleb(-8)


@njit(int64(int64, int64, int64), cache=True)
def mul_div(a: int, b: int, c: int) -> int:
    """floor(a * b / c) for b, c > 0 and |a * b / c| < 2**63, through 128 bits (shift and subtract, TAOCP 2, 4.3.1)."""
    negative = a < 0
    ua = uint64(abs(a))
    ub = uint64(b)
    uc = uint64(c)
    mask = uint64(0xFFFFFFFF)
    half = uint64(32)
    a0 = ua & mask
    a1 = ua >> half
    b0 = ub & mask
    b1 = ub >> half
    p00 = a0 * b0
    p01 = a0 * b1
    p10 = a1 * b0
    mid = (p00 >> half) + (p01 & mask) + (p10 & mask)
    rem = (a1 * b1 + (p01 >> half) + (p10 >> half) + (mid >> half)) % uc
    lo = (p00 & mask) | (mid << half)
    quotient = uint64(0)
    for k in range(64):
        rem = (rem << uint64(1)) | ((lo >> uint64(63 - k)) & uint64(1))
        quotient = quotient << uint64(1)
        if rem >= uc:
            rem -= uc
            quotient |= uint64(1)
    v = int64(quotient)
    if negative:
        v = -v - (int64(1) if rem != uint64(0) else int64(0))
    return v
