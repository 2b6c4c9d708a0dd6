"""An ensemble: its members' probabilities become one vote a bar, and labels that are due move its weights and their calibration.

It is a state machine over events in the order of the tape: any cut of the events into batches gives the same votes, bit for bit,
and a vote knows the labels before it and no others.

- A member that speaks says up where its calibrated probability is above 0.5 and down where it is below.
- Consensus is counted by heads: of those present, the share `consensus` has to say the same; a tie holds, and so does a
  majority that the weighted probability contradicts.
- Weights are those of Hedge, per symbol, on the log loss of the calibrated probabilities.
- Confidence is the probability of the likelier side, from 0.5 to 1: that is what "70 % confident" says. 0 where nobody spoke.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import inner, kernel
from operators.learners.calibration import NEW, calibrated, learn_calibration
from operators.learners.volatility import Volatility
from operators.state import grown
from schemas.config_models import ModelConfig
from schemas.tables_models import MEMBERS_MAX, V_AGREED, V_DISABLED, V_NO_CONSENSUS, V_TOO_FEW, V_VOLATILE

LEARN, PREDICT, FORGET = range(3)
"""Kinds of events. LEARN: a label is due. PREDICT: a bar asks for a vote. FORGET: of the members that have a number, another version
takes over, and what was known of their calibration is void."""
WEIGHT_MIN = 0.01
"""No weight falls below this, so that a member that was bad for long can come back."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CONSENSUS, PRESENT_MIN, VOLATILITY_HIGH, CONFIDENCE_HIGH, LEARNING_RATE = range(5)
VERDICT, DIRECTION, PRESENT, AGREEING = range(4)
P_UP, CONFIDENCE = range(2)


