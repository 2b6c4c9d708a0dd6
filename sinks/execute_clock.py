"""What time it is on the market: the newest beat's event time, plus what has passed since that beat was written.

Without beats it is this machine's clock. So a recorded stretch that plays at a pace has its own time, an order that
waited while everything was down is as old as it is, and the age of an order is never less than its message's age.
"""

import json
from collections.abc import Callable

import pyarrow as pa

from schemas.errors import UserError
from schemas.messages import codec_of, decode_arrow
from sinks.execute_log import Message


class MarketClock:
    """Event time now. wall_ns: the machine's clock."""

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self.wall_ns = wall_ns
        self._written_ms = -1
        self._offset_ns = 0
        self.beats = 0

    def see(self, beat: Message) -> None:
        """Take a message of beats; UserError where it cannot be read."""
        event_ns = _latest_ns(beat)
        if event_ns is None or beat.ts_ms < self._written_ms:
            return
        self.beats += 1
        self._written_ms = beat.ts_ms
        # a broker that stamps messages later than this machine reads them has a clock ahead of it: then nothing has passed
        self._offset_ns = event_ns - (min(beat.ts_ms * 1_000_000, self.wall_ns()) if beat.ts_ms else self.wall_ns())

    def now_ns(self) -> int:
        """Event time now."""
        return self.wall_ns() + self._offset_ns

    def age_s(self, ts_event_ns: int, written_ms: int) -> float:
        """How old an order is that became known at `ts_event_ns` and was written to the log at `written_ms`."""
        waited_ns = self.wall_ns() - written_ms * 1_000_000 if written_ms else 0
        return max(self.now_ns() - ts_event_ns, waited_ns) / 1e9


def _latest_ns(beat: Message) -> int | None:
    try:
        if codec_of(beat.value, beat.headers) == "json":
            return int(json.loads(beat.value)["ts_event_ns"])
        column = decode_arrow(beat.value).column("ts_event_ns").cast(pa.int64())
        return max((int(v) for v in column.to_pylist()), default=None)
    except (UserError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"beats partition {beat.partition} offset {beat.offset}: {error}") from None
