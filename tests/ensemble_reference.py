"""The ensemble once more, in plain Python and by the book: what `operators.learners.ensemble` is compared with.

Calibration solves each Newton step with NumPy, weights are projected by bisection on the scale.
"""

import math
from typing import Any

import numpy as np

from operators.learners.ensemble import FORGET, LEARN, WEIGHT_MIN
from schemas.config_models import ModelConfig
from schemas.tables_models import MEMBERS_MAX, VERDICTS

PRIOR_MEAN = np.array([1.0, 0.0])
PRIOR = np.diag([1 / 0.5**2, 1 / 0.02**2])
FORGOTTEN = 0.5 ** (1 / 200_000)


class Platt:
    """One member's calibration: slope and offset by discounted maximum a posteriori."""

    def __init__(self) -> None:
        self.theta = PRIOR_MEAN.copy()
        self.information = np.zeros((2, 2))

    @staticmethod
    def row(p: float) -> Any:
        return np.array([min(5.0, max(-5.0, math.log(p / (1 - p)) if 0 < p < 1 else math.inf * (p - 0.5))), 1.0])

    def __call__(self, p: float) -> float:
        return float(1 / (1 + np.exp(-self.theta @ self.row(p))))

    def learn(self, p: float, up: int) -> None:
        x, q = self.row(p), self(p)
        self.information = FORGOTTEN * self.information + q * (1 - q) * np.outer(x, x)
        posterior = self.information + PRIOR
        gradient = x * (up - q) - (1 - FORGOTTEN) * PRIOR @ (self.theta - PRIOR_MEAN)
        self.theta = self.theta + np.linalg.solve(posterior, gradient)
        if self.theta[0] < 0:  # the least of (t - theta)' posterior (t - theta) over t with t[0] = 0
            self.theta = np.array([0.0, self.theta[1] + posterior[0, 1] / posterior[1, 1] * self.theta[0]])


def kept_above(weights: list[float], total: float) -> list[float]:
    """The weights max(floor, scale * w) that sum to `total`."""
    low, high = 0.0, total / min(weights)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(max(WEIGHT_MIN, middle * w) for w in weights) > total:
            high = middle
        else:
            low = middle
    return [max(WEIGHT_MIN, low * w) for w in weights]


class Reference:
    """Event by event, in dictionaries."""

    def __init__(self, config: ModelConfig, members: int, votes: list[bool]) -> None:
        self.config, self.members, self.votes = config, members, votes
        self.weights: dict[int, list[float]] = {}
        self.platt = [Platt() for _ in range(members)]

    def run(self, events: dict[str, Any]) -> list[dict[str, Any]]:
        out = []
        for kind, p, up, volatility, symbol in zip(*(events[k].tolist() for k in ("kinds", "p", "up", "volatility", "symbols")), strict=True):
            if kind == FORGET:
                self.platt = [self.platt[i] if math.isnan(p[i]) else Platt() for i in range(self.members)]
                continue
            spoke = {i: p[i] for i in range(self.members) if 0 <= p[i] <= 1}
            said = {i: self.platt[i](each) if self.config.calibrate else each for i, each in spoke.items()}
            weights = self.weights.setdefault(symbol, [1 / max(1, sum(self.votes))] * self.members)
            if kind == LEARN:
                self.reweigh(weights, {i: q for i, q in said.items() if self.votes[i]}, up)
                for i, each in spoke.items():
                    self.platt[i].learn(each, up)
            else:
                out.append(self.vote(weights, said, volatility))
        return out

    def reweigh(self, weights: list[float], said: dict[int, float], up: int) -> None:
        if not said:
            return
        total = sum(weights[i] for i in said)
        right = {i: q if up else 1 - q for i, q in said.items()}
        raw = [weights[i] * math.exp(-self.config.learning_rate * min(1.0, -math.log(r) if r > 0 else math.inf)) for i, r in right.items()]
        for i, w in zip(said, kept_above(raw, total), strict=True):
            weights[i] = w

    def vote(self, weights: list[float], said: dict[int, float], volatility: float) -> dict[str, Any]:
        c = self.config
        here = {i: q for i, q in said.items() if self.votes[i]}
        total = sum(weights[i] for i in here)
        p_up = sum(weights[i] * q for i, q in here.items()) / total if here else math.nan
        ups, downs = sum(q > 0.5 for q in here.values()), sum(q < 0.5 for q in here.values())
        confidence = max(p_up, 1 - p_up) if here else 0.0
        winner = (ups > downs) - (ups < downs)
        if c.forecast != "KEEP" or not any(self.votes):
            verdict = "disabled"
        elif not here or len(here) / sum(self.votes) < c.present_min:
            verdict = "too_few"
        elif winner == 0 or max(ups, downs) / len(here) < c.consensus or winner != (p_up > 0.5) - (p_up < 0.5):
            verdict = "no_consensus"
        elif (math.isnan(volatility) or volatility > c.volatility_high) and confidence <= c.confidence_high:
            verdict = "volatile"
        else:
            verdict = "agreed"
        return {
            "verdict": VERDICTS.index(verdict), "direction": winner if verdict == "agreed" else 0, "p_up": p_up, "confidence": confidence,
            "present": len(here), "agreeing": max(ups, downs),
            "member_p": [said.get(i, math.nan) for i in range(MEMBERS_MAX)],
            "member_weight": [weights[i] / total if i in here else 0.0 for i in range(MEMBERS_MAX)],
        }
