"""How the fake exchange misbehaves: cues that wait for the next requests of a kind, one each.

`before` and `after` say on which side of taking the order the trouble is: after it the order exists, whatever the client
saw. A request without a cue is served well.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass

from schemas.errors import UserError, unknown

KINDS = {
    "ok": "serve it well",
    "slow": "answer after so many seconds",
    "late": "the request itself is under way for so many seconds: its time is checked when it arrives",
    "hang_before": "do nothing, and never answer (the connection drops after so many seconds)",
    "hang_after": "take the order, and never answer",
    "drop_before": "drop the connection before taking the order",
    "drop_after": "take the order, then drop the connection",
    "status_before": "answer with that HTTP status, the order not taken",
    "status_after": "take the order, then answer with that HTTP status",
    "reject": "refuse it for want of balance",
    "hide": "take the order, but do not show it for so many seconds",
    "parts": "fill it in so many parts",
}
_NEEDS = {"slow", "late", "status_before", "status_after", "hide", "parts"}
REQUESTS = ("order", "ask", "cancel", "trades")
HANG_S = 30.0
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Cue:
    """One request's trouble. value: seconds, status or parts."""

    kind: str = "ok"
    value: float = 0.0


def parse_cue(text: str) -> tuple[str, Cue]:
    """`order:status_after:503`, `ask:slow:0.5`, `hang_after` (of an order) to a request and a cue."""
    parts = text.split(":")
    request = parts.pop(0) if parts[0] in REQUESTS else "order"
    kind = parts.pop(0) if parts else ""
    if kind not in KINDS:
        raise unknown("cue", kind, KINDS)
    try:
        value = float(parts.pop(0)) if parts else 0.0
    except ValueError:
        value = -1.0
    if parts or value < 0 or (kind in _NEEDS and value == 0):
        raise UserError(f'cue "{text}" is not written like order:status_after:503, ask:slow:0.5 or hang_after')
    return request, Cue(kind, value)


class Cues:
    """What waits for the next requests, and a seeded share of trouble for the others."""

    def __init__(self, misbehave: float = 0.0, seed: int = 0) -> None:
        self._waiting: dict[str, deque[Cue]] = defaultdict(deque)
        self._misbehave = misbehave
        self._random = random.Random(seed)

    def add(self, texts: list[str]) -> None:
        """Let these wait, in order."""
        for text in texts:
            request, cue = parse_cue(text)
            self._waiting[request].append(cue)

    def clear(self) -> None:
        self._waiting.clear()
        self._misbehave = 0.0

    def next(self, request: str) -> Cue:
        """The cue of a request."""
        if self._waiting[request]:
            return self._waiting[request].popleft()
        if self._random.random() >= self._misbehave:
            return Cue()
        # what a user meets in rehearsal; a question is only ever slow or fails
        if request != "order":
            return self._random.choice([Cue("slow", 0.2), Cue("status_before", 503), Cue("drop_before")])
        return self._random.choice([
            Cue("slow", 0.2), Cue("drop_after"), Cue("drop_before"), Cue("status_after", 503), Cue("status_before", 500),
            Cue("status_before", 429), Cue("hide", 0.2), Cue("parts", 3), Cue("hang_after", 1.0)])
