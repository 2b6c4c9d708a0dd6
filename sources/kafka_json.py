"""A compiled parser of flat JSON objects: a message's bytes straight into a row of its table.

It takes what it is sure of and leaves the rest: whatever it does not like (escapes, nesting, a key twice, a number beyond 19
digits, anything malformed) it marks `HARD`, for `kafka_slow` to read. So it never decides that a message is bad, and what it
accepts has the very bits that the slow way gives.
"""

from typing import Any

import numpy as np
from numba import int64, uint64

from sources.kafka_memory import compiled, inlined, load1, load8, store8, store_real, within, word
from sources.kafka_numbers import HIGHS, MINUS, NINE, ONES, ZERO, number, trailing_zeros, whole

HARD, EASY = 0, 1
TIME, REAL, NAME, LABEL = 0, 1, 2, 3
"""How a column is read: a whole number, a number or null, a name of the interner, one of the column's labels."""
KEY_BYTES_MAX, LABEL_BYTES_MAX, NAME_BYTES_MAX = 16, 8, 32
"""What is compared here, in words of eight bytes; longer ones are left to the slow way."""
NAME_SLOT_WORDS = 1 + NAME_BYTES_MAX // 8
KEY_WORDS = 5
NEW_NAME = -2
_QUOTE, _BACKSLASH, _COMMA, _COLON, _OPEN, _CLOSE = 0x22, 0x5C, 0x2C, 0x3A, 0x7B, 0x7D
_NULL, _TRUE, _FALS, _E = 0x6C6C756E, 0x65757274, 0x736C6166, 0x65
_FOUR = uint64(0xFFFFFFFF)


@inlined
def _skip(at: int, end: int) -> int:
    """Past the white space."""
    while at < end:
        letter = load1(at)
        if letter > 0x20 or (letter != 0x20 and letter != 0x0A and letter != 0x0D and letter != 0x09):
            return at
        at += 1
    return at


@inlined
def _text_end(at: int, end: int) -> int:
    """Where the string that began before `at` has its closing quote; -1 where it has an escape, a control character or more than
    ASCII before it, or none."""
    while at < end:
        text = load8(at)
        quotes, slashes = text ^ (ONES * uint64(_QUOTE)), text ^ (ONES * uint64(_BACKSLASH))
        # in each byte the high bit: a quote, a backslash, below 0x20, from 0x80; exact up to the first that is set
        found = ((quotes - ONES) & ~quotes) | ((slashes - ONES) & ~slashes) | ((text - ONES * uint64(0x20)) & ~text) | text
        found &= HIGHS
        if found != 0:
            at += trailing_zeros(found) >> 3
            return at if at < end and load1(at) == _QUOTE else -1
        at += 8
    return -1


@inlined
def _first(word: int, n: int) -> int:
    """The first n of eight bytes; all where there are more, none where n is not positive."""
    return word if n >= 8 else word & ((uint64(1) << uint64(8 * n)) - uint64(1)) if n > 0 else uint64(0)


@inlined
def _named(at: int, n: int, slots: int, codes: int, n_slots: int) -> int:
    """The code of the name of n bytes, NEW_NAME where it has none. slots: per slot the length and four words."""
    w0, w1 = _first(load8(at), n), _first(load8(at + 8), n - 8)
    w2, w3 = _first(load8(at + 16), n - 16), _first(load8(at + 24), n - 24)
    slot = int64(mixed(uint64(n), w0, w1, w2, w3) & uint64(n_slots - 1))
    while True:
        code = word(codes + 8 * slot)
        if code < 0:
            return NEW_NAME
        known = slots + 8 * NAME_SLOT_WORDS * slot
        if word(known) == n and load8(known + 8) == w0 and load8(known + 16) == w1 and load8(known + 24) == w2 and load8(known + 32) == w3:
            return code
        slot = (slot + 1) & (n_slots - 1)


@compiled
def mixed(n: int, w0: int, w1: int, w2: int, w3: int) -> int:
    """Where a name's slot is looked for first."""
    h = uint64(n)
    for part in (w0, w1, w2, w3):
        h = (h ^ uint64(part)) * uint64(0x9E3779B97F4A7C15)
        h ^= h >> uint64(29)
    return h


@inlined
def _is_key(at: int, key: int) -> bool:
    """Whether the text at `at` is this key and its closing quote."""
    same = load8(at) & load8(key + 8) == load8(key) and load8(at + 8) & load8(key + 24) == load8(key + 16)
    return same and load1(at + word(key + 32)) == _QUOTE


@inlined
def _column(at: int, keys: int, columns: int, guess: int) -> int:
    """Which column the key that begins at `at` is, -1 for none. At `guess` is what the key of this turn was the last time."""
    column = word(guess)
    if column >= 0 and _is_key(at, keys + 8 * KEY_WORDS * column):
        return column
    for other in range(columns):
        if _is_key(at, keys + 8 * KEY_WORDS * other):
            store8(guess, other)
            return other
    return -1


