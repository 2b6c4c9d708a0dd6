"""Which features a model uses: gain and number of splits from its trees, and mean absolute SHAP values on rows.

SHAP values are the exact ones of tree ensembles (Lundberg et al., "From local explanations to global understanding with explainable AI
for trees", Nature Machine Intelligence 2, 2020), computed by LightGBM and XGBoost themselves: no further package is needed. They are in
units of the raw score: log odds for a classifier.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.learners.boosted import xgboost_module
from schemas.artefact import Artefact

Floats = npt.NDArray[np.float64]
SHAP_ROWS_MAX = 5_000


def tree_importance(model: str, payload: bytes, features: Sequence[str]) -> list[dict[str, Any]]:
    """Per feature its share of all gain and its number of splits, by gain; `payload` as an artefact has it."""
    if model == "lightgbm":
        import lightgbm
        booster = lightgbm.Booster(model_str=payload.decode("ascii"))
        gain, splits = booster.feature_importance("gain"), booster.feature_importance("split")
    else:
        found = xgboost_module().Booster({"verbosity": 0}, model_file=bytearray(payload))
        gains, counts = found.get_score(importance_type="total_gain"), found.get_score(importance_type="weight")
        gain = np.array([gains.get(f"f{k}", 0.0) for k in range(len(features))])
        splits = np.array([counts.get(f"f{k}", 0) for k in range(len(features))])
    total = float(gain.sum()) or 1.0
    rows = [{"feature": name, "gain": float(g) / total, "splits": int(s)} for name, g, s in zip(features, gain, splits, strict=True)]
    return sorted(rows, key=lambda row: (-row["gain"], -row["splits"], row["feature"]))


def contributions(artefact: Artefact, rows: Floats) -> Floats:
    """SHAP values, float64 (rows, features + 1): the last column is the raw score's mean, and a row sums to its raw score."""
    if artefact.card.model == "lightgbm":
        import lightgbm
        booster = lightgbm.Booster(model_str=artefact.payload.decode("ascii"))
        return np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1), np.float64)
    library = xgboost_module()
    found = library.Booster({"nthread": 1, "verbosity": 0}, model_file=bytearray(artefact.payload))
    return np.asarray(found.predict(library.DMatrix(rows, nthread=1), pred_contribs=True), np.float64)


def shap_importance(artefact: Artefact, rows: Floats, rows_max: int = SHAP_ROWS_MAX) -> list[dict[str, Any]]:
    """Per feature the mean |SHAP value| over rows, evenly thinned to `rows_max`, and its sign: how the score moves with the feature
    (rank correlation of value and contribution)."""
    from research.learning.evaluation import rank_correlation
    chosen = rows if len(rows) <= rows_max else rows[np.linspace(0, len(rows) - 1, rows_max).astype(np.int64)]
    values = contributions(artefact, chosen)[:, :-1]
    size = np.abs(values).mean(axis=0)
    out = []
    for k, name in enumerate(artefact.card.features):
        direction = rank_correlation(chosen[:, k], values[:, k])
        out.append({"feature": name, "shap": float(size[k]), "direction": None if np.isnan(direction) else float(direction)})
    return sorted(out, key=lambda row: (-row["shap"], row["feature"]))
