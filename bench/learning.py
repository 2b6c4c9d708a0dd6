"""What learning costs inside a replay, over the bare libraries on the same rows: River one row at a time, LightGBM in the same batches."""

import gc
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench._harness import ROOT, Absent, Result, Timed
from operators.assembly import Plan, account_chain, market_chain, plan
from operators.learners.distribution import histogram
from schemas.artefact import Artefact, Card
from schemas.config import parse_config
from schemas.config_models import LabelConfig
from schemas.frame import Frame
from sources.tape import open_tape

ROWS = 30_000
FEATURES = ["rsi(14)", "ret(1)", "ret(5)", "ret(15)", "zscore(20)", "atr_ratio(20,100)", "volume_ratio(20)", "bollinger(20,2).percent_b", "macd(12,26,9).histogram",
            "realized_vol(30)"]
LABEL = {"kind": "forward_return", "horizon": "15m"}
PIPELINES: dict[str, list[Any]] = {"logistic": ["StandardScaler", "LogisticRegression"], "adaptive_tree": ["HoeffdingAdaptiveTreeClassifier"]}
BATCH_ROWS = 4096
SYMBOL = "BTCUSDT"
TREES, LEAVES = 200, 31


def measure(runs: int, rows: int) -> Result | Absent:
    """One core. ratio: processor seconds of the bare library over those of the whole replay: quality, bars, features, labels, learning,
    scores, the desk without strategies."""
    folder = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data")) / "bars" / "spot_1m_2021-04_05"
    if not folder.is_dir():
        return Absent("learning", f"no recorded bars in {folder}")
    frames = _frames(sorted(folder.glob("BTC*.parquet"))[0], rows)
    more: dict[str, Any] = {}
    ours = Timed()
    values, labels = _matrix(frames)
    for name, pipeline in PIPELINES.items():
        made = plan(parse_config({"models": {"m": {"kind": "river", "timeframe": "1m", "features": FEATURES, "label": LABEL, "warmup": 0,
                                                   "pipeline": pipeline}}, "strategies": []}, "bench"), ())
        more[name] = _compare(made, frames, lambda p=pipeline: _river(p, values, labels), runs, rows, ours if name == "logistic" else None)  # type: ignore[misc]
    more["lightgbm"] = _lightgbm(frames, values, labels, runs, rows)
    return Result("learning", rows, ours, f"a whole replay of minute bars with {len(FEATURES)} features and a scaler with a logistic "
                  "regression, which predicts every bar and learns its label 15 bars later", {}, more)


def _frames(path: Path, rows: int) -> list[Frame]:
    out, seen = [], 0
    for frame in open_tape([str(path)]).frames(BATCH_ROWS):
        out.append(frame)
        seen += sum(len(each) for each in frame.tables.values())
        if seen >= rows:
            break
    return out


def _matrix(frames: list[Frame]) -> tuple[Any, list[tuple[int, int, bool]]]:
    """The features of every bar, and its labels as (row that releases it, row that it is of, up): what the bare libraries are given."""
    from operators.learners.labels import Labels
    from schemas.config_models import parse_label
    chain = market_chain(plan(parse_config({"features": {"1m": FEATURES}, "strategies": []}, "bench"), ()))
    maker = Labels(parse_label(LABEL, "bench"), 60 * 10**9)
    values, labels, at = [], [], {}
    n = 0
    for frame in frames:
        features = chain.step(frame).features[0]
        at.update({int(seq): n + k for k, seq in enumerate(features.bars["seq"])})
        found, rows = maker.step(features.bars, 1)
        labels += [(n + int(row), at[int(label["made_seq"])], bool(label["up"])) for row, label in zip(rows, found, strict=True)]
        values.append(features.values)
        n += len(features.bars)
    return np.concatenate(values), labels


def _river(pipeline: list[Any], values: Any, labels: list[tuple[int, int, bool]]) -> None:
    """The loop that one would write: predict each row, learn it when its label is due."""
    from operators.learners.online import Online
    from operators.learners.river_build import build
    from schemas.config_models import parse_models
    config = parse_models({"m": {"kind": "river", "features": FEATURES, "label": LABEL, "pipeline": pipeline}}, "bench")[0]
    model = build(config, Online(config, SYMBOL).seed)  # the same seed grows the same tree
    predict, learn = model.predict_proba_one, model.learn_one
    waiting: list[dict[str, float] | None] = []
    label = 0
    whole = np.isfinite(values).all(axis=1)
    for i, row in enumerate(values.tolist()):
        while label < len(labels) and labels[label][0] == i:
            x = waiting[labels[label][1]]
            if x is not None:
                learn(x, labels[label][2])
            label += 1
        if not whole[i]:
            waiting.append(None)
            continue
        x = dict(zip(FEATURES, row, strict=True))
        predict(x)
        waiting.append(x)


def _compare(made: Plan, frames: list[Frame], bare: Any, runs: int, rows: int, ours: Timed | None) -> dict[str, Any]:
    """Turn about, so that what else the machine does meets both."""
    seconds: dict[str, list[float]] = {"bare": [], "replay": []}
    for run in range(runs + 1):
        market, account = market_chain(made), account_chain(made)  # a model is loaded and checked once in a run, however long that is
        for kind, work in (("bare", bare), ("replay", lambda m=market, a=account: [a.step(m.step(frame)) for frame in frames])):  # type: ignore[misc]
            gc.collect()
            began, clock = time.process_time(), time.perf_counter()
            work()
            if run:
                seconds[kind].append(time.process_time() - began)
                if kind == "replay" and ours is not None:
                    ours.append(time.perf_counter() - clock)
                    ours.cpu_seconds.append(seconds[kind][-1])
    return {"bare_rows_per_cpu_second": round(rows / statistics.median(seconds["bare"])),
            "replay_rows_per_cpu_second": round(rows / statistics.median(seconds["replay"])),
            "ratio": round(statistics.median(b / o for b, o in zip(seconds["bare"], seconds["replay"], strict=True)), 3)}


class One:
    """A store of one artefact."""

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact

    def get(self, model_id: int, version: int) -> Artefact:
        return self.artefact


def _lightgbm(frames: list[Frame], values: Any, labels: list[tuple[int, int, bool]], runs: int, rows: int) -> dict[str, Any]:
    import lightgbm
    rows_of = np.array([made for _, made, _ in labels])
    up = np.array([float(u) for _, _, u in labels])
    fit = np.isfinite(values[rows_of]).all(axis=1)
    booster = lightgbm.train({"objective": "binary", "num_leaves": LEAVES, "verbose": -1, "num_threads": 1, "deterministic": True, "seed": 1},
                             lightgbm.Dataset(values[rows_of][fit], up[fit]), num_boost_round=TREES)
    bins = [histogram(values[:, k]) for k in range(values.shape[1])]
    card = Card("m", 1, "lightgbm", "classify", 60 * 10**9, tuple(FEATURES), LabelConfig(), tuple(e for e, _ in bins), tuple(s for _, s in bins))
    config = parse_config({"models": {"m": {"kind": "registered", "name": "m"}}, "strategies": []}, "bench")
    model = replace(config.models[0], initial=1, interval_ns=card.interval_ns, features=card.features, label=card.label)
    made = plan(replace(config, models=(model,)), (), One(Artefact(card, booster.model_to_string().encode())))
    batches = [np.ascontiguousarray(part) for part in np.array_split(values, max(1, len(values) // BATCH_ROWS))]

    def bare() -> None:
        for part in batches:
            booster.predict(part, num_threads=1)

    return {"trees": TREES, "leaves": LEAVES, **_compare(made, frames, bare, runs, rows, None)}
