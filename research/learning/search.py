"""A search for parameters with Optuna: trials on purged folds, of which the hopeless are ended after a fold.

With one worker the same data and seed give the same trials. Several machines may share a study through its storage; each goes on until
the study has as many finished trials as were asked for, so that a search that was killed is gone on with. It never sees the validation
rows of the training that follows. A study belongs to one data set and recipe: another one is refused.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from research.learning.boosting import PARAMETERS, Recipe, boost, prepare, row_weights
from research.learning.dataset import Dataset
from research.learning.splits import purged_folds
from research.learning.training import check_rows
from schemas.errors import PenstockError, UserError

Ints = npt.NDArray[np.int64]
ROWS_MAX = 100_000
FOLDS = 3
STARTUP_TRIALS = 10
_PER_LEAF = {"lightgbm": "min_data_in_leaf", "xgboost": "min_child_weight"}
_WORKERS_APART = 1_000_003


@dataclass(frozen=True)
class Found:
    """What a search found. parameters: for `train` on all the rows. loss: mean over folds. history: per finished trial its number,
    state, loss and parameters."""

    parameters: Mapping[str, float]
    loss: float
    trials: int
    pruned: int
    study: str
    history: list[dict[str, Any]]

    def lineage(self) -> dict[str, Any]:
        """What a card is to say of it."""
        return {"search": {"study": self.study, "trials": self.trials, "pruned": self.pruned, "loss": self.loss}}


def search(data: Dataset, recipe: Recipe, trials: int, *, rows: Ints | None = None, folds: int = FOLDS, embargo_ns: int = 0,
           storage: str | None = None, study: str = "", worker: int = 0, rows_max: int = ROWS_MAX,
           progress: Callable[[int, int, float], None] | None = None) -> Found:
    """The best parameters of a recipe on these rows of a data set (default: all).

    trials: finished ones, those already in the study counted. storage: an Optuna URL such as sqlite:///study.db, none: in memory. worker:
    a number for each machine that shares the study. rows_max: more rows are thinned evenly, since labels that overlap say nearly the same;
    the least rows of a leaf are scaled back for training. progress is told trials done, trials in all, and the best loss so far.
    """
    optuna = _optuna()
    if trials < 1:
        raise UserError(f"{trials} trials; give at least 1")
    if recipe.early_stopping == 0:
        raise UserError("a search stops early on its folds: give early stopping above 0")
    chosen = np.arange(len(data)) if rows is None else rows
    thin = chosen if len(chosen) <= rows_max else chosen[np.linspace(0, len(chosen) - 1, rows_max).astype(np.int64)]
    part = data.take(thin)
    check_rows(part, recipe.task, what="to search on")
    made = _Folds(part, recipe, folds, embargo_ns)
    identity = blake3(repr((part.content_hash, asdict(recipe), folds, embargo_ns)).encode()).hexdigest()[:16]
    name = study or f"{recipe.model}-{identity}"
    with _storage(optuna, storage) as kept:
        opened = optuna.create_study(storage=kept, study_name=name, load_if_exists=True, direction="minimize",
                                     pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0))
        _claim(opened, identity)
        opened.sampler = optuna.samplers.TPESampler(
            seed=(recipe.seed + worker * _WORKERS_APART + len(opened.trials)) % 2**32, n_startup_trials=STARTUP_TRIALS)
        finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

        def told(current: Any, trial: Any) -> None:
            if progress is not None:
                progress(len(current.get_trials(deepcopy=False, states=finished)), trials, current.best_value)

        if len(opened.get_trials(deepcopy=False, states=finished)) < trials:
            limit = optuna.study.MaxTrialsCallback(trials, states=finished)
            opened.optimize(lambda trial: made.loss(trial, optuna), callbacks=[told, limit])
        return _found(opened, name, recipe, len(chosen) / len(thin), finished)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("Optuna is not installed; install it with: pip install 'penstock[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def _storage(optuna: Any, url: str | None) -> Iterator[Any]:
    """The storage of a URL, closed afterwards."""
    if url is None:
        yield None
        return
    from sqlalchemy.exc import SQLAlchemyError
    shown = url.split("@")[-1]
    try:
        kept = optuna.storages.RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(f"--storage {shown}: {str(error).splitlines()[0]}; write it like sqlite:///study.db") from None
    try:
        yield kept
    except SQLAlchemyError as error:
        raise PenstockError(f"--storage {shown}: {str(error).splitlines()[0]}; what was found until then is kept there") from None
    finally:
        kept.remove_session()
        kept.engine.dispose()


def _claim(study: Any, identity: str) -> None:
    """A study is of one data set and recipe."""
    known = study.user_attrs.get("penstock")
    if known is None:
        study.set_user_attr("penstock", identity)
    elif known != identity:
        raise UserError(f"study {study.study_name} was made of other data or another recipe; give another --study")


class _Folds:
    """The folds of a search, binned once for all its trials."""

    def __init__(self, data: Dataset, recipe: Recipe, folds: int, embargo_ns: int) -> None:
        self.recipe = recipe
        self.parts: list[tuple[Any, Any]] = []
        target = data.up.astype(np.float64) if recipe.task == "classify" else data.value
        for split in purged_folds(data.ts_made_ns, data.ts_end_ns, folds, embargo_ns):
            check_rows(data, recipe.task, split.train, "to train a fold on")
            weights = [row_weights(recipe, target[split.train], target[rows]) for rows in (split.train, split.test)]
            known = prepare(recipe, data.x[split.train], target[split.train], weights[0])
            self.parts.append((known, prepare(recipe, data.x[split.test], target[split.test], weights[1], known)))

    def loss(self, trial: Any, optuna: Any) -> float:
        """The mean loss over the folds of the parameters that a trial suggests."""
        suggested: dict[str, float] = {}
        for name, p in PARAMETERS[self.recipe.model].items():
            if p.search is not None:
                low, high = p.search
                suggested[name] = (trial.suggest_int(name, int(low), int(high), log=p.log) if p.whole
                                   else trial.suggest_float(name, low, high, log=p.log))
        recipe = replace(self.recipe, parameters={**self.recipe.parameters, **suggested})
        losses: list[float] = []
        for k, (known, tested) in enumerate(self.parts):
            losses.append(boost(recipe, known, tested).loss)
            mean = math.fsum(losses) / len(losses)
            trial.report(mean, k)
            if k + 1 < len(self.parts) and trial.should_prune():
                raise optuna.TrialPruned
        return mean


def _found(study: Any, name: str, recipe: Recipe, thinned: float, finished: Any) -> Found:
    known = PARAMETERS[recipe.model]
    best = dict(study.best_params)
    leaf = _PER_LEAF[recipe.model]
    if leaf in best:
        scaled = min(known[leaf].high, best[leaf] * thinned)
        best[leaf] = round(scaled) if known[leaf].whole else scaled
    done = study.get_trials(deepcopy=False, states=finished)
    history = [{"trial": t.number, "state": t.state.name.lower(), "loss": t.value, **t.params} for t in done]
    pruned = sum(t.state.name == "PRUNED" for t in done)
    return Found({**recipe.parameters, **best}, float(study.best_value), len(done), pruned, name, history)