@inlined
def _passed(at: int, end: int) -> int:
    """Past a value that no column wants; -1 where it is nested or not plain."""
    letter = load1(at)
    if letter == _QUOTE:
        at = _text_end(at + 1, end)
        return at + 1 if at >= 0 else -1
    if letter == MINUS or (letter >= ZERO and letter <= NINE):
        return number(at, end)[0]
    text = load8(at) & _FOUR
    if text == uint64(_NULL) or text == uint64(_TRUE):
        return at + 4
    return at + 5 if text == uint64(_FALS) and load1(at + 4) == _E else -1


@inlined
def _label(at: int, n: int, labels: int, n_labels: int) -> int:
    """Which label a text of n bytes is, -1 for none."""
    if n <= LABEL_BYTES_MAX:
        text = _first(load8(at), n)
        for label in range(n_labels):
            if load8(labels + 16 * label) == text and word(labels + 16 * label + 8) == n:
                return label
    return -1


@inlined
def _value(at: int, end: int, kind: int, target: int, labels: int, n_labels: int, slots: int, codes: int, n_slots: int, blank: bool) -> int:
    """Past the value, which is now at `target`; -1 where it is hard, NEW_NAME where it is a name without code."""
    letter = load1(at)
    if kind == REAL:
        if letter == MINUS or (letter >= ZERO and letter <= NINE):
            at, real = number(at, end)
            store_real(target, real)
            return at
        store_real(target, np.nan)
        return at + 4 if load8(at) & _FOUR == uint64(_NULL) else -1
    if kind == TIME:
        at, integer = whole(at, end)
        store8(target, integer)
        return at
    if letter != _QUOTE:
        return -1
    at += 1
    stop = _text_end(at, end)
    if stop < 0:
        return -1
    n = stop - at
    if kind == LABEL:
        code = _label(at, n, labels, n_labels)
    elif n == 0:
        store8(target, -1)
        return stop + 1 if blank else -1
    elif n > NAME_BYTES_MAX:
        return -1
    else:
        code = _named(at, n, slots, codes, n_slots)
    store8(target, code)
    if code >= 0:
        return stop + 1
    return NEW_NAME if code == NEW_NAME else -1


@within
def _object(at: int, end: int, row: int, columns: int, keys: int, kinds: int, labels: int, n_labels: int, order: int, turns: int,
            slots: int, codes: int, n_slots: int, blank: bool) -> int:
    """The columns that were set, as bits; 0 where the object is hard, NEW_NAME where it names what has no code yet."""
    at = _skip(at, end)
    if at >= end or load1(at) != _OPEN:
        return 0
    seen, turn, letter = 0, 0, _COMMA
    while letter == _COMMA:
        at = _skip(at + 1, end)
        if at >= end or load1(at) != _QUOTE:
            return 0
        column = _column(at + 1, keys, columns, order + 8 * turn)
        at = at + 1 + word(keys + 8 * (KEY_WORDS * column + 4)) if column >= 0 else _text_end(at + 1, end)
        if at < 0:
            return 0
        at = _skip(at + 1, end)
        if at >= end or load1(at) != _COLON:
            return 0
        at = _skip(at + 1, end)
        if at >= end:
            return 0
        if column < 0:
            at = _passed(at, end)
        elif seen & (1 << column):
            return 0
        else:
            seen |= 1 << column
            at = _value(at, end, word(kinds + 8 * column), row + 8 * column, labels + 16 * n_labels * column, n_labels, slots, codes,
                        n_slots, blank)
        if at == NEW_NAME:
            return NEW_NAME
        if at < 0:
            return 0
        at = _skip(at, end)
        if at >= end:
            return 0
        letter = load1(at)
        turn = min(turn + 1, turns - 1)
    return seen if letter == _CLOSE and _skip(at + 1, end) == end else 0


@compiled
def parse(base: int, starts: Any, which: Any, first: int, words: Any, easy: Any, keys: Any, kinds: Any, labels: Any, order: Any,
          defaults: Any, required: int, slots: Any, codes: Any, blank: bool) -> int:
    """Messages which[first:] into rows first, first + 1, …; returns the row of a message whose name has no code, else how many there are.

    base: address of the payloads, with 64 bytes to spare after the last. starts: where each begins. words: the rows as int64. easy:
    per row whether it was taken. keys: per column a word and its mask, the next word and its mask, and the length. labels: per column
    and label a word and the length. defaults: the bits of what a column has that is not `required`.
    """
    columns, n_labels, turns, n_slots = len(keys), labels.shape[1], len(order), len(codes)
    rows_at, keys_at, kinds_at, labels_at = words.ctypes.data, keys.ctypes.data, kinds.ctypes.data, labels.ctypes.data
    order_at, slots_at, codes_at = order.ctypes.data, slots.ctypes.data, codes.ctypes.data
    every = (1 << columns) - 1
    for row in range(first, len(which)):
        at, end = base + starts[which[row]], base + starts[which[row] + 1]
        seen = _object(
            at, end, rows_at + 8 * columns * row, columns, keys_at, kinds_at, labels_at, n_labels, order_at, turns, slots_at, codes_at,
            n_slots, blank,
        )  # fmt: skip
        if seen == NEW_NAME:
            return row
        if seen == 0 or seen & required != required:
            easy[row] = HARD
            continue
        easy[row] = EASY
        left = uint64(every & ~seen)
        while left != uint64(0):
            column = trailing_zeros(left)
            words[row, column] = defaults[column]
            left &= left - uint64(1)
    return len(which)
