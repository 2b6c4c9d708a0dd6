"""The models of one timeframe and one label: they learn from the same labels and are scored against them.

The order within a frame is that of the tape: promotions, then per row its released labels, then its predictions; then what the members
said is put to the vote in the same order. Predictions wait in `pending` for their labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.learners.ballot import Ballot
from operators.learners.distribution import Distribution
from operators.learners.fallback import Fallback
from operators.learners.labels import Labels
from operators.learners.pending import Floats, Ints, Pending
from operators.learners.rows import (
    Made,
    Matched,
    Named,
    Voice,
    alarm_rows,
    blank_scores,
    columns_of_voices,
    joined,
    prediction_rows,
    score_rows,
    shift_rows,
    switch_rows,
    unlike,
    voice,
)
from operators.learners.slots import RegisteredSlot, Released, RiverSlot, Said, Switch
from operators.learners.usual import Usual
from operators.learners.volatility import Volatility
from schemas.artefact import Artefacts, Card
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError
from schemas.frame import FeatureRows
from schemas.tables import Rows
from schemas.tables_models import (
    ACTIVE_ROLE,
    DRIFT,
    LABELS,
    O_DONE,
    P_STOPPED,
    PREDICTIONS,
    SCORES,
    SHADOW_ROLE,
    SWITCHES,
    VOTES,
)

CALM, VOLATILE = 0.02, 0.05
"""Regimes by daily volatility: calm below the first, volatile from the second on, usual between."""
DRIFT_ROWS, DRIFT_EVERY = 20_000, 500
"""Rows of a symbol that are compared with the training window, and how often. With 2,000, real minutes of the
training window itself gave eleven alarms a day for four symbols and twelve features; with 20,000 six in three weeks."""
FLOATS, INTS = 3, 2
"""What a voice leaves for the day its label is due: score, p_up and its say in a vote; version and direction."""


class Group:
    """models: those that predict. votes: ensembles over some of them. by_name: all models of the run."""

    def __init__(self, interval_ns: int, label: LabelConfig, models: Sequence[Named], votes: Sequence[Named], by_name: Mapping[str, Named],
                 artefacts: Artefacts | None) -> None:
        self.interval_ns, self.label = interval_ns, label
        self.models = tuple(models)
        self.columns = tuple(f"{m.config.name}.{c}" for m in (*models, *votes) for c in ("p_up", "score", "direction", "confidence"))
        bars = -(-label.horizon_ns // interval_ns)
        self._labels = Labels(label, interval_ns)
        self._slots = [self._slot(m, bars, artefacts) for m in models]
        self._voices = [(k, role) for k, slot in enumerate(self._slots)
                        for role in ((ACTIVE_ROLE,) if isinstance(slot, RiverSlot) else (ACTIVE_ROLE, SHADOW_ROLE))]
        self._usual = [Usual() for _ in self._voices]
        self._volatility = Volatility(interval_ns)
        self._fallback = Fallback(len(models))
        self._stopped = np.zeros(len(models), np.bool_)
        self._ballots = [Ballot(v, [next(k for k, m in enumerate(models) if m.config.name == name) for name in v.config.members],
                                [by_name[name].config.forecast == "KEEP" for name in v.config.members], bars) for v in votes]
        self._pending = Pending(bars, FLOATS * len(self._voices), INTS * len(self._voices) + 1)
        self._distributions = [_watched(self._card(k)) for k in range(len(models))]
        for k in range(len(models)):
            self._fallback.begin(k, _trained(self._card(k)))
        self._places: tuple[tuple[str, ...], list[Ints]] = ((), [])

    def _slot(self, m: Named, bars: int, artefacts: Artefacts | None) -> RiverSlot | RegisteredSlot:
        if m.config.kind == "river":
            return RiverSlot(m.config, bars)
        if artefacts is None:
            raise PenstockError(f"model {m.config.name} is in a registry, and none was opened")
        return RegisteredSlot(m.config, artefacts, lambda artefact: unlike(artefact, m.config))

    def _card(self, k: int) -> Card | None:
        slot = self._slots[k]
        return slot.artefact.card if isinstance(slot, RegisteredSlot) and slot.artefact is not None else None

    def learners(self) -> list[tuple[str, str, Any]]:
        """(model, key, learner) of every online learner."""
        return [(m.config.name, key, found) for m, slot in zip(self.models, self._slots, strict=True) if isinstance(slot, RiverSlot)
                for key, found in slot.learners()]

    def versions(self) -> list[tuple[str, int, int]]:
        """(model, active, shadow) of every registered model."""
        return [(m.config.name, slot.versions[ACTIVE_ROLE], slot.versions[SHADOW_ROLE])
                for m, slot in zip(self.models, self._slots, strict=True) if isinstance(slot, RegisteredSlot)]

    def _features(self, rows: FeatureRows) -> list[Floats]:
        """(rows, features) of each model."""
        if not len(rows.bars):
            return [np.empty((0, len(m.config.features))) for m in self.models]
        if self._places[0] != rows.names:
            at = {name: k for k, name in enumerate(rows.names)}
            self._places = rows.names, [np.array([at[f] for f in m.config.features], np.int64) for m in self.models]
        return [rows.values[:, places] for places in self._places[1]]

    def step(self, rows: FeatureRows, promotions: Rows, symbols: Sequence[str]) -> Made:
        """One frame's rows, in the order (seq, symbol)."""
        bars, n_symbols = rows.bars, len(symbols)
        if not len(bars) and not len(promotions):
            return Made({}, np.empty((0, len(self.columns))))
        labels, released_by = self._labels.step(bars, n_symbols)
        released = Released(released_by, labels["made_seq"].copy(), labels["value"].copy(), labels["up"].copy())
        codes, seqs = bars["symbol"].astype(np.int64), bars["seq"].copy()
        volatility = self._volatility.step(bars["close"].copy(), codes, n_symbols)
        said, drift, switches = self._say(rows, promotions, symbols, codes, seqs, released)
        voices = [voice(self.models[k], role, each, usual) for (k, role), each, usual in zip(self._voices, said, self._usual, strict=True)]
        regime = np.where(volatility < CALM, 0, np.where(volatility >= VOLATILE, 2, 1))
        matched = self._match(voices, regime, codes, seqs, released, n_symbols)
        switched = [(int(np.searchsorted(seqs, s.seq)), k, s) for k, slot in enumerate(self._slots) if isinstance(slot, RegisteredSlot)
                    for s in slot.switches if s.role == ACTIVE_ROLE and s.outcome == O_DONE]
        drift.append(self._stop([v for v in voices if v.role == ACTIVE_ROLE], matched, released, labels, switched))
        scores = [score_rows(v.named.code, v.role, v.named.config.task, matched, j, labels) for j, v in enumerate(voices)]
        active = [v for v in voices if v.role == ACTIVE_ROLE]
        says = [j for j, v in enumerate(voices) if v.role == ACTIVE_ROLE]
        columns = columns_of_voices(active)
        votes = []
        for ballot in self._ballots:
            cast, own, ballot_columns = ballot.step(active, matched.say[:, says], matched.regime, volatility, bars, released, labels,
                                                    [(row, k) for row, k, _ in switched], n_symbols)
            votes.append(cast)
            scores.append(own)
            columns += ballot_columns
        tables = {PREDICTIONS: [prediction_rows(v, bars, self.label) for v in voices], LABELS: [labels], SCORES: scores, VOTES: votes,
                  DRIFT: drift, SWITCHES: switches}
        return Made({spec.name: made for spec, parts in tables.items() if len(made := joined(spec, parts))},
                    np.column_stack(columns) if len(bars) else np.empty((0, len(self.columns))))

    def _say(self, rows: FeatureRows, promotions: Rows, symbols: Sequence[str], codes: Ints, seqs: Ints, released: Released
             ) -> tuple[list[Said], list[Rows], list[Rows]]:
        """What every voice says, and what drifted and switched meanwhile."""
        said: list[Said] = []
        drift: list[Rows] = []
        switches: list[Rows] = []
        for k, (m, slot, values) in enumerate(zip(self.models, self._slots, self._features(rows), strict=True)):
            if isinstance(slot, RiverSlot):
                said.append(slot.step(values, codes, seqs, released, symbols))
                drift.append(shift_rows(m, slot.shifts, rows.bars))
                continue
            said += slot.step(values, seqs, promotions)
            switches.append(switch_rows(m, slot.switches))
            if len(slot.switches) or self._distributions[k] is not None:
                drift += self._watch(k, slot.switches, values, codes, seqs, len(symbols), rows.bars)
        return said, drift, switches

    def _match(self, voices: Sequence[Voice], regime: Ints, codes: Ints, seqs: Ints, released: Released, n_symbols: int) -> Matched:
        """Leave what the voices say of these rows, and find what they said of the bars whose labels are released."""
        n, v = len(codes), len(voices)
        floats, ints = np.empty((n, FLOATS * v)), np.empty((n, INTS * v + 1), np.int64)
        for j, each in enumerate(voices):
            floats[:, FLOATS * j], floats[:, FLOATS * j + 1], floats[:, FLOATS * j + 2] = each.said.score, each.p_up, each.say
            ints[:, INTS * j], ints[:, INTS * j + 1] = each.said.version, each.direction
        ints[:, -1] = regime
        found_floats, found_ints, found = self._pending.step(codes, seqs, floats, ints, released.row, released.made_seq, n_symbols)
        return Matched(found_floats[:, 0::FLOATS], found_floats[:, 1::FLOATS], found_floats[:, 2::FLOATS], found_ints[:, 0:-1:INTS],
                       found_ints[:, 1:-1:INTS], found_ints[:, -1], found)

    def _watch(self, k: int, switches: Sequence[Switch], values: Floats, codes: Ints, seqs: Ints, n_symbols: int, bars: Rows) -> list[Rows]:
        """Compare features with the training window of the version that is active at each row."""
        out: list[Rows] = []
        changes = [(int(np.searchsorted(seqs, s.seq)), s.card) for s in switches if s.role == ACTIVE_ROLE and s.outcome == O_DONE]
        start = 0
        for number, end in enumerate([*(row for row, _ in changes), len(values)]):
            watched = self._distributions[k]
            if watched is not None and end > start:
                out.append(alarm_rows(self.models[k], watched.step(values[start:end], codes[start:end], n_symbols, seqs[start:end]),
                                      bars[start:end]))
            if number < len(changes):
                self._distributions[k] = _watched(changes[number][1])
            start = end
        return out

    def _stop(self, active: Sequence[Voice], matched: Matched, released: Released, labels: Rows,
              switched: Sequence[tuple[int, int, Switch]]) -> Rows:
        """Silence active models that were right too rarely of late, from the row on at which that was known; a new version begins anew."""
        voices = [j for j, (_, role) in enumerate(self._voices) if role == ACTIVE_ROLE]
        direction = matched.direction[:, voices]
        hits = np.where(matched.found[:, None] & (direction != 0), (direction > 0) == (labels["up"] == 1)[:, None], -1)
        m = hits.shape[1]
        rows = len(active[0].direction) if active else 0
        out: list[Rows] = []
        start = 0
        for end, begun in _stretches(switched, rows):
            a, b = (int(x) for x in np.searchsorted(released.row, [start, end]))
            which = np.tile(np.arange(m), b - a)
            stopped, alarms, accuracy = self._fallback.step(which, hits[a:b].ravel())
            if alarms.any():
                out.append(self._fallback.drift(blank_scores(self.models, labels[a:b]), which, stopped, alarms, accuracy))
            after = stopped.reshape(b - a, m)
            at = np.searchsorted(released.row[a:b], np.arange(start, end), side="right") - 1
            for k, voice_ in enumerate(active):
                mask = np.zeros(rows, np.bool_)
                mask[start:end] = np.where(at >= 0, after[at, k] if b > a else False, self._stopped[k])
                if mask.any():
                    voice_.silence(mask, P_STOPPED)
            if b > a:
                self._stopped = after[-1].copy()
            for k, s in begun:
                self._fallback.begin(k, _trained(s.card))
                self._stopped[k] = False
            start = end
        return joined(DRIFT, out)

    def snapshot(self) -> Any:
        return {
            "labels": self._labels.snapshot(), "slots": [each.snapshot() for each in self._slots],
            "usual": [each.snapshot() for each in self._usual], "volatility": self._volatility.snapshot(),
            "fallback": self._fallback.snapshot(), "stopped": self._stopped.copy(), "ballots": [each.snapshot() for each in self._ballots],
            "pending": self._pending.snapshot(),
            "distributions": [None if each is None else each.snapshot() for each in self._distributions],
        }

    def restore(self, state: Any) -> None:
        self._labels.restore(state["labels"])
        self._volatility.restore(state["volatility"])
        self._fallback.restore(state["fallback"])
        self._stopped = state["stopped"].copy()
        self._pending.restore(state["pending"])
        for name, parts in (("slots", self._slots), ("usual", self._usual), ("ballots", self._ballots)):
            for each, saved in zip(parts, state[name], strict=True):
                each.restore(saved)
        self._distributions = [_watched(self._card(k)) for k in range(len(self.models))]
        for watched, saved in zip(self._distributions, state["distributions"], strict=True):
            if watched is not None and saved is not None:
                watched.restore(saved)


def _watched(card: Card | None) -> Distribution | None:
    return Distribution(card.edges, card.shares, DRIFT_ROWS, DRIFT_EVERY) if card is not None and card.edges else None


def _trained(card: Card | None) -> float:
    """The accuracy that a version had out of sample when it was trained, NaN where its card does not say."""
    metrics = card.about.get("metrics") if card is not None else None
    found = metrics.get("accuracy") if isinstance(metrics, Mapping) else None
    return float(found) if isinstance(found, int | float) else math.nan


def _stretches(switched: Sequence[tuple[int, int, Switch]], rows: int) -> list[tuple[int, list[tuple[int, Switch]]]]:
    """Ends of the stretches of rows between changes of version, each with the changes at its end."""
    ends = sorted({row for row, _, _ in switched} | {rows})
    return [(end, [(k, s) for row, k, s in switched if row == end]) for end in ends]
