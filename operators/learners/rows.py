"""From arrays to rows: what the models of a group said, how it came out, what drifted and which version was live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from operators.learners.distribution import Alarms
from operators.learners.pending import Bools, Floats, Ints
from operators.learners.slots import Said, Shift, Switch
from operators.learners.usual import Usual
from schemas.artefact import Artefact
from schemas.config_models import LabelConfig, ModelConfig
from schemas.intervals import interval_text
from schemas.rows import appended, picked
from schemas.tables import Rows, TableSpec
from schemas.tables_models import DETECTORS, DRIFT, DRIFT_ACTIONS, P_NO_ARTEFACT, P_OK, PREDICTIONS, SCORES, SWITCHES

P_MIN = 1e-6
"""Probabilities are kept this far from 0 and 1 in the log loss."""
_DETECTOR_OF = {"ADWIN": "adwin", "PageHinkley": "page_hinkley", "KSWIN": "kswin", "CUSUM": "cusum"}


@dataclass(frozen=True)
class Named:
    """A model and its code in columns of kind `strategy`."""

    code: int
    config: ModelConfig


@dataclass(frozen=True)
class Made:
    """What a group made of a frame: rows by table, and (rows, columns) of the numbers that rules may name."""

    tables: Mapping[str, Rows]
    columns: Floats


@dataclass
class Voice:
    """A model in one role, with what it said of the rows of a frame. say: its probability of up in a vote, NaN where it abstains."""

    named: Named
    role: int
    said: Said
    p_up: Floats
    direction: Ints
    confidence: Floats
    say: Floats

    def silence(self, mask: Bools, state: int) -> None:
        """It abstains where `mask`; its score stays, so that it can be seen to recover."""
        self.said.state[mask & (self.said.state == P_OK)] = state
        for array in (self.p_up, self.say):
            array[mask] = np.nan
        self.direction[mask], self.confidence[mask] = 0, 0.0


@dataclass(frozen=True)
class Matched:
    """What was said of the bars whose labels are released: (labels, voices) each; regime and found are (labels,)."""

    score: Floats
    p_up: Floats
    say: Floats
    version: Ints
    direction: Ints
    regime: Ints
    found: Bools


def voice(named: Named, role: int, said: Said, usual: Usual) -> Voice:
    """Probability, direction and confidence of what a model said."""
    score, task = said.score, named.config.task
    absent = ~np.isfinite(score)
    if task == "classify":
        p_up = score.copy()
        direction = np.where(absent, 0, np.sign(score - 0.5)).astype(np.int64)
        confidence = np.where(absent, 0.0, np.maximum(score, 1.0 - score))
        say = score.copy()
    elif task == "regress":
        p_up = np.full(len(score), np.nan)
        direction = np.where(absent, 0, np.sign(score)).astype(np.int64)
        confidence = usual.step(score)
        say = np.where(absent, np.nan, 0.5 + 0.5 * np.sign(score) * confidence)
    else:
        p_up, say = np.full(len(score), np.nan), np.full(len(score), np.nan)
        direction, confidence = np.zeros(len(score), np.int64), np.where(absent, 0.0, score)
    return Voice(named, role, said, p_up, direction, confidence, say)


def prediction_rows(v: Voice, bars: Rows, label: LabelConfig) -> Rows:
    """A row per bar; none in a role that has no version."""
    spoke = np.flatnonzero((v.said.state != P_NO_ARTEFACT) | (v.role == 0))
    out = PREDICTIONS.empty(len(spoke))
    for column in ("ts_event_ns", "seq", "symbol", "interval_ns", "ts_open_ns"):
        out[column] = bars[column][spoke]
    out["model"], out["role"] = v.named.code, v.role
    for column in ("state", "version", "learned", "score"):
        out[column] = getattr(v.said, column)[spoke]
    for column in ("p_up", "direction", "confidence"):
        out[column] = getattr(v, column)[spoke]
    return out


def score_rows(code: int, role: int, task: str, matched: Matched, j: int, labels: Rows) -> Rows:
    """What voice j had said beside what came true; nothing where it had abstained."""
    keep = np.flatnonzero(matched.found & np.isfinite(matched.score[:, j]))
    mine = labels if len(keep) == len(labels) else picked(labels, keep)
    return scored(code, role, task, mine, matched.score[keep, j], matched.p_up[keep, j], matched.version[keep, j],
                  matched.direction[keep, j], matched.regime[keep])


def scored(code: int, role: int, task: str, labels: Rows, score: Floats, p_up: Floats, version: Ints, direction: Ints,
           regime: Ints) -> Rows:
    """Rows of `scores` for these labels."""
    out = SCORES.empty(len(labels))
    for column in ("ts_event_ns", "seq", "symbol", "interval_ns", "ts_open_ns", "value", "up"):
        out[column] = labels[column]
    out["model"], out["role"], out["version"], out["regime"], out["score"], out["p_up"] = code, role, version, regime, score, p_up
    out["hit"] = np.where(direction == 0, -1, (direction > 0) == (labels["up"] == 1))
    if task == "classify":
        p = np.clip(p_up, P_MIN, 1.0 - P_MIN)
        out["loss"] = -np.log(np.where(labels["up"] == 1, p, 1.0 - p))
    elif task == "regress":
        out["loss"] = (score - labels["value"]) ** 2
    else:
        out["loss"] = np.nan
    out["return_"] = np.log(labels["price_end"] / labels["price"])
    return out


def shift_rows(m: Named, shifts: Sequence[Shift], bars: Rows) -> Rows:
    """Drift that an online learner saw in its own losses; without a detector it resets itself where its numbers are no longer finite."""
    out = _drift(m.code, len(shifts))
    for k, shift in enumerate(shifts):
        bar = bars[shift.row]
        out[k]["ts_event_ns"], out[k]["seq"], out[k]["symbol"] = bar["ts_event_ns"], bar["seq"], bar["symbol"]
        out[k]["detector"] = DETECTORS.index(_DETECTOR_OF.get(m.config.drift.detector, "performance"))
        out[k]["action"] = DRIFT_ACTIONS.index(shift.action)
        out[k]["statistic"], out[k]["bound"] = shift.statistic, shift.bound
    return out


def alarm_rows(m: Named, alarms: Alarms, bars: Rows) -> Rows:
    """Features that are no longer as they were when the active version was trained."""
    out = _drift(m.code, len(alarms))
    out["ts_event_ns"], out["seq"], out["symbol"] = bars["ts_event_ns"][alarms.row], alarms.seq, alarms.symbol
    for column in ("feature", "detector", "statistic", "bound"):
        out[column] = getattr(alarms, column)
    return out


def blank_scores(models: Sequence[Named], labels: Rows) -> Rows:
    """A row per label and model, in that order, with place and model alone: what an alarm of accuracy is dated by."""
    out = SCORES.empty(len(labels) * len(models))
    for column in ("ts_event_ns", "seq", "symbol"):
        out[column] = np.repeat(labels[column], len(models))
    out["model"] = np.tile(np.array([m.code for m in models], np.int64), len(labels))
    return out


def _drift(code: int, n: int) -> Rows:
    out = DRIFT.empty(n)
    out["model"], out["feature"] = code, -1
    return out


def switch_rows(m: Named, switches: Sequence[Switch]) -> Rows:
    """Changes of version."""
    out = SWITCHES.empty(len(switches))
    for k, s in enumerate(switches):
        out[k] = (s.ts_event_ns, s.seq, -1, m.code, s.role, s.version, s.previous, s.outcome)
    return out


def columns_of_voices(voices: Sequence[Voice]) -> list[npt.NDArray[np.float64]]:
    """p_up, score, direction and confidence of each."""
    return [c for v in voices for c in (v.p_up, v.said.score, v.direction.astype(np.float64), v.confidence)]


def joined(spec: TableSpec, parts: Sequence[Rows]) -> Rows:
    """One table of several, in the order of the tape."""
    made = [part for part in parts if len(part)]
    if len(made) < 2:
        return made[0] if made else spec.empty(0)
    rows = appended(made)
    return picked(rows, np.lexsort((rows["symbol"], rows["seq"])))


def unlike(artefact: Artefact, config: ModelConfig) -> str:
    """Why a version cannot take the place of the one that the run was planned with; "" where it can."""
    card = artefact.card
    if card.interval_ns != config.interval_ns:
        return f"its timeframe is {interval_text(card.interval_ns)}, not {interval_text(config.interval_ns)}"
    if card.features != config.features:
        missing = [f for f in config.features if f not in card.features]
        more = [f for f in card.features if f not in config.features]
        what = [f"{word} {', '.join(names)}" for word, names in (("without", missing), ("with", more)) if names]
        return f"it was trained on another feature set: {'; '.join(what) or 'the same features in another order'}"
    if card.label != config.label:
        return f"it foresees another label ({card.label.kind} over {interval_text(card.label.horizon_ns)})"
    return "" if card.task == config.task else f"its task is {card.task}, not {config.task}"
