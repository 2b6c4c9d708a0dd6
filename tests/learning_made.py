"""Synthetic data sets with a known weak signal, and a manager over them; run as a module, a child that kills itself at a step."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from research.learning.dataset import Dataset
from research.learning.manager import Manager
from research.learning.material import Material
from research.learning.registry import Registry
from research.learning.training import train
from schemas.artefact import Card
from schemas.config_learn import LearnConfig
from schemas.config_models import LabelConfig

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
START = 1_600_000_000 * 10**9 // MINUTE * MINUTE
HORIZON = 5
NAME = "trees"
LEARN = LearnConfig(age="0", accuracy_drop=0.0, drift_events=0, regime_shift=0.0, pause="0", watch_rows_min=100, regime_rows_min=100,
                    governance={"cost_bps": 1.0, "period": "1h", "rows_min": 300, "calibration_error_max": 0.15, "drawdown_max": 0.9,
                                "var_99_max": 0.9, "es_99_max": 0.9, "accuracy_min": 0.5})


def made(bars: int = 1500, seed: int = 1, skill: float = 0.4, flip_at: int | None = None, start: int = START, symbols: int = 2) -> Dataset:
    """Log returns of 0.1 % a bar, of which the share `skill` follows the first of four features; from bar `flip_at` on, against it."""
    rng = np.random.default_rng(seed)
    parts = []
    for code in range(symbols):
        x = rng.normal(size=(bars + HORIZON, 4))
        for k in range(1, len(x)):
            x[k, 0] = 0.9 * x[k - 1, 0] + np.sqrt(1 - 0.81) * x[k, 0]
        sign = np.where(np.arange(len(x)) >= (len(x) if flip_at is None else flip_at), -1.0, 1.0)
        r = np.zeros(len(x))
        r[1:] = 0.001 * (skill * sign[:-1] * x[:-1, 0] + np.sqrt(1 - skill**2) * rng.normal(size=len(x) - 1))
        log_price = np.cumsum(r)
        value = log_price[HORIZON:] - log_price[:-HORIZON]
        ts = start + np.arange(bars) * MINUTE
        parts.append((x[:bars], value[:bars], ts, np.full(bars, code), np.exp(log_price[:bars]) * 100))
    x, value, ts, code, price = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.lexsort((code, ts))
    x, value, ts, code, price = x[order], value[order], ts[order], code[order].astype(np.int64), price[order]
    return Dataset(("a", "b", "c", "d"), MINUTE, LabelConfig(horizon_ns=HORIZON * MINUTE), ("AAA", "BBB")[:symbols], x, value,
                   (value > 0).astype(np.int64), ts, ts + HORIZON * MINUTE, code, price, value.copy(), {"bars": len(x)}, {"made": seed})


def shuffled(data: Dataset, seed: int) -> Dataset:
    """The same rows with labels of others."""
    at = np.random.default_rng(seed).permutation(len(data))
    return replace(data, value=data.value[at], up=data.up[at], return_=data.return_[at])


def until(data: Dataset, bars: int) -> Dataset:
    """What is known when so many bars have passed."""
    return data.take(data.ts_end_ns <= data.ts_made_ns[0] + bars * MINUTE)


@dataclass
class World:
    """A registry with one version, trained elsewhere, and a manager of it; `data` may be replaced as time goes by."""

    folder: Path
    data: Dataset
    learn: LearnConfig = LEARN
    clock_ns: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    step: Callable[[str], None] = lambda label: None
    registry_step: Callable[[str], None] = lambda label: None
    feed: Any = None

    def now(self) -> int:
        """A wall clock that follows the data, and never stands still."""
        self.clock_ns = max(self.clock_ns + 1, int(self.data.ts_end_ns.max()))
        return self.clock_ns

    @property
    def registry(self) -> Registry:
        return Registry(self.folder, clock=self.now, step=self.registry_step)

    def provide(self, card: Card) -> Material:
        assert card.features == self.data.features
        return Material(self.data, None)

    def manager(self, **rest: Any) -> Manager:
        return Manager(self.registry, NAME, self.learn, self.provide, self.now, feed=self.feed, tell=self.events.append, step=self.step, **rest)

    def first(self, rows: int = 600, task: str = "classify", early_stopping: int = 0) -> int:
        """Register a version, as `penstock model train` does."""
        return self.registry.register(train(self.data.take(slice(0, rows)), parameters={"rounds": 40, "num_leaves": 7}, task=task, name=NAME,
                                            early_stopping=early_stopping, valid_share=0.2 if early_stopping else 0.0), "by-hand")


def main(folder: str, step: str) -> None:
    """A second cycle in a market that turned, killed at a step of the manager or of the registry."""
    def die(label: str) -> None:
        if label == step:
            os.kill(os.getpid(), signal.SIGKILL)

    world = turned(Path(folder))
    world.step = world.registry_step = die
    print(world.manager().once("by hand"))


def turned(folder: Path) -> World:
    """The market after the signal turned round: what learned before is wrong now, and no floor stops it before the cycle does."""
    data = made(4500, flip_at=1500)
    return World(folder, data.take(data.ts_made_ns >= START + 1500 * MINUTE), replace(LEARN, accuracy_floor=0.0), clock_ns=START + 5 * DAY)


if __name__ == "__main__":
    main(*sys.argv[1:])
