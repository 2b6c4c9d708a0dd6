"""What the models of a run said and how it came out, as numbers for the report: records, their course, and who was live at an entry.

Everything is taken from the tables of the run, so a run in memory and the same run in the warehouse give the same. What a model
said while it was stopped is part of its record, as it is of the table `scores`: nobody acted on it, and it tells whether it recovers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from operators.strategies.rules import StrategySpec, references
from research.learning.evaluation import Floats, Ints, Outcomes, metrics, outcomes_of_scores, rank_correlation
from research.report_numbers import Trips, codes, floats, ints, texts
from schemas.config_models import ModelConfig
from schemas.money import UNITS
from schemas.policy import compile_policy
from schemas.tables import TableSpec
from schemas.tables_models import MODEL_TABLES, PREDICTION_STATES, ROLES, VERDICTS

if TYPE_CHECKING:
    from operators.assembly import Plan

Z_95 = 1.959963984540054
WINDOWS = 12
"""A rolling window is this part of a run."""
POINTS = 96
ROWS_MIN = 20
"""Fewer labels in a window than this are no point of a curve."""


class Tabled(Protocol):
    """A run whose tables can be asked for, in memory or in the warehouse."""

    @property
    def plan(self) -> Any: ...
    def table(self, spec: TableSpec) -> pa.Table: ...


@dataclass(frozen=True)
class Learning:
    """The models of a run. tables: MODEL_TABLES by name. seen: strategy → the models that its rules, and the votes in them, look at.
    fee_taker: of the policy, as a fraction of the notional."""

    models: tuple[ModelConfig, ...]
    tables: Mapping[str, pa.Table]
    seen: Mapping[str, tuple[str, ...]]
    fee_taker: float

    @classmethod
    def of(cls, run: Tabled) -> "Learning | None":
        """None where the run has no models."""
        made = run.plan
        if not made.models:
            return None
        return cls(made.models, {spec.name: run.table(spec) for spec in MODEL_TABLES}, {s.name: models_seen(made, s) for s in made.specs},
                   int(compile_policy(made.config.policy)["fee_taker"][0]) / UNITS)

    def config(self, name: str) -> ModelConfig:
        return next(m for m in self.models if m.name == name)


def models_named(made: "Plan", spec: StrategySpec) -> tuple[str, ...]:
    """The models that the rules of a strategy name, in the order of the configuration."""
    named = {ref.name.rpartition(".")[0] for ref in references(spec)}
    return tuple(m.name for m in made.models if m.name in named)


def models_seen(made: "Plan", spec: StrategySpec) -> tuple[str, ...]:
    """Those, and the members of the ensembles among them."""
    named = models_named(made, spec)
    members = {member for m in made.models if m.name in named for member in m.members}
    return tuple(m.name for m in made.models if m.name in named or m.name in members)


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); NaN without rows."""
    if not rows:
        return math.nan, math.nan
    share, z2 = hits / rows, Z_95 * Z_95
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z_95 * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True)
class Record:
    """A model in a role. outcomes: what it said and what came of it, by the time at which the label became known; hit: 1, 0 or -1 as in the
    table `scores`; loss: NaN where there is none; direction: 1, -1 or 0."""

    name: str
    role: str
    config: ModelConfig
    predictions: int
    states: Mapping[str, int]
    outcomes: Outcomes
    hit: Ints
    loss: Floats

    @property
    def label(self) -> str:
        return self.name if self.role == ROLES[0] else f"{self.name} ({self.role})"

    @property
    def direction(self) -> Ints:
        return np.where(self.hit < 0, 0, np.where(self.hit == self.outcomes.up, 1, -1)).astype(np.int64)

    @property
    def abstained(self) -> int:
        return self.predictions - self.states.get("ok", 0) - self.states.get("agreed", 0)

    def quality(self, fee_taker: float) -> dict[str, float]:
        """rows, hits, decided, log_loss, brier, calibration_error; ic: Spearman's rank correlation of the score and the label; net: the
        mean log return of a row that is followed in the direction that was said, less the fee of a taker in and out."""
        o, said = self.outcomes, self.hit >= 0
        found = metrics(o) if self.config.task == "classify" else dict.fromkeys(("log_loss", "brier", "calibration_error"), math.nan)
        return {
            "rows": len(o), "hits": int((self.hit == 1).sum()), "decided": int(said.sum()),
            **{k: found[k] for k in ("log_loss", "brier", "calibration_error")}, "ic": rank_correlation(o.score, o.value),
            "net": float((self.direction * o.return_)[said].mean()) - 2 * fee_taker if said.any() else math.nan,
        }


def records(learning: Learning) -> list[Record]:
    """Every model in every role in which it said something, in the order of the configuration."""
    scores, tables = learning.tables["scores"], learning.tables
    of, role = texts(scores, "model"), texts(scores, "role")
    symbol, symbols = codes(scores, "symbol")
    columns: dict[str, Any] = {"symbol": symbol}
    columns.update({k: ints(scores, k) for k in ("ts_open_ns", "ts_event_ns", "regime", "up", "hit")})
    columns.update({k: floats(scores, k) for k in ("score", "p_up", "value", "return_", "loss")})
    found = []
    for m in learning.models:
        for said_as in ROLES:
            states = _states(tables, m, said_as)
            if not states:
                continue
            task = "classify" if m.kind == "ensemble" else m.task
            mine = np.flatnonzero((of == m.name) & (role == said_as))
            mine = mine[np.argsort(columns["ts_event_ns"][mine], kind="stable")]
            own = {k: v[mine] for k, v in columns.items()}
            found.append(Record(m.name, said_as, m, sum(states.values()), states,
                                outcomes_of_scores(m.name, task, own, symbols, m.interval_ns, 1), own["hit"], own["loss"]))
    return found


