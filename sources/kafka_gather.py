"""Compiled loops over librdkafka's messages: their payloads into one buffer, what is said of them into arrays.

Reads `rd_kafka_message_t` as rdkafka.h declares it and calls the library's own functions by address, so nothing here
depends on its insides. No Python object is made, and none of these holds the interpreter.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, types
from numba.extending import intrinsic

from sources.kafka_memory import compiled, load1, within, word
from sources.kafka_polled import BAD_HEADERS, NO_HEADERS

WORDS = 9
"""Of a message: err (int32, padded), topic, partition (int32, padded), payload, length, key, key length, offset, private."""
DONE, NEW_TOPIC, NEW_HEADERS = 0, 1, 2
NOTES, NOTE_BYTES = 64, 256
"""What the error callback keeps: a count and the last notes, each a code (8 bytes) and a text."""
_LOW = 0xFFFFFFFF
_I64, _I32 = ir.IntType(64), ir.IntType(32)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def _copy(typing_context: Any, target: Any, source: Any, n: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        name = "memcpy"
        kind = ir.FunctionType(byte, [byte, byte, _I64])
        found = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(found, [builder.inttoptr(given[0], byte), builder.inttoptr(given[1], byte), given[2]])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), build


@intrinsic
def _words(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.int64), build


@intrinsic
def _letters(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.int64), build


def _caller(result: Any, answer: Any, arguments: int) -> Any:
    """An intrinsic that calls a C function by its address with so many 8-byte arguments."""
    kind = ir.FunctionType(result, [_I64] * arguments) if result is not None else ir.FunctionType(ir.VoidType(), [_I64] * arguments)

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        made = builder.call(builder.inttoptr(given[0], kind.as_pointer()), list(given[1:]))
        if result is None:
            return context.get_dummy_value()
        return builder.sext(made, _I64) if result is _I32 else made

    return answer(*[types.int64] * (arguments + 1)), build


@intrinsic
def _call_void(typing_context: Any, function: Any, a: Any) -> Any:
    return _caller(None, types.none, 1)


@intrinsic
def _call2(typing_context: Any, function: Any, a: Any, b: Any) -> Any:
    return _caller(_I32, types.int64, 2)


@intrinsic
def _call2_long(typing_context: Any, function: Any, a: Any, b: Any) -> Any:
    return _caller(_I64, types.int64, 2)


@intrinsic
def _call_header(typing_context: Any, function: Any, headers: Any, index: Any, name: Any, value: Any, size: Any) -> Any:
    return _caller(_I32, types.int64, 5)



@within
def _kept(name: int) -> int:
    """Which of `codec`, `schema`, `run` a C string is, from 1; 0 for none."""
    first = load1(name)
    if first == 0x63 and load1(name + 1) == 0x6F and load1(name + 2) == 0x64 and load1(name + 3) == 0x65 and load1(name + 4) == 0x63:
        return 1 if load1(name + 5) == 0 else 0
    if first == 0x73 and load1(name + 1) == 0x63 and load1(name + 2) == 0x68 and load1(name + 3) == 0x65 and load1(name + 4) == 0x6D:
        return 2 if load1(name + 5) == 0x61 and load1(name + 6) == 0 else 0
    if first == 0x72 and load1(name + 1) == 0x75 and load1(name + 2) == 0x6E:
        return 3 if load1(name + 3) == 0 else 0
    return 0


@within
def _headers_hash(message: int, calls: Any, scratch: Any) -> int:
    """A hash (FNV-1a) of the headers that are read, 0 where there are none, -1 where they cannot be read."""
    at = scratch.ctypes.data
    status = _call2(calls[1], message, at)
    if status != 0:
        return 0 if status == calls[3] else -1
    total = np.uint64(0xCBF29CE484222325)
    found = 0
    index = 0
    while _call_header(calls[2], scratch[0], index, at + 8, at + 16, at + 24) == 0:
        which = _kept(scratch[1])
        if which:
            found += 1
            total = (total ^ np.uint64(which)) * np.uint64(0x100000001B3)
            total = (total ^ np.uint64(scratch[3])) * np.uint64(0x100000001B3)
            for i in range(scratch[3]):
                total = (total ^ np.uint64(load1(scratch[2] + i))) * np.uint64(0x100000001B3)
        index += 1
    if found == 0:
        return 0
    made = int(np.int64(total))
    return made if made > 0 or made < -1 else 1


@compiled
def survey(messages: Any, n: int, calls: Any, scratch: Any, topics: Any, sets: Any, codes: Any, out: Any) -> tuple[int, int, int]:
    """First pass. codes[i, 0]: table, or -1 for what is no message; codes[i, 1]: header set. out: messages, bytes.

    Returns (status, where it stopped, hash of the headers there): a topic or a set of headers that is not known yet is
    made known by the caller, who starts again.
    """
    count, size = 0, 0
    topic, last = 0, 0
    for i in range(n):
        words = messages[i]
        if word(words) & _LOW != 0:
            codes[i, 0] = -1
            continue
        address = word(words + 8)
        if topic >= len(topics) or topics[topic, 0] != address:
            topic = 0
            while topic < len(topics) and topics[topic, 0] != address:
                topic += 1
            if topic == len(topics):
                return NEW_TOPIC, i, 0
        hashed = _headers_hash(words, calls, scratch)
        if hashed == 0:
            codes[i, 1] = NO_HEADERS
        elif hashed == -1:
            codes[i, 1] = BAD_HEADERS
        else:
            if last >= len(sets) or sets[last] != hashed:
                last = 0
                while last < len(sets) and sets[last] != hashed:
                    last += 1
                if last == len(sets):
                    return NEW_HEADERS, i, hashed
            codes[i, 1] = last
        codes[i, 0] = topics[topic, 1]
        count += 1
        size += word(words + 32)
    out[0], out[1] = count, size
    return DONE, n, 0


@compiled
def gather(messages: Any, n: int, calls: Any, scratch: Any, codes: Any, columns: Any, data: Any, starts: Any) -> None:
    """Second pass. columns: five rows of int64: table, partition, offset, timestamp, headers."""
    at, k = 0, 0
    base = data.ctypes.data
    starts[0] = 0
    kind = scratch.ctypes.data
    for i in range(n):
        if codes[i, 0] < 0:
            continue
        words = messages[i]
        size = word(words + 32)
        if size > 0:
            _copy(base + at, word(words + 24), size)
        at += size
        columns[0, k] = codes[i, 0]
        columns[1, k] = word(words + 16) & _LOW
        columns[2, k] = word(words + 56)
        columns[3, k] = _call2_long(calls[4], words, kind)
        columns[4, k] = codes[i, 1]
        k += 1
        starts[k] = at


@compiled
def release(messages: Any, n: int, calls: Any) -> None:
    """Give the messages back."""
    for i in range(n):
        _call_void(calls[0], messages[i])


def _note_error(client: int, code: int, text: int, kept: int) -> None:
    """librdkafka's error callback: a note in memory, for the reader to look at after the call. Python is not entered, so a signal
    that arrives meanwhile is not lost in a callback."""
    count = carray(_words(kept), 1)
    slot = kept + 8 + (count[0] % NOTES) * NOTE_BYTES
    carray(_words(slot), 1)[0] = code
    letters = carray(_letters(slot + 8), NOTE_BYTES - 8)
    i = 0
    while i < NOTE_BYTES - 9:
        letter = load1(text + i) if text else 0
        letters[i] = letter
        if letter == 0:
            break
        i += 1
    letters[i] = 0
    count[0] += 1


@functools.cache
def error_callback() -> Any:
    """`_note_error` as C calls it; its `address` is valid as long as the process."""
    return cfunc(types.void(types.int64, types.int32, types.int64, types.int64), cache=True)(_note_error)


@compiled
def grouped(table: Any, partition: Any, order: Any, groups: Any) -> int:
    """Messages by table, then partition, then as they came. order: their numbers so; groups: per group the table, the partition, where
    it begins in `order` and where it ends. Returns how many groups there are."""
    partitions = 1 + max(partition)
    ends = np.zeros(partitions * (1 + max(table)) + 1, np.int64)
    for i in range(len(table)):
        ends[table[i] * partitions + partition[i] + 1] += 1
    found = 0
    for g in range(len(ends) - 1):
        if ends[g + 1] > 0:
            groups[found, 0], groups[found, 1], groups[found, 2] = g // partitions, g % partitions, ends[g]
            found += 1
        ends[g + 1] += ends[g]
        if found and ends[g + 1] > ends[g]:
            groups[found - 1, 3] = ends[g + 1]
    for i in range(len(table)):
        g = table[i] * partitions + partition[i]
        order[ends[g]] = i
        ends[g] += 1
    return found


@compiled
def sniffed(data: Any, starts: Any, headers: Any, which: Any, verdicts: Any, ways: Any, codes: Any) -> int:
    """How each message of `which` is to be read: what the verdict on its headers is, or, where that is codes[3], by its first byte:
    codes[0] nothing, codes[1] JSON, codes[2] Arrow. Returns how many are JSON."""
    count = 0
    for k in range(len(which)):
        at, end = starts[which[k]], starts[which[k] + 1]
        way = verdicts[headers[which[k]]]
        if at == end:
            way = codes[0]
        elif way == codes[3]:
            way = codes[2] if data[at] == 0xFF else codes[1]
        ways[k] = way
        count += way == codes[1]
    return count
