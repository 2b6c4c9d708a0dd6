"""Compiled reading of numbers from the bytes of a JSON text, and the loads that it and `kafka_json` are made of.

A number is rounded correctly or is not taken: exactly where powers of ten are exact (Clinger 1990), else by Lemire's method
("Number parsing at a gigabyte per second", 2021). `-1` in place of an end says: not taken, read it another way.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types, uint64
from numba.extending import intrinsic

from sources.kafka_memory import inlined, load1, load8, within

SIGNIFICAND_BITS = 52
POWER_MIN, POWER_MAX = -342, 308
DIGITS_MAX = 19
MINUS, PLUS, POINT, ZERO, NINE = 0x2D, 0x2B, 0x2E, 0x30, 0x39
ONES, HIGHS = uint64(0x0101010101010101), uint64(0x8080808080808080)
_I64 = ir.IntType(64)


def _powers() -> npt.NDArray[np.uint64]:
    """The upper 128 bits of 5**q, for each q from -342 to 308: those below zero rounded up, the others cut off."""
    table = []
    for q in range(POWER_MIN, POWER_MAX + 1):
        five = 5 ** abs(q)
        if q < 0:
            bits = five.bit_length() - (five & (five - 1) == 0)
            made = 2 ** (bits + 127 if q >= -27 else 2 * bits + 128) // five + 1
            while made >= 1 << 128:
                made >>= 1
        else:
            made = five << 128 >> five.bit_length()
        table.append((made >> 64, made & 0xFFFFFFFFFFFFFFFF))
    return np.array(table, np.uint64)


POWERS = _powers()
TENS = np.array([10.0**n for n in range(23)])
"""Those that are exact."""


@intrinsic
def trailing_zeros(typing_context: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic
def leading_zeros(typing_context: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.ctlz(given[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic
def high(typing_context: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of a product."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(given[0], wide), builder.zext(given[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64)

    return types.uint64(types.uint64, types.uint64), build


@intrinsic
def real(typing_context: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], ir.DoubleType())

    return types.float64(types.uint64), build


@inlined
def _digits(at: int, end: int, total: int) -> tuple[int, int]:
    """(past the digits from `at` on, `total` with them at its end); the caller sees that they are not too many."""
    made = uint64(total)
    while at + 8 <= end:
        letters = load8(at)
        word = letters - ONES * uint64(ZERO)
        if ((letters + ONES * uint64(0x46)) | word) & HIGHS != 0:
            break
        # eight digits at a time: pairs, fours and eights of neighbours
        word = word * uint64(10) + (word >> uint64(8))
        low = (word & uint64(0x000000FF000000FF)) * uint64(0x000F424000000064)
        high = ((word >> uint64(16)) & uint64(0x000000FF000000FF)) * uint64(0x0000271000000001)
        made = made * uint64(100_000_000) + ((low + high) >> uint64(32))
        at += 8
    while at < end:
        letter = load1(at)
        if letter < ZERO or letter > NINE:
            break
        made = made * uint64(10) + uint64(letter - ZERO)
        at += 1
    return at, made


@within
def _scaled(digits: int, power: int) -> tuple[bool, float]:
    """(whether it is sure, digits * 10**power rounded to nearest, ties to even); digits is not 0."""
    if power < POWER_MIN or power > POWER_MAX:
        return False, 0.0
    zeros = leading_zeros(digits)
    shifted = uint64(digits) << uint64(zeros)
    q = power - POWER_MIN
    upper, lower = high(shifted, POWERS[q, 0]), shifted * POWERS[q, 0]
    if upper & uint64(0x1FF) == uint64(0x1FF):
        more = high(shifted, POWERS[q, 1])
        lower += more
        if lower < more:
            upper += uint64(1)
    if lower == uint64(0xFFFFFFFFFFFFFFFF) and (power < -27 or power > 55):
        return False, 0.0
    top = upper >> uint64(63)
    shift = top + uint64(64 - SIGNIFICAND_BITS - 3)
    significand = upper >> shift
    exponent = ((217706 * power) >> 16) + 63 + np.int64(top) - zeros + 1023
    if exponent <= 0 or exponent >= 0x7FE:
        return False, 0.0
    if lower <= uint64(1) and power >= -4 and power <= 23 and significand & uint64(3) == uint64(1) and significand << shift == upper:
        significand &= ~uint64(1)  # halfway between two: to the even one
    significand += significand & uint64(1)
    significand >>= uint64(1)
    if significand >= uint64(1) << uint64(SIGNIFICAND_BITS + 1):
        significand = uint64(1) << uint64(SIGNIFICAND_BITS)
        exponent += 1
    significand &= ~(uint64(1) << uint64(SIGNIFICAND_BITS))
    return True, real(significand | (uint64(exponent) << uint64(SIGNIFICAND_BITS)))


@inlined
def number(at: int, end: int) -> tuple[int, float]:
    """(past the number, its value), or (-1, 0.0)."""
    negative = load1(at) == MINUS
    if negative:
        at += 1
    start = at
    at, digits = _digits(at, end, 0)
    count, power = at - start, 0
    if count == 0 or (count > 1 and load1(start) == ZERO):
        return -1, 0.0
    if at < end and load1(at) == POINT:
        point = at
        at, digits = _digits(point + 1, end, digits)
        power = point + 1 - at
        count -= power
        if power == 0:
            return -1, 0.0
    if count > DIGITS_MAX:
        first = start
        while first < at and (load1(first) == ZERO or load1(first) == POINT):  # zeros before the first digit that counts
            count -= load1(first) == ZERO
            first += 1
        if count > DIGITS_MAX:
            return -1, 0.0
    if at < end and (load1(at) | 0x20) == 0x65:
        at += 1
        down = at < end and load1(at) == MINUS
        if at < end and (down or load1(at) == PLUS):
            at += 1
        start = at
        at, exponent = _digits(at, end, 0)
        if at == start or at - start > 4:
            return -1, 0.0
        shift: Any = np.int64(exponent)  # signed first: signed and unsigned together would be a float
        power += -shift if down else shift
    if digits == uint64(0):
        return (-1, 0.0) if negative else (at, 0.0)
    if digits <= uint64(1 << 53) and -22 <= power <= 22:
        value = np.float64(np.int64(digits))
        value = value / TENS[-power] if power < 0 else value * TENS[power]
    else:
        sure, value = _scaled(digits, power)
        if not sure:
            return -1, 0.0
    return at, -value if negative else value


@inlined
def whole(at: int, end: int) -> tuple[int, int]:
    """(past the whole number, its value), or (-1, 0)."""
    negative = load1(at) == MINUS
    if negative:
        at += 1
    start = at
    at, digits = _digits(at, end, 0)
    n = at - start
    if n == 0 or n > DIGITS_MAX or (n > 1 and load1(start) == ZERO) or digits > uint64(0x7FFFFFFFFFFFFFFF):
        return -1, 0
    value: Any = np.int64(digits)  # of one type before its sign: a mix of both would be a float, which rounds times
    return at, -value if negative else value


