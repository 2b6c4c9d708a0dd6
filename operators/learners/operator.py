"""`Learners`: models over the features of closed bars; adds predictions, labels, scores, votes, drift and switches to a frame.

Rows are taken in the order (seq, symbol). On a row the labels that it releases are learned first, then it is predicted; so nothing
learns from what was not known. What models say also becomes columns of the features of their timeframe, `NAME.p_up`, `NAME.score`,
`NAME.direction` and `NAME.confidence`, which rules may name. Models that share timeframe and label are one group, see `group`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from operators.learners.group import Group
from operators.learners.rows import Made, Named
from schemas.artefact import Artefacts
from schemas.config_models import ModelConfig
from schemas.errors import UserError
from schemas.frame import FeatureRows, Frame
from schemas.rows import picked
from schemas.tables import BARS, Rows
from schemas.tables_models import DRIFT, LABELS, PREDICTIONS, PROMOTIONS, SCORES, SWITCHES, VOTES

if TYPE_CHECKING:
    from operators.learners.online import Online

OUTPUTS = (PREDICTIONS, LABELS, SCORES, VOTES, DRIFT, SWITCHES)


class Learners:
    """The operator. models: resolved, so that registered ones carry their card's timeframe, features and label. first_code: the code of
    the first model in columns of kind `strategy`. artefacts: where versions come from, None where no model is a registered one."""

    name = "learners"

    def __init__(self, models: Sequence[ModelConfig], first_code: int, artefacts: Artefacts | None = None) -> None:
        self.models = tuple(models)
        named = [Named(first_code + k, config) for k, config in enumerate(models)]
        by_name = {each.config.name: each for each in named}
        self._groups: list[Group] = []
        for interval_ns, label in dict.fromkeys((m.interval_ns, m.label) for m in models if m.kind != "ensemble"):
            members = [n for n in named if n.config.kind != "ensemble" and (n.config.interval_ns, n.config.label) == (interval_ns, label)]
            inside = {n.config.name for n in members}
            votes = [n for n in named if n.config.kind == "ensemble" and n.config.members[0] in inside]
            self._groups.append(Group(interval_ns, label, members, votes, by_name, artefacts))

    def step(self, frame: Frame) -> Frame:
        """Add what the models made of the frame's bars."""
        promotions = frame.rows(PROMOTIONS)
        made: list[Made] = []
        features: list[FeatureRows] = list(frame.features)
        for group in self._groups:
            at = next((k for k, f in enumerate(features) if f.interval_ns == group.interval_ns), None)
            rows = frame.features[0] if at is None else features[at]
            if at is None:
                rows = FeatureRows(group.interval_ns, (), BARS.empty(0), np.empty((0, 0)))
            order = _tape_order(rows.bars)
            out = group.step(_ordered(rows, order), promotions, frame.symbols)
            made.append(out)
            if at is not None and len(rows.bars):
                values = out.columns
                if order is not None:
                    values = np.empty_like(values)
                    values[order] = out.columns
                features[at] = FeatureRows(rows.interval_ns, (*rows.names, *group.columns), rows.bars, np.hstack([rows.values, values]))
            elif at is not None:
                names = (*rows.names, *group.columns)
                features[at] = FeatureRows(rows.interval_ns, names, rows.bars, np.empty((0, len(names))))
        tables: dict[str, Rows] = {}
        for spec in OUTPUTS:
            parts = [each.tables[spec.name] for each in made if spec.name in each.tables]
            if parts:
                rows_out = np.concatenate(parts)
                tables[spec.name] = rows_out[np.lexsort((rows_out["symbol"], rows_out["seq"]))] if len(parts) > 1 else parts[0]
        return Frame(frame.origin, frame.number, frame.frontier_ns, frame.symbols, {**frame.tables, **tables}, tuple(features), frame.part,
                     frame.parts)

    def snapshot(self) -> Any:
        return [group.snapshot() for group in self._groups]

    def restore(self, state: Any) -> None:
        for group, saved in zip(self._groups, state, strict=True):
            group.restore(saved)

    def learners(self) -> list[tuple[str, str, "Online"]]:
        """Every online learner as (model, key, learner): the key is a symbol, a group, or pooled."""
        return [found for group in self._groups for found in group.learners()]

    def versions(self) -> list[tuple[str, int, int]]:
        """Every registered model as (model, active version, version in shadow), 0: none."""
        return [found for group in self._groups for found in group.versions()]


def _tape_order(bars: Rows) -> Any:
    """Indices of the bars in the order (seq, symbol), None where they are in it."""
    seqs = bars["seq"].copy()
    if len(seqs) < 2 or bool((seqs[1:] > seqs[:-1]).all()):
        return None
    order = np.lexsort((bars["symbol"], seqs))
    return None if bool((order[1:] > order[:-1]).all()) else order


def _ordered(rows: FeatureRows, order: Any) -> FeatureRows:
    return rows if order is None else FeatureRows(rows.interval_ns, rows.names, picked(rows.bars, order), rows.values[order])


def check_models(models: Sequence[ModelConfig]) -> None:
    """UserError where an ensemble's members cannot vote together."""
    known = {m.name: m for m in models}
    for m in models:
        first = known[m.members[0]] if m.members else None
        for name in m.members:
            member = known[name]
            if first is None:
                continue
            if member.task == "anomaly":
                raise UserError(f'models {m.name}: member "{name}" finds anomalies and says nothing of up or down; name {name}.score in a '
                                "rule")
            if (member.interval_ns, member.label) != (first.interval_ns, first.label):
                what = "timeframe" if member.interval_ns != first.interval_ns else "label"
                raise UserError(f'models {m.name}: members "{first.name}" and "{name}" have another {what}; members of an ensemble foresee '
                                "the same thing")


def columns_of(models: Sequence[ModelConfig]) -> dict[str, int]:
    """The columns that rules may name, with their timeframe."""
    known = {m.name: m for m in models}
    out: dict[str, int] = {}
    for m in models:
        interval_ns = known[m.members[0]].interval_ns if m.members else m.interval_ns
        out.update({f"{m.name}.{column}": interval_ns for column in MODEL_COLUMNS})
    return out


MODEL_COLUMNS = ("p_up", "score", "direction", "confidence")


def kernels() -> list[tuple[str, Callable[[], None]]]:
    """What there is to compile."""
    from operators.learners.forest import warm as walk
    from operators.learners.pending import Pending
    empty = np.zeros(1, np.int64)

    def warm() -> None:
        walk()
        Pending(1, 1, 1).step(empty, empty, np.zeros((1, 1)), np.zeros((1, 1), np.int64), empty[:0], empty[:0], 1)
    return [("learners", warm)]
