"""Tapes for the tests of the signal validator: bars, signals, scores and predictions from literals, as frames cut anywhere."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from operators.strategies.validator import Validator
from schemas.config_models import ValidatorConfig
from schemas.frame import Frame
from schemas.tables import BARS, ENTER_LONG, EXIT, SIGNALS, Rows, TableSpec
from schemas.tables_models import ACTIVE_ROLE, P_OK, PREDICTIONS, SCORES, VALIDATIONS

MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
STRATEGIES, MODELS = ("momentum", "reversal"), ("other", "logit")
CODE = 3  # two strategies, then the models
START = 19_000 * DAY
OFF = ValidatorConfig(hits_min=0, volatility_max=0, participation_max=0, correlation_max=0, cost_bps=0)
NOT_APPLICABLE, PASSED, REFUSED = 0, 1, 2
Tape = dict[str, Rows]


def table(spec: TableSpec, rows: Iterable[dict[str, Any]]) -> Rows:
    """Rows from literals, sorted by tape position; an event time is the start plus a second per position where none is given."""
    listed = sorted(rows, key=lambda row: (row["seq"], row.get("symbol", 0)))
    out = spec.empty(len(listed))
    for at, row in enumerate(listed):
        for name, value in {"ts_event_ns": START + row["seq"] * 10**9, **row}.items():
            out[name][at] = value
    return out


def bar(seq: int, close: float, symbol: int = 0, interval_ns: int = MINUTE, **more: float) -> dict[str, Any]:
    return {"seq": seq, "symbol": symbol, "interval_ns": interval_ns, "ts_close_ns": START + seq // 10 * interval_ns, "close": close,
            "high": close, "low": close, "notional": 1e6, "volume": 1e4, "bid": np.nan, "ask": np.nan, **more}


def entry(seq: int, symbol: int = 0, strategy: int = 0, action: int = ENTER_LONG, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "symbol": symbol, "strategy": strategy, "action": action, "interval_ns": MINUTE, "strength": 1.0, **more}


def out_(seq: int, symbol: int = 0, strategy: int = 0, **more: Any) -> dict[str, Any]:
    return entry(seq, symbol, strategy, EXIT, **more)


def score(seq: int, hit: int, ts: int | None = None, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "model": CODE, "role": ACTIVE_ROLE, "hit": hit, **({"ts_event_ns": ts} if ts is not None else {}), **more}


def tape(bars: Iterable[dict[str, Any]], signals: Iterable[dict[str, Any]], scores: Iterable[dict[str, Any]] = (),
         predictions: Iterable[dict[str, Any]] = ()) -> Tape:
    return {"bars": table(BARS, bars), "signals": table(SIGNALS, signals), "scores": table(SCORES, scores),
            "predictions": table(PREDICTIONS, predictions)}


def frames(rows: Tape, cuts: Iterable[int] = ()) -> list[Frame]:
    edges = [-1, *sorted(cuts), np.iinfo(np.int64).max]
    out = []
    for number, (a, z) in enumerate(pairwise(edges)):
        part = {name: each[(each["seq"] >= a) & (each["seq"] < z)] for name, each in rows.items()}
        seen = [int(each["symbol"][each["seq"] < z].max(initial=0)) for each in rows.values()]
        names = tuple(f"S{k}" for k in range(1 + max(seen)))
        out.append(Frame("test", number, 0, names, {name: each for name, each in part.items() if len(each)}))
    return out


def run(operator: Validator, given_frames: Iterable[Frame]) -> tuple[Rows, Rows]:
    """The validations and the signals that come out."""
    made = [operator.step(frame) for frame in given_frames]
    return (np.concatenate([VALIDATIONS.empty(0), *(f.rows(VALIDATIONS) for f in made)]),
            np.concatenate([SIGNALS.empty(0), *(f.rows(SIGNALS) for f in made)]))


def said(seq: int, move: float, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "model": CODE, "role": ACTIVE_ROLE, "state": P_OK, "score": move, **more}
