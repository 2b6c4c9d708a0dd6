"""Data sets for the tests of training: rows from a seed with a signal of known strength, and tapes of the simulator's kind."""

from typing import Any

import numpy as np

from research.learning.dataset import Dataset
from schemas.config_models import LabelConfig

MINUTE = 60 * 10**9


def made(rows: int = 1500, features: int = 6, strength: float = 0.5, seed: int = 1, symbols: int = 2, horizon_bars: int = 5) -> Dataset:
    """Rows of several symbols a minute apart; up follows the first two features by `strength`, the rest is noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features))
    value = 1e-3 * (strength * (x[:, 0] + x[:, 1] * (x[:, 2] > 0)) + rng.normal(size=rows))
    bar = np.arange(rows, dtype=np.int64) // symbols
    made_ns = 1_600_000_000 * 10**9 + bar * MINUTE
    return Dataset(
        tuple(f"f{k}" for k in range(features)), MINUTE, LabelConfig(horizon_ns=horizon_bars * MINUTE), tuple(f"S{k}" for k in range(symbols)),
        x, value, (value > 0).astype(np.int64), made_ns, made_ns + horizon_bars * MINUTE, np.arange(rows, dtype=np.int64) % symbols,
        np.full(rows, 100.0), value.copy(), {"bars": rows, "missing": 0, "unlabelled": 0, "before_limit": 0}, {"paths": ["made"]})


QUICK: dict[str, Any] = {"rounds": 30, "learning_rate": 0.1}
SMALL_LEAVES = {"lightgbm": {**QUICK, "min_data_in_leaf": 20}, "xgboost": {**QUICK, "min_child_weight": 5}}
