"""How much of a known weak signal the ensemble finds: its information coefficient beside that of who knows the market's law."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench._harness import Result
from bench._inputs import MINUTE_NS, START_NS, minute_bars
from bench.learning import One
from operators.assembly import account_chain, market_chain, plan
from operators.learners.distribution import histogram
from schemas.artefact import Artefact, Card
from schemas.config import parse_config
from schemas.frame import Frame
from schemas.tables import RECORDED
from schemas.tables_models import SCORES

ROWS = 120_000
SYMBOLS = tuple(f"S{k}/USDT" for k in range(6))
FOLLOWS = (0.05, 0.02, 0.0)
"""Correlation of one minute's return with the next, of each market; in the last there is nothing to be found."""
VOLATILITY = 5e-4
FEATURES = ["log_ret(1)", "log_ret(5)", "rsi(14)", "zscore(20)", "realized_vol(30)"]
ONLINE = {"kind": "river", "features": FEATURES, "scope": "pooled", "label": {"kind": "forward_return", "horizon": "1m"}}
MODELS = {
    "logit": {**ONLINE, "pipeline": ["StandardScaler", {"LogisticRegression": {"l2": 0.001}}]},
    "line": {**ONLINE, "pipeline": ["StandardScaler", {"PAClassifier": {"C": 0.0001, "mode": 1}}]},
    "tree": {**ONLINE, "pipeline": ["HoeffdingAdaptiveTreeClassifier"]},
    "trees": {"kind": "registered", "name": "trees"},
    "vote": {"kind": "ensemble", "members": ["logit", "line", "tree", "trees"]},
}
FRAME_MINUTES = 500


def measure(runs: int, rows: int) -> Result:
    """One tape for each market: the boosted trees learn from its first third, everything is judged on the rest. Not a measure of speed."""
    took: list[float] = []
    found = {f"{follows:g}": _market(rows, follows, took) for follows in FOLLOWS}
    return Result("signal", rows, took, "every prediction of the ensemble and its members whose label was released, in the last two thirds of the tape",
                  {}, {"information_coefficients": found})


def _market(rows: int, follows: float, took: list[float]) -> dict[str, float]:
    began = time.perf_counter()
    frames = list(_frames(rows, follows))
    third = len(frames) // 3
    card, payload = _trees(frames[:third])
    document: dict[str, Any] = {"models": MODELS, "strategies": []}
    config = parse_config(document, "bench")
    models = tuple(replace(m, initial=1, interval_ns=card.interval_ns, features=card.features, label=card.label) if m.kind == "registered" else m
                   for m in config.models)
    made = plan(replace(config, models=models), (), One(Artefact(card, payload)))
    market, account = market_chain(made), account_chain(made)
    scores = np.concatenate([account.step(market.step(frame)).rows(SCORES) for frame in frames])
    took.append(time.perf_counter() - began)
    scores = scores[scores["ts_open_ns"] >= START_NS + third * FRAME_MINUTES * MINUTE_NS]
    out = {name: _ic(scores[scores["model"] == code]) for code, name in enumerate(made.names)}
    known = np.concatenate([f.rows(RECORDED) for f in frames[third:]])
    last = np.log(known["close"] / known["open"]).reshape(-1, len(SYMBOLS))
    out["known"] = round(float(spearmanr(follows * last[:-1].ravel(), last[1:].ravel()).statistic), 4) if follows else 0.0
    n = int((scores["model"] == made.names.index("vote")).sum())
    return {**out, "rows": n, "chance": round(1.96 / n**0.5, 4)}


def _ic(scores: Any) -> float:
    centre = np.where(np.isfinite(scores["score"]), scores["score"], 0.0)
    return round(float(spearmanr(centre, scores["return_"]).statistic), 4)


def _frames(rows: int, follows: float) -> Iterator[Frame]:
    """Minute bars whose log returns are an autoregression of order one, without a spread: an open is the close before."""
    random = np.random.default_rng(7)
    n = len(SYMBOLS)
    price, last = np.full(n, 100.0), np.zeros(n)
    for first in range(0, rows // n, FRAME_MINUTES):
        closes = np.empty((FRAME_MINUTES + 1, n))
        closes[0] = price
        for k in range(FRAME_MINUTES):
            last = follows * last + VOLATILITY * np.sqrt(1 - follows**2) * random.normal(size=n)
            closes[k + 1] = closes[k] * np.exp(last)
        price = closes[-1]
        yield minute_bars(closes, first, SYMBOLS, random)


def _trees(frames: list[Frame]) -> tuple[Card, bytes]:
    """Boosted trees of what is known by then."""
    import lightgbm
    config = parse_config({"models": {"logit": MODELS["logit"]}, "strategies": []}, "bench")
    chain = market_chain(plan(config, ()))
    sets = [chain.step(frame).features[0] for frame in frames]
    values, close = np.concatenate([f.values for f in sets]), np.concatenate([f.bars["close"] for f in sets])
    x, up = values[: -len(SYMBOLS)], close[len(SYMBOLS):] > close[: -len(SYMBOLS)]
    keep = np.isfinite(x).all(axis=1)
    booster = lightgbm.train({"objective": "binary", "num_leaves": 4, "learning_rate": 0.05, "min_data_in_leaf": 500, "verbose": -1, "num_threads": 1,
                              "deterministic": True, "seed": 1}, lightgbm.Dataset(x[keep], up[keep].astype(float)), num_boost_round=60)
    bins = [histogram(x[keep][:, k]) for k in range(x.shape[1])]
    card = Card("trees", 1, "lightgbm", "classify", MINUTE_NS, tuple(FEATURES), config.models[0].label, tuple(e for e, _ in bins), tuple(s for _, s in bins))
    return card, booster.model_to_string().encode()
