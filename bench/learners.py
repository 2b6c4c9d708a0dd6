"""What a River model costs inside our learner, over the bare River loop on the same rows: scaler and logistic regression, adaptive tree."""

import gc
import statistics
import time
from typing import Any

import numpy as np
from river import linear_model, preprocessing, tree

from bench._harness import Result, Timed
from operators.learners.online import Online
from schemas.config_models import ModelConfig, parse_models

ROWS = 20_000
FEATURES = 10
PIPELINES: dict[str, list[Any]] = {
    "logistic": ["StandardScaler", "LogisticRegression"],
    "adaptive_tree": [{"HoeffdingAdaptiveTreeClassifier": {"seed": 1}}],
}


KINDS = ("bare", "online", "with_cusum")
CHUNK = 500


def measure(runs: int, rows: int) -> Result:
    """One core. Bare and ours take turns every few rows, so that what else the machine does meets both; fresh models each run."""
    xs, labels = made(rows)
    more: dict[str, Any] = {}
    ours = Timed()
    for name in PIPELINES:
        used: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for run in range(runs + 1):
            seconds, cpu = _turns(name, xs, labels)
            if run:
                for kind in KINDS:
                    used[kind].append(cpu[kind])
                if name == "logistic":
                    ours.append(seconds["online"])
                    ours.cpu_seconds.append(cpu["online"])
        more[name] = {f"{kind}_rows_per_cpu_second": round(rows / statistics.median(used[kind])) for kind in KINDS}
        for kind in KINDS[1:]:
            more[name][f"ratio_{kind}"] = round(statistics.median(b / o for b, o in zip(used["bare"], used[kind], strict=True)), 3)
    return Result(
        "learners", rows, ours,
        f"predict and learn of {FEATURES} features a row, scaler and logistic regression in our learner; ratio: rows per second of "
        "processor time over those of a loop of River's predict_proba_one and learn_one, median of the runs; with_cusum: watched for drift",
        {}, more,
    )


def _turns(name: str, xs: list[dict[str, float]], labels: list[bool]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by the clock and of the processor for each kind, chunk by chunk in turns."""
    models = {kind: _model(name, kind) for kind in KINDS}
    seconds, cpu = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    gc.collect()
    for number, start in enumerate(range(0, len(xs), CHUNK)):
        for kind in (*KINDS[number % 3:], *KINDS[:number % 3]):
            work = _bare if kind == "bare" else _online
            started, used = time.perf_counter(), time.process_time()
            work(models[kind], xs[start:start + CHUNK], labels[start:start + CHUNK])
            cpu[kind] += time.process_time() - used
            seconds[kind] += time.perf_counter() - started
    return seconds, cpu


def made(rows: int) -> tuple[list[dict[str, float]], list[bool]]:
    """Rows whose label follows the first feature, weakly."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=(rows, FEATURES))
    labels = (0.3 * values[:, 0] + rng.normal(size=rows) > 0).tolist()
    names = [f"f{k}" for k in range(FEATURES)]
    return [dict(zip(names, row, strict=True)) for row in values.tolist()], labels


def _model(name: str, kind: str) -> Any:
    if kind == "bare":
        if name == "logistic":
            return preprocessing.StandardScaler() | linear_model.LogisticRegression()
        return tree.HoeffdingAdaptiveTreeClassifier(seed=1, max_depth=16)
    return Online(_config(name, "CUSUM" if kind == "with_cusum" else "none"), "bench")


def _config(name: str, detector: str) -> ModelConfig:
    document = {"kind": "river", "features": [f"f{k}" for k in range(FEATURES)], "pipeline": PIPELINES[name], "drift": {"detector": detector}}
    return parse_models({name: document}, "models")[0]


def _bare(model: Any, xs: list[dict[str, float]], labels: list[bool]) -> None:
    predict, learn = model.predict_proba_one, model.learn_one
    for x, y in zip(xs, labels, strict=True):
        predict(x)
        learn(x, y)


def _online(model: Online, xs: list[dict[str, float]], labels: list[bool]) -> None:
    predict, learn = model.predict, model.learn
    for x, y in zip(xs, labels, strict=True):
        learn(x, 1.0 if y else -1.0, 1 if y else 0, predict(x))
