"""How often a symbol usually speaks, and how far behind the exchange we are: what silence and a heartbeat are judged by.

Both learn from the events themselves; neither reads a clock, times are given.
"""

from collections import deque

GAPS = 256
GAPS_MIN = 16
SILENT_S_MIN = 5.0
"""No symbol is silent before that."""
LAG_S_MIN, LAG_S_MAX = 0.25, 5.0
LAG_MARGIN = 1.25
_WINDOW_S = 60.0


class Pulse:
    """The events of one symbol. A symbol is silent after `factor` times the longest of its latest gaps."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._last_s: float | None = None
        self._patience = 1.0

    def beat(self, now_s: float) -> None:
        """An event came."""
        if self._last_s is not None:
            self._gaps.append(now_s - self._last_s)
        self._last_s, self._patience = now_s, 1.0

    @property
    def limit_s(self) -> float | None:
        """After how long it is silent; None while too little was seen."""
        if len(self._gaps) < GAPS_MIN:
            return None
        return max(SILENT_S_MIN, self._factor * max(self._gaps)) * self._patience

    def silent(self, now_s: float) -> bool:
        """Whether it is silent; each time that it is true, twice as long is waited before it is true again."""
        limit = self.limit_s
        if limit is None or self._last_s is None or now_s - self._last_s <= limit:
            return False
        self._patience *= 2
        return True

    def forgive(self, now_s: float) -> None:
        """The connection was away: that gap was not the symbol's."""
        if self._last_s is not None:
            self._last_s = now_s


class Lag:
    """How much later events come than they happen: a bit more than the longest of the last minute or two."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._now = self._before = LAG_S_MIN

    def see(self, delay_s: float, now_s: float) -> None:
        """An event came `delay_s` after it happened."""
        if now_s - self._began_s > _WINDOW_S:
            self._began_s, self._before, self._now = now_s, self._now, LAG_S_MIN
        self._now = max(self._now, delay_s)

    @property
    def s(self) -> float:
        return min(LAG_S_MAX, max(LAG_S_MIN, LAG_MARGIN * max(self._now, self._before)))
