"""Boosting: matrices in, the bytes of a trained model out, with the settings under which the same input gives the same bytes.

LightGBM's histograms are summed column by column (`deterministic`, `force_col_wise`), XGBoost's by `hist`; the seed and the number of
threads are part of the recipe. Parameters are the library's own, by its own names, from a list with bounds, since both pass over a name
that they do not know; `rounds` is the most trees.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.learners.boosted import xgboost_module
from schemas.errors import PenstockError, UserError, unknown

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
MODELS = ("lightgbm", "xgboost")
TASKS = ("classify", "regress")
CLASS_WEIGHTS = ("none", "balanced")
SEED_MAX = 2**31 - 1


@dataclass(frozen=True)
class Parameter:
    """A number with its default and its bounds, both allowed. search: the range that a search looks in, none where it does not."""

    default: float
    low: float
    high: float
    whole: bool = False
    search: tuple[float, float] | None = None
    log: bool = False


_ROUNDS = Parameter(500, 1, 20_000, whole=True)
_RATE = Parameter(0.05, 1e-4, 1.0, search=(0.01, 0.2), log=True)
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "lightgbm": {
        "rounds": _ROUNDS, "learning_rate": _RATE,
        "num_leaves": Parameter(31, 2, 4096, whole=True, search=(7, 127), log=True),
        "max_depth": Parameter(-1, -1, 64, whole=True),
        "min_data_in_leaf": Parameter(100, 1, 10**7, whole=True, search=(20, 2000), log=True),
        "min_sum_hessian_in_leaf": Parameter(1e-3, 0, 1e6),
        "min_gain_to_split": Parameter(0.0, 0, 1e6),
        "feature_fraction": Parameter(0.8, 0.01, 1.0, search=(0.3, 1.0)),
        "feature_fraction_bynode": Parameter(1.0, 0.01, 1.0),
        "bagging_fraction": Parameter(0.8, 0.01, 1.0, search=(0.4, 1.0)),
        "bagging_freq": Parameter(1, 0, 1000, whole=True),
        "lambda_l1": Parameter(0.0, 0, 1e6),
        "lambda_l2": Parameter(1.0, 0, 1e6, search=(1e-2, 100.0), log=True),
        "path_smooth": Parameter(0.0, 0, 1e6),
        "max_bin": Parameter(255, 2, 65_535, whole=True),
    },
    "xgboost": {
        "rounds": _ROUNDS, "learning_rate": _RATE,
        "max_leaves": Parameter(31, 2, 4096, whole=True, search=(7, 127), log=True),
        "max_depth": Parameter(0, 0, 64, whole=True),
        "min_child_weight": Parameter(25.0, 0, 1e7, search=(5.0, 500.0), log=True),
        "gamma": Parameter(0.0, 0, 1e6),
        "subsample": Parameter(0.8, 0.01, 1.0, search=(0.4, 1.0)),
        "colsample_bytree": Parameter(0.8, 0.01, 1.0, search=(0.3, 1.0)),
        "colsample_bynode": Parameter(1.0, 0.01, 1.0),
        "reg_alpha": Parameter(0.0, 0, 1e6),
        "reg_lambda": Parameter(1.0, 0, 1e6, search=(1e-2, 100.0), log=True),
        "max_bin": Parameter(256, 2, 65_535, whole=True),
    },
}


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of the same rows. early_stopping: rounds without improvement on the validation rows, 0: none.
    Checked and filled with defaults when it is made; UserError names what is wrong."""

    model: str = "lightgbm"
    task: str = "classify"
    parameters: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1
    class_weight: str = "none"
    early_stopping: int = 50
    threads: int = 1

    def __post_init__(self) -> None:
        for what, given, known in (("model", self.model, MODELS), ("task", self.task, TASKS),
                                   ("class weight", self.class_weight, CLASS_WEIGHTS)):
            if given not in known:
                raise unknown(what, given, known)
        if self.class_weight != "none" and self.task != "classify":
            raise UserError(f"class weight {self.class_weight} is for classes; the task is {self.task}: give none")
        if not 0 <= self.seed <= SEED_MAX:
            raise UserError(f"seed {self.seed} is not from 0 to {SEED_MAX}")
        if self.early_stopping < 0 or not 1 <= self.threads <= 1024:
            raise UserError(f"early stopping {self.early_stopping} is from 0 on, threads {self.threads} from 1 to 1024")
        allowed = PARAMETERS[self.model]
        for name, value in self.parameters.items():
            if name not in allowed:
                raise unknown(f"parameter of {self.model}", name, allowed)
            p = allowed[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not p.low <= value <= p.high or (p.whole and value != int(value)):
                raise UserError(f"{self.model} {name}: {value} is not {'a whole number' if p.whole else 'a number'} from {p.low:g} to "
                                f"{p.high:g}")
        filled = {name: self.parameters.get(name, p.default) for name, p in allowed.items()}
        whole = {name: int(v) if allowed[name].whole else float(v) for name, v in filled.items()}
        object.__setattr__(self, "parameters", whole)


@dataclass(frozen=True)
class Fitted:
    """A trained model's bytes, how many trees it kept, and its log loss or mean squared error on the validation rows, NaN without."""

    payload: bytes
    rounds: int
    loss: float


def row_weights(recipe: Recipe, trained: Floats, target: Floats) -> Floats | None:
    """Weights of rows by their class. Balanced: each class weighs the same in all the trained rows, n / (2 n_class) a row (King and Zeng
    2001); a probability is then one of balanced classes, so that 0.5 stays the border whatever the share of ups."""
    if recipe.class_weight == "none":
        return None
    ups = float(trained.sum())
    share = np.array([len(trained) / (2 * (len(trained) - ups)), len(trained) / (2 * ups)])
    return np.asarray(share[target.astype(np.int64)])


def prepare(recipe: Recipe, x: Floats, target: Floats, weight: Floats | None = None, reference: Any = None) -> Any:
    """Rows in the library's own binned form. reference: what the training rows were made into, whose bins these take."""
    if recipe.model == "lightgbm":
        import lightgbm
        return lightgbm.Dataset(x, target, weight=weight, reference=reference, params=_dataset_parameters(recipe)).construct()
    bins = int(recipe.parameters["max_bin"])
    return xgboost_module().QuantileDMatrix(x, target, weight=weight, max_bin=bins, nthread=recipe.threads, ref=reference)


def boost(recipe: Recipe, train: Any, valid: Any = None, progress: Progress | None = None) -> Fitted:
    """Train on what `prepare` made; `valid` decides when to stop. PenstockError with the library's words where it fails."""
    rounds, stopping = int(recipe.parameters["rounds"]), recipe.early_stopping if valid is not None else 0
    return (_lightgbm if recipe.model == "lightgbm" else _xgboost)(recipe, train, valid, rounds, stopping, progress or _silent)


def _silent(done: int, total: int) -> None:
    return None


def _dataset_parameters(recipe: Recipe) -> dict[str, Any]:
    return {"max_bin": recipe.parameters["max_bin"], "feature_pre_filter": False, "seed": recipe.seed, "deterministic": True,
            "force_col_wise": True, "num_threads": recipe.threads, "verbosity": -1}


def _lightgbm(recipe: Recipe, train: Any, valid: Any, rounds: int, stopping: int, progress: Progress) -> Fitted:
    import lightgbm
    settings = {
        **{name: value for name, value in recipe.parameters.items() if name != "rounds"}, **_dataset_parameters(recipe),
        "objective": "binary" if recipe.task == "classify" else "regression",
        "metric": "binary_logloss" if recipe.task == "classify" else "l2",
    }
    callbacks: list[Any] = [lambda env: progress(env.iteration + 1, rounds)]
    if stopping:
        callbacks.append(lightgbm.early_stopping(stopping, verbose=False))
    try:
        booster = lightgbm.train(settings, train, rounds, valid_sets=[valid] if valid is not None else None, callbacks=callbacks)
    except lightgbm.basic.LightGBMError as error:
        raise PenstockError(f"LightGBM: {error}") from None
    kept = booster.best_iteration if stopping and booster.best_iteration > 0 else booster.current_iteration()
    loss = float(next(iter(booster.best_score["valid_0"].values()))) if stopping else math.nan
    return Fitted(booster.model_to_string(num_iteration=kept).encode("ascii"), kept, loss)


def _xgboost(recipe: Recipe, train: Any, valid: Any, rounds: int, stopping: int, progress: Progress) -> Fitted:
    library = xgboost_module()
    base: Any = library.callback.TrainingCallback

    class Told(base):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress(epoch + 1, rounds)
            return False

    settings = {
        **{name: value for name, value in recipe.parameters.items() if name != "rounds"}, "tree_method": "hist", "grow_policy": "lossguide",
        "seed": recipe.seed, "nthread": recipe.threads, "verbosity": 0,
        "objective": "binary:logistic" if recipe.task == "classify" else "reg:squarederror",
        "eval_metric": "logloss" if recipe.task == "classify" else "rmse",
    }
    try:
        booster = library.train(settings, train, rounds, evals=[(valid, "valid")] if valid is not None else [], verbose_eval=False,
                                early_stopping_rounds=stopping or None, callbacks=[Told()])
    except library.core.XGBoostError as error:
        raise PenstockError(f"XGBoost: {str(error).splitlines()[0]}") from None
    kept = booster.best_iteration + 1 if stopping else booster.num_boosted_rounds()
    cut = booster[:kept]
    cut.set_attr(**dict.fromkeys(cut.attributes()))  # the score that it stopped at is not the model
    loss = float(booster.best_score) if stopping else math.nan
    return Fitted(bytes(cut.save_raw("json")), kept, loss if recipe.task == "classify" else loss**2)
