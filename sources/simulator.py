"""A simulated market as a tape: trades, optionally quotes, and a heartbeat each minute, from a seed.

Made hour by hour, in memory that depends on the symbols and not on the hours. The same seed gives the same rows,
whatever the batch size; the first hours of a longer tape, and the symbols of a smaller market, are the same too.
Written to files and opened as a tape it gives the same frames.
"""

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from blake3 import blake3

from schemas.codec import arrow_schema, to_arrow
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame
from schemas.tables import ALL_SYMBOLS, BEATS, Rows
from sources.market import HOUR_NS, Market, Traits, hour_of, start_of, traits_of
from sources.merge import Piece, joined, opaque
from sources.rows import SPECS, number_rows
from sources.tape import cut

START_NS = 1_704_067_200 * 10**9
"""2024-01-01 00:00 UTC."""
_SYMBOLS_MAX, _HOURS_MAX = 10_000, 24 * 3660
_MODEL = "1"
"""Changes with the model, so that a data hash never stands for two markets."""

Progress = Callable[[float, int], None]
"""Called with the share that is done, 0 to 1, and the rows written so far."""


class SimulatedTape:
    """A simulated market with the interface of a recorded tape; made by `simulate`."""

    def __init__(self, symbols: int, hours: float, seed: int, start_ns: int, quotes: bool, beats: bool) -> None:
        width = max(3, len(str(symbols - 1)))
        self.symbols = tuple(f"SIM{k:0{width}d}" for k in range(symbols))
        self.kinds = (*(("quotes",) if quotes else ()), "trades", *(("beats",) if beats else ()))
        self.skipped: dict[str, int] = {}
        self.recorded_ns: tuple[int, ...] = ()
        self.hours, self.seed, self.start_ns = hours, seed, start_ns
        self._quotes, self._beats = quotes, beats

    @cached_property
    def data_hash(self) -> str:
        """Hex digest of what determines the rows."""
        return blake3(
            repr((_MODEL, len(self.symbols), self.hours, self.seed, self.start_ns, self.kinds)).encode()
        ).hexdigest()

    @property
    def rows_total(self) -> int:
        """An estimate: trades at the symbols' rates, times what busy hours add in the mean; quotes as counted once."""
        rates = sum(t.trades_per_hour for t in self.traits)
        return (
            round(1.16 * rates * self.hours)
            + (round(60 * self.hours) if self._beats else 0)
            + (round(3300 * len(self.symbols) * self.hours) if self._quotes else 0)
        )

    @property
    def ts_range(self) -> tuple[int, int]:
        """The span of the simulated time, in ns; rows may begin a little later."""
        return self.start_ns, self._end_ns

    @cached_property
    def traits(self) -> tuple[Traits, ...]:
        """What each symbol is."""
        return tuple(traits_of(self.seed, k) for k in range(len(self.symbols)))

    def frames(self, batch_rows: int, skip_rows: int = 0) -> Iterator[Frame]:
        """The tape from position `skip_rows` on, `batch_rows` rows of all tables in each frame but the last."""
        return cut(self._pieces(), self.symbols, batch_rows, skip_rows)

    @property
    def _end_ns(self) -> int:
        return self.start_ns + round(self.hours * HOUR_NS)

    def _pieces(self) -> Iterator[Piece]:
        seq = 0
        for tables in self._hours():
            ts = np.concatenate([rows["ts_event_ns"] for rows in tables.values()])
            order = np.argsort(ts, kind="stable")
            position = np.empty(len(ts), np.int64)
            position[order] = np.arange(seq, seq + len(ts))
            at = 0
            for rows in tables.values():
                number_rows(rows, position[at : at + len(rows)])
                at += len(rows)
            yield seq, seq + len(ts), tables
            seq += len(ts)

    def _hours(self) -> Iterator[dict[str, Rows]]:
        """The rows of each hour by table, in the order of ties, each sorted by time and, at one time, by symbol."""
        market = Market()
        walks = [start_of(self.seed, k, t) for k, t in enumerate(self.traits)]
        for hour in range(int(np.ceil(self.hours))):
            start_ns = self.start_ns + hour * HOUR_NS
            shared = market.hour(self.seed, hour)
            parts: dict[str, list[Rows]] = {"quotes": [], "trades": []}
            for k, walk in enumerate(walks):
                trades, quotes = hour_of(self.seed, k, hour, start_ns, self.traits[k], walk, shared, self._quotes)
                trades["symbol"] = quotes["symbol"] = k
                parts["trades"].append(trades)
                parts["quotes"].append(quotes)
            tables = {kind: _sorted(rows) for kind, rows in parts.items() if kind in self.kinds}
            if self._beats:
                tables["beats"] = _beats(start_ns, hour == 0, start_ns + HOUR_NS >= self._end_ns)
            if start_ns + HOUR_NS > self._end_ns:
                tables = {
                    kind: rows[
                        : np.searchsorted(
                            rows["ts_event_ns"], self._end_ns, side="right" if kind == "beats" else "left"
                        )
                    ]
                    for kind, rows in tables.items()
                }
            yield tables


