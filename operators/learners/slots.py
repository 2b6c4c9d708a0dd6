"""A model at work: for the rows of a frame what it says of each, in the order of the tape.

A River model learns from the labels that a row releases before it predicts the row. A registered one is a function of the row; which
version says it is decided by the promotions before the row, so every prediction carries exactly one version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from operators.learners.pending import Floats, Ints
from operators.learners.protocol import Batch, Learner
from schemas.artefact import Artefact, Artefacts, Card
from schemas.config_models import ModelConfig
from schemas.errors import PenstockError, unknown
from schemas.ids import name_id
from schemas.tables import Rows
from schemas.tables_models import (
    ACTIVE_ROLE,
    O_DONE,
    O_REFUSED,
    P_MISSING,
    P_NO_ARTEFACT,
    P_OK,
    P_UNFIT,
    P_WARMING,
    RETIRE,
    SHADOW,
    SHADOW_ROLE,
)

NOWHERE = -1
"""The key of a symbol that a model is not for."""


@dataclass(frozen=True)
class Said:
    """What a model said of the rows: (rows,) each. score is NaN wherever state is not ok."""

    score: Floats
    state: Ints
    version: Ints
    learned: Ints


@dataclass(frozen=True)
class Released:
    """Labels in the order in which the rows release them. row: which row; made_seq: tape position of the bar that each is of."""

    row: Ints
    made_seq: Ints
    value: Floats
    up: Ints


@dataclass(frozen=True)
class Shift:
    """A drift event of a River model: at which row, what was done about it, and what was measured."""

    row: int
    action: str
    statistic: float
    bound: float


class RiverSlot:
    """A River model, one learner per key: per symbol, per group, or one for all. bars: how many bars a horizon has at most."""

    def __init__(self, config: ModelConfig, bars: int) -> None:
        self.config = config
        self._bars = bars + 2
        self._learners: dict[int, Learner] = {}
        self._waiting: dict[int, dict[int, tuple[dict[str, float], float]]] = {}
        self._group = {symbol: k for k, group in enumerate(config.groups) for symbol in group}
        self._keys: list[int] = []
        self._named: dict[int, str] = {}
        self.shifts: list[Shift] = []

    def _key(self, code: int, name: str) -> int:
        if self.config.scope == "pooled":
            return 0
        return code if self.config.scope == "symbol" else self._group.get(name, NOWHERE)

    def _learner(self, key: int, name: str) -> Learner:
        if self.config.scope != "symbol":
            name = self.config.scope if self.config.scope == "pooled" else f"group {key}"
        self._named[key] = name
        from operators.learners.online import Online  # River takes a second to import, and most runs need none of it
        made: Learner = Online(self.config, name)
        self._learners[key] = made
        return made

    def learners(self) -> list[tuple[str, Learner]]:
        """Every learner by the name of its key."""
        return [(self._named[key], each) for key, each in self._learners.items()]

    def step(self, values: Floats, symbols: Ints, seqs: Ints, released: Released, names: Sequence[str]) -> Said:
        """Learn and predict, row by row. values: (rows, features)."""
        n = len(values)
        self._keys += [self._key(code, names[code]) for code in range(len(self._keys), len(names))]
        scores = [np.nan] * n
        states, versions, learned = [P_MISSING] * n, [0] * n, [0] * n
        columns, warmup, keys = self.config.features, self.config.warmup, self._keys
        whole = np.atleast_1d(np.isfinite(values).all(axis=1)).tolist()
        at, label, labels = released.row.tolist(), 0, len(released.row)
        made, targets, ups = released.made_seq.tolist(), released.value.tolist(), released.up.tolist()
        self.shifts = []
        for i, (code, seq, row) in enumerate(zip(symbols.tolist(), seqs.tolist(), values.tolist(), strict=True)):
            waiting = self._waiting.get(code)
            if waiting is None:
                waiting = self._waiting[code] = {}
            key = keys[code]
            if key == NOWHERE:
                while label < labels and at[label] == i:
                    label += 1
                continue
            learner = self._learners.get(key) or self._learner(key, names[code])
            while label < labels and at[label] == i:
                kept = waiting.pop(made[label], None)
                if kept is not None:
                    action = learner.learn(kept[0], targets[label], ups[label], kept[1])
                    if action:
                        self.shifts.append(Shift(i, action, learner.last_statistic, learner.last_bound))
                label += 1
            versions[i], learned[i] = learner.version, learner.learned
            if not whole[i]:
                continue
            x = dict(zip(columns, row, strict=True))
            said = np.nan
            if learner.learned < warmup:
                states[i] = P_WARMING
            else:
                said = scores[i] = learner.predict(x)
                states[i] = P_OK if said - said == 0.0 else P_UNFIT
            waiting[seq] = (x, said)
            if len(waiting) > self._bars:
                del waiting[next(iter(waiting))]
        return Said(np.array(scores, np.float64), np.array(states, np.int64), np.array(versions, np.int64), np.array(learned, np.int64))

    def snapshot(self) -> Any:
        return {"learners": {key: (self._named[key], each.snapshot()) for key, each in self._learners.items()},
                "waiting": {code: {seq: (dict(x), p) for seq, (x, p) in each.items()} for code, each in self._waiting.items()},
                "keys": list(self._keys)}

    def restore(self, state: Any) -> None:
        self._keys = list(state["keys"])
        self._learners = {}
        for key, (name, saved) in state["learners"].items():
            self._learner(key, name).restore(saved)
        self._waiting = {code: {seq: (dict(x), p) for seq, (x, p) in each.items()} for code, each in state["waiting"].items()}


@dataclass(frozen=True)
class Switch:
    """A change of version: at which tape position, and how it ended. card: of the version that is active from here on."""

    ts_event_ns: int
    seq: int
    role: int
    version: int
    previous: int
    outcome: int
    card: Card | None = None


class RegisteredSlot:
    """A model of the registry in its two roles. check: says why an artefact cannot take over, "" where it can."""

    def __init__(self, config: ModelConfig, artefacts: Artefacts, check: Callable[[Artefact], str]) -> None:
        self.config, self._artefacts, self._check = config, artefacts, check
        self.model_id = name_id(config.registry)
        self.versions = [0, 0]
        self._models: list[Batch | None] = [None, None]
        self.artefact: Artefact | None = None
        self.switches: list[Switch] = []
        if config.initial:
            self._load(ACTIVE_ROLE, config.initial)

    def _load(self, role: int, version: int) -> None:
        artefact = self._artefacts.get(self.model_id, version)
        wrong = self._check(artefact)
        if wrong:
            raise PenstockError(f"model {self.config.name}: version {version} of {self.config.registry} cannot be used: {wrong}")
        from operators.learners.boosted import LOADERS
        loader = LOADERS.get(artefact.card.model)
        if loader is None:
            raise unknown(f"model {self.config.name}: kind of artefact", artefact.card.model, LOADERS)
        self._models[role], self.versions[role] = loader(artefact), version
        if role == ACTIVE_ROLE:
            self.artefact = artefact

    def _drop(self, role: int) -> None:
        self._models[role], self.versions[role] = None, 0
        if role == ACTIVE_ROLE:
            self.artefact = None

    def _switch(self, row: Any) -> None:
        """Take one promotion. An artefact that cannot be used is refused, and what was live stays live."""
        action, version = int(row["action"]), int(row["version"])
        role = SHADOW_ROLE if action == SHADOW else ACTIVE_ROLE
        if action == RETIRE:
            roles = [r for r in (ACTIVE_ROLE, SHADOW_ROLE) if self.versions[r] == version]
            for r in roles:
                self._drop(r)
                self._note(row, r, 0, version, O_DONE)
            return
        if role == SHADOW_ROLE and not self.config.shadow:
            return
        previous, outcome = self.versions[role], O_DONE
        if previous == version:
            return
        try:
            self._load(role, version)
        except PenstockError:
            outcome = O_REFUSED
        if outcome == O_DONE and role == ACTIVE_ROLE and self.versions[SHADOW_ROLE] == version:
            self._drop(SHADOW_ROLE)
        self._note(row, role, version, previous, outcome)

    def _note(self, row: Any, role: int, version: int, previous: int, outcome: int) -> None:
        card = self.artefact.card if self.artefact is not None else None
        self.switches.append(Switch(int(row["ts_event_ns"]), int(row["seq"]), role, version, previous, outcome, card))

    def step(self, values: Floats, seqs: Ints, promotions: Rows) -> list[Said]:
        """What each role said: [active, shadow]. A promotion takes effect before the row at its tape position."""
        n = len(values)
        out = [Said(np.full(n, np.nan), np.full(n, P_NO_ARTEFACT, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)) for _ in (0, 1)]
        self.switches = []
        follows = len(promotions) > 0 and not self.config.version
        mine = promotions[promotions["model_id"] == np.uint64(self.model_id)] if follows else promotions[:0]
        start = 0
        for row in mine:
            end = int(np.searchsorted(seqs, row["seq"]))
            self._predict(values, out, start, end)
            self._switch(row)
            start = end
        self._predict(values, out, start, n)
        return out

    def _predict(self, values: Floats, out: list[Said], start: int, end: int) -> None:
        if start >= end:
            return
        for role, model in enumerate(self._models):
            if model is None:
                continue
            part = np.ascontiguousarray(values[start:end])
            whole = np.asarray(np.isfinite(part).all(axis=1))
            scores = np.full(end - start, np.nan)
            if whole.all():
                scores = model.predict(part)
            elif whole.any():
                scores[whole] = model.predict(np.ascontiguousarray(part[whole]))
            fit = np.isfinite(scores)
            said = out[role]
            said.score[start:end] = np.where(fit, scores, np.nan)
            said.state[start:end] = np.where(fit, P_OK, np.where(whole, P_UNFIT, P_MISSING))
            said.version[start:end] = self.versions[role]

    def snapshot(self) -> Any:
        return list(self.versions)

    def restore(self, state: Any) -> None:
        for role, version in enumerate(state):
            if version:
                self._load(role, version)
            else:
                self._drop(role)

