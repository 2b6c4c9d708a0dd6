"""Raw websocket frames of Binance as a client wrote them down: a line is the local time in ns, a space, the JSON frame.

`trade` and `aggTrade` frames become trades and `bookTicker` frames quotes, at the exchange's transaction time. A spot
`bookTicker` carries no time: it gets the latest exchange time that the lines before it showed, because the local clock
may be off by seconds. Everything else (depth updates, snapshots, answers) is counted as skipped.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import msgspec
import numpy as np

from schemas.errors import UserError
from schemas.tables import BUY, QUOTES, SELL, TRADES, Rows
from sources.containers import opened

_LINE = re.compile(rb"\d{19} [{\[]")
_CLOCK = re.compile(rb'"[ET]":(\d{13,16})')
_EVENT = re.compile(rb'"e":"(\w{1,40})"')
_SYMBOL = re.compile(rb'"s":"([^"]{1,40})"')
_LINE_BYTES_MAX = 16 << 20
_HEAD_BYTES = 200
"""Of a line: stream, event type and times stand at its start."""


def looks_like_frames(head: bytes) -> bool:
    """Whether a file that starts like this holds frames."""
    return _LINE.match(head) is not None


class _Body(msgspec.Struct):
    s: str
    t: int = -1
    a: Any = None
    p: str = ""
    q: str = ""
    m: bool = False
    b: Any = None
    B: str = ""
    A: str = ""
    T: int = 0
    E: int = 0


class _Frame(msgspec.Struct):
    data: _Body


_wrapped = msgspec.json.Decoder(_Frame)
_bare = msgspec.json.Decoder(_Body)


@dataclass(frozen=True)
class FramesFile:
    """A file of frames; each kind of row is a pass of its own."""

    path: str
    container: str

    def survey(self) -> tuple[dict[str, tuple[int, set[str]]], dict[str, int]]:
        """Rows and symbols per kind, and the number of skipped frames by event type."""
        found: dict[str, tuple[int, set[str]]] = {}
        skipped: dict[str, int] = {}
        for _, line in self._lines():
            kind = _kind(line)
            if kind is None:
                event = _EVENT.search(line)
                name = event.group(1).decode() if event else "other"
                skipped[name] = skipped.get(name, 0) + 1
                continue
            symbol = _SYMBOL.search(line)
            rows, symbols = found.get(kind, (0, set()))
            found[kind] = (rows + 1, symbols | {symbol.group(1).decode()} if symbol else symbols)
        return found, skipped

    def blocks(self, kind: str, codes: Mapping[str, int], rows: int) -> Iterator[Rows]:
        """The rows of one kind, in the order of the file."""
        clock_ns = 0
        spec, make = (TRADES, _trade) if kind == "trades" else (QUOTES, _quote)
        held: list[tuple[Any, ...]] = []
        for number, line in self._lines():
            if kind == "quotes":
                stamp = _CLOCK.search(line, 0, _HEAD_BYTES)
                if stamp:
                    clock_ns = max(clock_ns, _ns(int(stamp.group(1))))
            if _kind(line) != kind:
                continue
            local, _, text = line.partition(b" ")
            try:
                body = _wrapped.decode(text).data if text.startswith(b'{"stream"') else _bare.decode(text)
                held.append(make(body, codes[body.s], clock_ns or int(local)))
            except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as e:
                shown = line[:60].decode("utf-8", "replace")
                raise UserError(
                    f'{self.path} line {number}: "{shown}…" is not a frame of a {kind[:-1]} ({e})'
                ) from None
            if len(held) == rows:
                yield np.array(held, spec.dtype)
                held = []
        if held:
            yield np.array(held, spec.dtype)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with opened(self.path, self.container) as file:
            yield from self._checked(file)

    def _checked(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := file.readline(_LINE_BYTES_MAX):
            number += 1
            if not line.strip():
                continue
            if not (line.endswith((b"}\n", b"}\r\n", b"}", b"]\n", b"]\r\n", b"]")) and _LINE.match(line)):
                shown = line[:60].decode("utf-8", "replace").strip()
                raise UserError(
                    f'{self.path} line {number}: "{shown}" is not a local time in ns and a whole JSON frame; '
                    f"the file may be cut off"
                )
            yield number, line


def _kind(line: bytes) -> str | None:
    head = line[:_HEAD_BYTES]
    if b'"e":"trade"' in head or b'"e":"aggTrade"' in head:
        return "trades"
    return "quotes" if b'@bookTicker"' in head or b'"e":"bookTicker"' in head else None


def _trade(f: _Body, code: int, clock_ns: int) -> tuple[Any, ...]:
    if not (f.T or f.E):
        raise ValueError("it carries no time")
    trade_id = f.t if f.t >= 0 else int(f.a)
    return (_ns(f.T or f.E), 0, code, float(f.p), float(f.q), SELL if f.m else BUY, trade_id, 0)


def _quote(f: _Body, code: int, clock_ns: int) -> tuple[Any, ...]:
    ts_event_ns = _ns(f.T or f.E) if f.T or f.E else clock_ns
    return (ts_event_ns, 0, code, float(f.b), float(f.a), float(f.B), float(f.A), 0)


def _ns(stamp: int) -> int:
    """Binance's times are ms, or µs where a client asked for them."""
    return stamp * 10**6 if stamp < 10**14 else stamp * 10**3