def _states(tables: Mapping[str, pa.Table], m: ModelConfig, role: str) -> dict[str, int]:
    """How often a model's predictions, or an ensemble's votes, were in each state."""
    if m.kind == "ensemble":
        if role != ROLES[0]:
            return {}
        mine, column = texts(tables["votes"], "model") == m.name, texts(tables["votes"], "verdict")
    else:
        mine = (texts(tables["predictions"], "model") == m.name) & (texts(tables["predictions"], "role") == role)
        column = texts(tables["predictions"], "state")
    names = VERDICTS if m.kind == "ensemble" else PREDICTION_STATES
    counts = {name: int((column[mine] == name).sum()) for name in names}
    return {name: n for name, n in counts.items() if n}


def course(ts_ns: Ints, values: Floats, begin_ns: int, end_ns: int) -> tuple[Ints, Floats]:
    """The mean of the finite values of the window (t - span / WINDOWS, t] at POINTS times t; NaN where these are under ROWS_MIN.

    ts_ns is in order; NaN in `values` is left out.
    """
    window = max((end_ns - begin_ns) // WINDOWS, 1)
    ends = np.linspace(begin_ns + window, end_ns, POINTS).astype(np.int64)
    kept = np.isfinite(values)
    ts, total = ts_ns[kept], np.concatenate([[0.0], np.cumsum(values[kept])])
    a, b = np.searchsorted(ts, ends - window, side="right"), np.searchsorted(ts, ends, side="right")
    return ends, np.where(b - a >= ROWS_MIN, (total[b] - total[a]) / np.maximum(b - a, 1), np.nan)


def shares(record: Record, symbols_max: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """By symbol, those with the most labels first and the rest together, then all: (hits, decided) in the regimes 0, 1, 2 and over all."""
    o = record.outcomes
    said = np.flatnonzero(record.hit >= 0)
    symbol, regime, right = o.symbol[said], np.clip(o.regime[said], 0, 2), record.hit[said] == 1
    of = np.bincount(symbol, minlength=len(o.symbols))
    order = sorted((k for k in range(len(of)) if of[k]), key=lambda k: (-of[k], o.symbols[k]))
    groups = [(o.symbols[k], [k]) for k in order[:symbols_max]]
    if len(order) > symbols_max:
        groups.append((f"{len(order) - symbols_max} others", order[symbols_max:]))
    if len(groups) != 1:
        groups.append(("all", order))
    found = []
    for name, of_group in groups:
        mine = np.isin(symbol, of_group)
        cells = [(int(right[mine & (regime == k)].sum()), int((mine & (regime == k)).sum())) for k in range(3)]
        found.append((name, [*cells, (int(right[mine].sum()), int(mine.sum()))]))
    return found


@dataclass(frozen=True)
class Entries:
    """What a model said last before entries were decided. trips: indices of round trips. row: of the predictions (an ensemble: votes)."""

    strategy: str
    model: str
    trips: Ints
    row: Ints


def at_entry(learning: Learning, trips: Trips, fills: pa.Table, decisions: pa.Table) -> list[Entries]:
    """Per strategy and model that it looks at: the trips whose entry a decision led to, each with the row that the rule then saw.

    A rule sees the last row at or before its signal's tape position, whatever the timeframe of the model.
    """
    asked = fills["order_id"].cast(pa.string()).take(pa.array(trips.first))
    places = pc.index_in(asked, value_set=pa.array(decisions["order_id"].cast(pa.string()).to_pylist(), pa.string()))
    decided = np.array([-1 if k is None else k for k in places.to_pylist()], np.int64)
    seqs = np.append(ints(decisions, "seq"), 0)[decided]
    found = []
    for strategy, names in learning.seen.items():
        mine = np.flatnonzero((trips.strategy == strategy) & (decided >= 0))
        for name in names:
            table = learning.tables["votes" if learning.config(name).kind == "ensemble" else "predictions"]
            row = _last_before(table, name, trips.symbol[mine], seqs[mine])
            found.append(Entries(strategy, name, mine[row >= 0], row[row >= 0]))
    return found


def _last_before(table: pa.Table, model: str, symbol: npt.NDArray[Any], seqs: Ints) -> Ints:
    """Row of the last that an active model said of each symbol at or before a tape position, -1 where there is none."""
    mine = texts(table, "model") == model
    if "role" in table.column_names:
        mine &= texts(table, "role") == ROLES[0]
    of, at = texts(table, "symbol"), ints(table, "seq")
    out = np.full(len(seqs), -1, np.int64)
    for name in sorted(set(symbol.tolist())):
        rows = np.flatnonzero(mine & (of == name))
        rows = rows[np.argsort(at[rows], kind="stable")]
        asked = np.flatnonzero(symbol == name)
        place = np.searchsorted(at[rows], seqs[asked], side="right") - 1
        out[asked] = np.where(place >= 0, rows[place], -1) if len(rows) else -1
    return out

