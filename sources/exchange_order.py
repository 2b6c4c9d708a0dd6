"""The trades of one symbol in their order: duplicates dropped, holes seen, and nothing let through across a hole.

What comes out is in the order of the exchange's ids and has every trade once, however connections repeat, reorder or drop
them: a trade behind a hole is held until the hole is filled (`repaired`) or closes by itself. Where ids are not numbers, or
turn out to skip by nature, duplicates are known by a bounded memory of ids, and holes only by a lost connection.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.tables import NO_TRADE_ID

SEEN_MAX = 10_000
HELD_MAX = 50_000
"""Trades held behind a hole; those beyond are let go and fetched again with the hole."""
FALSE_ALARMS_MAX = 3
"""Jumps in ids that turned out to hide no trade, after which a symbol's ids are taken to skip by nature."""


@dataclass(frozen=True)
class Trade:
    """A trade as an exchange tells it. id: as text, empty where it has none. side: a code of `schemas.tables.SIDES`."""

    id: str
    ts_ns: int
    price: float
    size: float
    side: int

    @property
    def number(self) -> int:
        """The id as a number, -1 where it is none."""
        return int(self.id) if self.id.isascii() and self.id.isdigit() and len(self.id) < 19 else NO_TRADE_ID


@dataclass
class TradeOrder:
    """The state of one symbol on one exchange. last: the newest trade that was let through."""

    last: Trade | None = None
    duplicates: int = 0
    holding: bool = False
    """Whether everything is held, because a connection was lost and what it missed is being fetched."""
    counted: bool = True
    """Whether ids are taken to be consecutive."""
    _false_alarms: int = 0
    _held: dict[str, Trade] = field(default_factory=dict)
    _let_go: bool = False
    _seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    @property
    def open_hole(self) -> bool:
        """Whether trades are held."""
        return self.holding or bool(self._held) or self._let_go

    @property
    def held(self) -> int:
        return len(self._held)

    def hold(self) -> None:
        """The connection was lost: hold what comes until `repaired`."""
        self.holding = self.last is not None

    def push(self, trade: Trade) -> list[Trade]:
        """What may go on now that this trade came."""
        if trade.id and (trade.id in self._seen or trade.id in self._held or self._is_past(trade)):
            self.duplicates += 1
            return []
        if not self.holding and not self._held and not self._let_go and self._follows(trade):
            return self._let_through([trade])
        if len(self._held) >= HELD_MAX:
            self._let_go = True
            return []
        self._held[trade.id or f"#{len(self._held)}"] = trade
        return [] if self.holding else self._released()

    def fills(self, fetched: Iterable[Trade]) -> bool:
        """Whether what was fetched leaves no number missing up to the last that is held; true where ids are not counted."""
        if not self.counted or self.last is None or self.last.number < 0:
            return True
        there = {t.number for t in (*fetched, *self._held.values()) if t.number > self.last.number}
        return not there or max(there) - self.last.number == len(there)

    def repaired(self, fetched: Iterable[Trade]) -> list[Trade]:
        """What may go on now that everything after `last` was fetched, in the exchange's order."""
        before = len(self._held)
        known = set(self._held)
        missed = [t for t in fetched if not t.id or not (t.id in self._seen or self._is_past(t))]
        new = [t for t in missed if t.id not in known]
        jumped = before > 0 and not self.holding and not self._let_go
        if jumped and self.counted and not any(self._in_hole(t) for t in new):
            self._false_alarms += 1
            self.counted = self._false_alarms < FALSE_ALARMS_MAX
        elif jumped and new:
            self._false_alarms = 0
        fetched_ids = {t.id for t in missed if t.id}
        rest = [t for t in self._held.values() if not t.id or t.id not in fetched_ids]
        self._held, self.holding, self._let_go = {}, False, False
        return self._let_through(self._sorted([*missed, *rest]))

    def _sorted(self, trades: Sequence[Trade]) -> list[Trade]:
        if all(t.number >= 0 for t in trades) and self._orderly():
            return sorted(trades, key=lambda t: t.number)
        return sorted(trades, key=lambda t: t.ts_ns)

    def _orderly(self) -> bool:
        return self.counted or self.last is None or self.last.number >= 0

    def _follows(self, trade: Trade) -> bool:
        """Whether nothing can be missing before it."""
        if self.last is None or not self.counted or trade.number < 0 or self.last.number < 0:
            return True
        return trade.number == self.last.number + 1

    def _is_past(self, trade: Trade) -> bool:
        """Whether it was let through so long ago that its id is forgotten; only where no id up to the last one is missing."""
        return self.counted and self.last is not None and 0 <= trade.number <= self.last.number

    def _in_hole(self, trade: Trade) -> bool:
        """Whether it lies between the last and the first that is held."""
        lowest = min(t.number for t in self._held.values())
        return self.last is not None and self.last.number < trade.number < lowest

    def _released(self) -> list[Trade]:
        """Held trades that follow without a hole."""
        out: list[Trade] = []
        while self._held and self.last is not None:
            following = self._held.pop(str(self.last.number + 1), None)
            if following is None:
                return out
            out += self._let_through([following])
        return out

    def _let_through(self, trades: list[Trade]) -> list[Trade]:
        for t in trades:
            if t.id:
                self._seen[t.id] = None
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        if trades:
            self.last = trades[-1]
        return trades