class Ensemble:
    """config: of kind ensemble. members: how many there are. votes: which of them may vote; the others' probabilities are shown, with
    weight 0, and they count neither as present nor as missing."""

    def __init__(self, config: ModelConfig, members: int, votes: Bools | None = None) -> None:
        if not 1 <= members <= MEMBERS_MAX:
            raise ValueError(f"{members} members; an ensemble has 1 to {MEMBERS_MAX}")
        self.members = members
        self._votes = np.ones(members, np.bool_) if votes is None else np.array(votes, np.bool_)
        if self._votes.shape != (members,):
            raise ValueError(f"votes has shape {self._votes.shape}; there are {members} members")
        self._limits = np.array([config.consensus, config.present_min, config.volatility_high, config.confidence_high,
                                 config.learning_rate])
        self._calibrate = config.calibrate
        self._enabled = config.forecast == "KEEP" and bool(self._votes.any())
        self._even = np.where(self._votes, 1.0 / max(1, int(self._votes.sum())), 0.0)
        self._weights = np.zeros((0, members))
        self._calibration = np.tile(NEW, (members, 1))

    def step(self, kinds: Ints, p: Floats, up: Ints, volatility: Floats, symbols: Ints, n_symbols: int) -> dict[str, Any]:
        """Events in the order of the tape; a column of VOTES → its values, one for each PREDICT.

        kinds: LEARN, PREDICT or FORGET. p: (events, members): what the members say or, of a LEARN, had said of the label's bar; NaN
        (or anything not from 0 to 1): abstains, or has no part in this label. up: 0 or 1, of a LEARN. volatility: daily, of a
        PREDICT; NaN counts as high. symbols: codes below n_symbols; a FORGET's is not looked at.
        """
        if p.shape != (len(kinds), self.members):
            raise ValueError(f"p has shape {p.shape}; there are {len(kinds)} events and {self.members} members")
        self._weights = grown(self._weights, n_symbols, self._even)
        n = int(np.count_nonzero(kinds == PREDICT))
        ints, floats, shown = np.zeros((n, 4), np.int64), np.zeros((n, 2)), np.zeros((n, 2, MEMBERS_MAX))
        _step(kinds, p, up, volatility, symbols, self._votes, self._limits, self._calibrate, self._enabled, self._weights,
              self._calibration, ints, floats, shown)
        return {"verdict": ints[:, VERDICT], "direction": ints[:, DIRECTION], "p_up": floats[:, P_UP], "confidence": floats[:, CONFIDENCE],
                "present": ints[:, PRESENT], "agreeing": ints[:, AGREEING], "member_p": shown[:, 0], "member_weight": shown[:, 1]}

    def snapshot(self) -> dict[str, Any]:
        return {"members": self.members, "weights": self._weights.copy(), "calibration": self._calibration.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        if state["members"] != self.members:
            raise ValueError(f"the snapshot holds {state['members']} members, this ensemble has {self.members}")
        self._weights = np.array(state["weights"], np.float64)
        self._calibration = np.array(state["calibration"], np.float64)


@kernel
def _step(kinds: Ints, p: Floats, up: Ints, volatility: Floats, symbols: Ints, votes: Bools, limits: Floats, calibrate: bool,
          enabled: bool, weights: Floats, calibration: Floats, ints: Ints, floats: Floats, shown: Floats) -> None:
    """Every event in turn. weights: (symbols, members). calibration: (members, 5). ints, floats, shown: a row for each PREDICT."""
    said = np.empty(len(votes))
    row = 0
    for at in range(len(kinds)):
        if kinds[at] == FORGET:  # of all symbols; there may be none yet
            for i in range(len(votes)):
                if not math.isnan(p[at, i]):
                    calibration[i] = NEW
            continue
        for i in range(len(votes)):
            given = p[at, i]
            if not 0.0 <= given <= 1.0:
                said[i] = math.nan
            else:
                said[i] = calibrated(calibration[i], given) if calibrate else given
        if kinds[at] == LEARN:
            _reweigh(weights[symbols[at]], said, up[at], votes, limits[LEARNING_RATE])
            for i in range(len(votes)):
                if calibrate and not math.isnan(said[i]):
                    learn_calibration(calibration[i], p[at, i], up[at])
        else:
            _vote(weights[symbols[at]], said, volatility[at], votes, limits, enabled, ints[row], floats[row], shown[row])
            row += 1


@inner
def _vote(weights: Floats, said: Floats, volatility: float, votes: Bools, limits: Floats, enabled: bool, ints: Ints, floats: Floats,
          shown: Floats) -> None:
    """One vote. Shares are quotients, not products: 3 / 5 is the very number that 0.6 is read as."""
    shown[0, :] = math.nan
    voters, present, ups, downs = 0, 0, 0, 0
    total, weighted = 0.0, 0.0
    for i in range(len(votes)):
        shown[0, i] = said[i]
        voters += votes[i]
        if votes[i] and not math.isnan(said[i]):
            present += 1
            ups += said[i] > 0.5
            downs += said[i] < 0.5
            total += weights[i]
            weighted += weights[i] * said[i]
    for i in range(len(votes)):
        if votes[i] and not math.isnan(said[i]):
            shown[1, i] = weights[i] / total
    p_up = weighted / total if present > 0 else math.nan
    confidence = max(p_up, 1.0 - p_up) if present > 0 else 0.0
    side = 1 if ups > downs else -1 if downs > ups else 0
    agreeing = max(ups, downs)
    if not enabled:
        verdict = V_DISABLED
    elif present == 0 or present / voters < limits[PRESENT_MIN]:
        verdict = V_TOO_FEW
    elif side == 0 or agreeing / present < limits[CONSENSUS] or side * (p_up - 0.5) <= 0.0:
        verdict = V_NO_CONSENSUS
    elif not volatility <= limits[VOLATILITY_HIGH] and confidence <= limits[CONFIDENCE_HIGH]:
        verdict = V_VOLATILE
    else:
        verdict = V_AGREED
    ints[VERDICT] = verdict
    ints[DIRECTION] = side if verdict == V_AGREED else 0
    ints[PRESENT] = present
    ints[AGREEING] = agreeing
    floats[P_UP] = p_up
    floats[CONFIDENCE] = confidence


@inner
def _reweigh(weights: Floats, said: Floats, up: int, votes: Bools, rate: float) -> None:
    """Hedge (Freund and Schapire 1997): w *= exp(-rate * loss), the loss being the log loss, at most 1.

    Who abstained keeps its weight and the others share what they had together (specialists: Freund, Schapire, Singer, Warmuth 1997).
    Then the nearest weights, in relative entropy, that are at least WEIGHT_MIN (Herbster and Warmuth 2001). With everyone awake the loss
    of the weighted draw is within KL(u, even) / rate + rate * n / 8 of any fixed weights u that keep the floor (Cesa-Bianchi and Lugosi
    2006, theorem 2.2).
    """
    awake, before, after = 0, 0.0, 0.0
    for i in range(len(votes)):
        if votes[i] and not math.isnan(said[i]):
            right = said[i] if up else 1.0 - said[i]
            loss = 1.0 if right <= 0.0 else min(1.0, -math.log(right))
            awake += 1
            before += weights[i]
            weights[i] *= math.exp(-rate * loss)
            after += weights[i]
    if awake == 0:
        return
    scale = before / after
    held = -1
    while True:
        below, free = 0, 0.0
        for i in range(len(votes)):
            if votes[i] and not math.isnan(said[i]):
                if weights[i] * scale < WEIGHT_MIN:
                    below += 1
                else:
                    free += weights[i]
        if below == held or below == 0 or below == awake:
            break
        held = below
        scale = (before - WEIGHT_MIN * below) / free
    for i in range(len(votes)):
        if votes[i] and not math.isnan(said[i]):
            weights[i] = max(WEIGHT_MIN, weights[i] * scale)


__all__ = ["FORGET", "LEARN", "PREDICT", "WEIGHT_MIN", "Ensemble", "Volatility"]
