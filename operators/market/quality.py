"""`Quality`: drops the trades, quotes and recorded bars that cannot be true, each into `rejected` with its reason.

Rows in are rows out plus rows rejected, always, and a table in which nothing was dropped is passed on itself, uncopied.
The reason is the first that holds: suspicious; not finite; not positive (a quote may lack one side: zero; both: empty;
a recorded bar may lack volume); crossed, inconsistent; duplicate; out of order; outlier. Equal prints without an id are
genuine. A row is judged by the rows before it on its own table and symbol, so a genuine jump costs its first prints:
the `outlier_confirm`-th near the new price is believed.

The outlier band is an exponentially weighted mean of the price, plus and minus (as ratios) the larger of a least move
and a number of mean absolute deviations, fed by accepted prices alone with bounded steps, as in robust exponential
smoothing (Gelper, Fried, Croux, "Robust forecasting with exponential and Holt-Winters smoothing", J. Forecasting 29,
2010).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from operators.market import quality_kernel as kernel
from operators.state import grown
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.rows import copied
from schemas.tables import NO_TRADE_ID, QUOTES, RECORDED, REJECTED, TRADES, Rows

WINDOW_MAX = 1 << 20


@dataclass(frozen=True)
class QualityConfig:
    """What is believed.

    duplicate_ids: trade ids remembered a symbol, at least this many (rounded up to a power of two).
    out_of_order_ns: how far a row may lie before the latest of its symbol. outlier_confirm: so many outliers in a row,
    each near the one before, are a new price: the last of them is believed. outlier_move_min: trades and quotes that
    differ from the level by less than this share are never outliers; bar_move_min: likewise open and close of recorded
    bars, and their high and low beyond these. outlier_deviations: width of the band in mean absolute deviations.
    score_rows: rows a symbol and table that `score` looks at.
    """

    duplicate_ids: int = 1024
    out_of_order_ns: int = 0
    outlier_confirm: int = 3
    outlier_move_min: float = 0.1
    bar_move_min: float = 1.0
    outlier_deviations: float = 20.0
    score_rows: int = 1000

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, float, float, bool, str], ...] = (
            ("duplicate_ids", 1, WINDOW_MAX, True, "a number of ids"),
            ("out_of_order_ns", 0, 86_400 * 10**9, True, "nanoseconds, at most one day,"),
            ("outlier_confirm", 1, 1000, True, "a number of prints"),
            ("outlier_move_min", 1e-6, 1e6, False, "a share of the price (0.1: 10 %)"),
            ("bar_move_min", 1e-6, 1e6, False, "a share of the price (1.0: twice or half)"),
            ("outlier_deviations", 1, 1e6, False, "a number of mean absolute deviations"),
            ("score_rows", 1, WINDOW_MAX, True, "a number of rows"),
        )
        for name, low, high, whole, what in bounds:
            value = getattr(self, name)
            known = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not known or not low <= value <= high:
                raise UserError(f'quality.{name}: "{value}" is out of bounds; write {what} from {low:g} to {high:g}')


class Quality:
    """The operator: replaces `trades`, `quotes`, `recorded` by their clean rows; writes `rejected`."""

    name = "quality"
    _SPECS = (TRADES, QUOTES, RECORDED)
    _SHOWN = (("price", "size"), ("bid", "ask"), ("close", "volume"))
    """What `rejected` shows as price and size."""

    def __init__(self, config: QualityConfig | None = None) -> None:
        self.config = config or QualityConfig()
        c = self.config
        ticks = (c.out_of_order_ns, c.outlier_confirm, c.outlier_move_min, c.outlier_deviations, 1 / 8, 1 / 64)
        bars = (c.out_of_order_ns, c.outlier_confirm, c.bar_move_min, c.outlier_deviations, 1.0, 1 / 64)
        # a close sums up many prints: it is the level itself, so that a crash is not measured from where it began
        self._rules = [np.array([rules], kernel.RULES) for rules in (ticks, ticks, bars)]
        ids = 1 << (c.duplicate_ids - 1).bit_length()
        self._judges: list[Rows] = [np.empty(0, kernel.JUDGE) for _ in self._SPECS]
        self._lost: list[Rows] = [np.empty((0, c.score_rows), np.int64) for _ in self._SPECS]
        self._runs: Rows = np.empty((0, ids), np.int64)
        self._sets: Rows = np.empty((0, 2, 2 * ids), np.int64)
        self._dropped = np.empty((256, 2), np.int64)

    def step(self, frame: Frame) -> Frame:
        tables: dict[str, Rows] = {}
        rejected: list[Rows] = []
        for k, spec in enumerate(self._SPECS):
            rows = frame.tables.get(spec.name)
            if rows is None or len(rows) == 0:
                continue
            n = self._judge(k, frame, rows)
            if n:
                at, reason = self._dropped[:n, 0], self._dropped[:n, 1]
                keep = np.ones(len(rows), np.bool_)
                keep[at] = False
                tables[spec.name] = rows[keep]
                rejected.append(_rejected(k, rows[at], reason, *self._SHOWN[k]))
        if not rejected:
            return frame
        made = rejected[0] if len(rejected) == 1 else np.concatenate(rejected)
        made = made[np.argsort(made["seq"], kind="stable")]
        before = frame.tables.get(REJECTED.name)
        tables[REJECTED.name] = made if before is None else np.concatenate([before, made])
        return frame.with_tables(**tables)

    def score(self, symbol_code: int) -> float:
        """The share of good rows among the last `score_rows` of each table of a symbol; NaN where it has shown none."""
        window, read, bad = self.config.score_rows, 0, 0
        for judges, lost in zip(self._judges, self._lost, strict=True):
            if symbol_code < len(judges):
                count, dropped = int(judges["count"][symbol_code]), int(judges["dropped"][symbol_code])
                read += min(count, window)
                bad += int((lost[symbol_code, : min(dropped, window)] > count - window).sum())
        return 1.0 - bad / read if read else float("nan")

    def snapshot(self) -> dict[str, Any]:
        return {
            "judges": [judges.copy() for judges in self._judges], "lost": [lost.copy() for lost in self._lost],
            "runs": self._runs.copy(), "sets": self._sets.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        if state["runs"].shape[1] != self._runs.shape[1] or state["lost"][0].shape[1] != self.config.score_rows:
            raise UserError(
                "the saved state of the quality step has other duplicate_ids or score_rows than the configuration; "
                "restore with the configuration it was saved under"
            )
        self._judges = [judges.copy() for judges in state["judges"]]
        self._lost = [lost.copy() for lost in state["lost"]]
        self._runs, self._sets = state["runs"].copy(), state["sets"].copy()

    def _judge(self, k: int, frame: Frame, rows: Rows) -> int:
        """Run table `k` through its loop; the number of rows to drop, which `_dropped` names."""
        n = len(frame.symbols)
        self._judges[k] = grown(self._judges[k], n, kernel.NEW_JUDGE)
        self._lost[k] = grown(self._lost[k], n)
        self._dropped = grown(self._dropped, len(rows))
        # a loop is compiled for one layout: contiguous and writeable
        plain = rows if rows.flags.c_contiguous and rows.flags.writeable else copied(rows)
        judges, lost, rules = self._judges[k], self._lost[k], self._rules[k]
        if k == 0:
            self._runs = grown(self._runs, n)
            self._sets = grown(self._sets, n, NO_TRADE_ID)
            found = kernel.trades(plain, judges, lost, self._runs, self._sets, rules, self._dropped)
        elif k == 1:
            found = kernel.quotes(plain, judges, lost, rules, self._dropped)
        else:
            found = kernel.recorded(plain, judges, lost, rules, self._dropped)
        if found == kernel.BAD_SYMBOL:
            raise IndexError(f"frame {frame.number} of {frame.origin}: a row's symbol is not among its symbols")
        return int(found)


def _rejected(table: int, rows: Rows, reason: Rows, price: str, size: str) -> Rows:
    out = REJECTED.empty(len(rows))
    for name in ("ts_event_ns", "seq", "symbol"):
        out[name] = rows[name]
    out["source_table"] = table
    out["reason"] = reason
    out["price"] = rows[price]
    out["size"] = rows[size]
    out["trade_id"] = rows["trade_id"] if table == 0 else NO_TRADE_ID
    return out