def simulate(
    symbols: int,
    hours: float,
    seed: int,
    start_ns: int = START_NS,
    *,
    quotes: bool = False,
    beats: bool = True,
) -> SimulatedTape:
    """A market of `symbols` instruments (SIM000, …) over `hours`; every fifth symbol is quiet."""
    if not 1 <= symbols <= _SYMBOLS_MAX:
        raise UserError(f"{symbols} symbols; give 1 to {_SYMBOLS_MAX}")
    if not 0 < hours <= _HOURS_MAX:
        raise UserError(f"{hours} hours; give more than 0 and at most {_HOURS_MAX}")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed}; give 0 or a positive whole number")
    return SimulatedTape(symbols, hours, seed, start_ns, quotes, beats)


def write_tape(tape: SimulatedTape, path: str, progress: Progress | None = None) -> tuple[str, ...]:
    """Writes the tape to Parquet: trades to `path`, other tables beside it (`tape_quotes.parquet`, `tape_beats…`).

    Returns the paths. Files appear when they are whole: on an error or Ctrl-C nothing is left behind.
    """
    target = Path(path)
    if target.suffix.lower() not in (".parquet", ".pq"):
        raise UserError(f'{path}: must end in ".parquet"')
    if not target.parent.is_dir():
        raise UserError(f"{path}: the folder {target.parent} does not exist; make it first")
    finals = {k: target if k == "trades" else target.with_name(f"{target.stem}_{k}{target.suffix}") for k in tape.kinds}
    partial = {k: p.with_name(f".{p.name}.{os.getpid()}.part") for k, p in finals.items()}
    writers: dict[str, Any] = {}
    done = 0
    try:
        for kind, at in partial.items():
            writers[kind] = pq.ParquetWriter(
                at,
                arrow_schema(SPECS[kind]),
                compression="zstd",
                compression_level=1,
                use_dictionary=["symbol", "side"],
                column_encoding=_ENCODINGS.get(kind),
            )
        for first, last, tables in tape._pieces():
            for kind, rows in tables.items():
                if len(rows):
                    writers[kind].write_table(to_arrow(SPECS[kind], rows, tape.symbols), row_group_size=1 << 20)
            done += last - first
            if progress is not None and len(tables["trades"]):
                reached = int(tables["trades"]["ts_event_ns"][-1]) - tape.start_ns
                progress(min(1.0, reached / (tape.hours * HOUR_NS)), done)
        for writer in writers.values():
            writer.close()
        for kind, at in partial.items():
            at.replace(finals[kind])
    except OSError as e:
        raise PenstockError(f"{path}: cannot be written ({e.strerror or e}); nothing was kept") from None
    finally:
        for writer in writers.values():
            writer.close()
        for at in partial.values():
            at.unlink(missing_ok=True)
    if progress is not None:
        progress(1.0, done)
    return tuple(str(finals[k]) for k in tape.kinds)


_ENCODINGS: dict[str, dict[str, str]] = {
    "trades": {"ts_event_ns": "DELTA_BINARY_PACKED", "seq": "DELTA_BINARY_PACKED", "trade_id": "DELTA_BINARY_PACKED"},
    "quotes": {"ts_event_ns": "DELTA_BINARY_PACKED", "seq": "DELTA_BINARY_PACKED"},
}


def _sorted(parts: list[Rows]) -> Rows:
    rows = joined(parts)
    return opaque(rows)[np.argsort(rows["ts_event_ns"], kind="stable")].view(rows.dtype)


def _beats(start_ns: int, is_first: bool, is_last: bool) -> Rows:
    """One at the end of each minute: every symbol's time has come this far. The one at the end of an hour is of the next
    hour, because the rows of that time go before it."""
    minutes = np.arange(1 if is_first else 0, 61 if is_last else 60)
    rows = BEATS.empty(len(minutes))
    rows["ts_event_ns"] = start_ns + minutes * (60 * 10**9)
    rows["symbol"] = ALL_SYMBOLS
    return rows
