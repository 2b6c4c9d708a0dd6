"""Training: a data set and a recipe in, an artefact out, whose card says all that is needed to make it again.

The same data, recipe and version of the code give the same bytes, whenever and however often. The last part of the time range decides
when to stop adding trees; the rows before it are purged of labels that look into it. The figures of that part are the best that its rows
could choose, so a little better than what comes later: `walk_forward` gives those that nothing was chosen by.
"""

import math
import platform
import subprocess
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.learners.boosted import LOADERS
from operators.learners.distribution import histogram
from research.learning.boosting import Progress, Recipe, boost, prepare, row_weights
from research.learning.dataset import Dataset
from research.learning.evaluation import metrics
from research.learning.importance import tree_importance
from research.learning.splits import Split, holdout
from schemas.artefact import Artefact, Card
from schemas.errors import PenstockError, UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROWS_MIN = 200
IMPORTANCE_TOP = 30
ROOT = Path(__file__).resolve().parents[2]


def train(data: Dataset, model: str = "lightgbm", parameters: Mapping[str, float] | None = None, task: str = "classify", seed: int = 1,
          class_weight: str = "none", early_stopping: int = 50, valid_share: float = 0.2, *, name: str = "model", embargo_ns: int = 0,
          threads: int = 1, lineage: Mapping[str, Any] | None = None, progress: Progress | None = None) -> Artefact:
    """Train a model on a data set; the card's version is 0 until a registry gives it one.

    parameters: of the library, by its own names, and `rounds`; the rest are defaults (`boosting.PARAMETERS`). task: classify (probability
    of up) or regress (the label). class_weight: none or balanced. early_stopping: rounds without improvement on the last `valid_share` of
    the rows, 0: all rounds. valid_share 0: train on everything, with no figures out of sample. UserError: an unknown name, a number out of
    bounds, too few rows, one class only, a constant column, a library that is not installed.
    """
    recipe = Recipe(model, task, parameters or {}, seed, class_weight, early_stopping, threads)
    if not 0 <= valid_share < 1:
        raise UserError(f"share of validation rows {valid_share:g} is not from 0 to below 1")
    if valid_share == 0 and early_stopping:
        raise UserError("early stopping needs rows to stop on: give a share of validation rows above 0, or early stopping 0")
    check_rows(data, task)
    everything = Split(np.arange(len(data)), np.arange(0), 0)
    split = holdout(data.ts_made_ns, data.ts_end_ns, valid_share, embargo_ns) if valid_share else everything
    check_rows(data, task, split.train, "to train on, before the validation rows")
    payload, rounds = fit(data, recipe, split, progress)
    columns = [histogram(data.x[split.train, k]) for k in range(len(data.features))]
    edges, shares = tuple(edges for edges, _ in columns), tuple(shares for _, shares in columns)
    card = Card(name, 0, model, task, data.interval_ns, data.features, data.label, edges, shares)
    predict = LOADERS[model](Artefact(card, payload)).predict
    about = {
        "recipe": recipe_document(recipe, valid_share, embargo_ns), "rounds": rounds, "seed": seed, "data": data.about(),
        "trained": {"rows": len(split.train), "ts_to_ns": int(data.ts_made_ns[split.train[-1]]), "purged": split.purged},
        "metrics": measured(data, task, name, predict, split.test), "in_sample": measured(data, task, name, predict, split.train),
        "importance": tree_importance(model, payload, data.features)[:IMPORTANCE_TOP], "lineage": dict(lineage or {}),
        "code": code_version(), "libraries": library_versions(model),
    }
    return Artefact(Card(name, 0, model, task, data.interval_ns, data.features, data.label, edges, shares, about), payload)


def fit(data: Dataset, recipe: Recipe, split: Split, progress: Progress | None = None) -> tuple[bytes, int]:
    """Train on the rows of a split; its test rows, where there are any and the recipe stops early, say when to stop."""
    target = data.up.astype(np.float64) if recipe.task == "classify" else data.value

    def rows(chosen: Ints, reference: Any = None) -> Any:
        return prepare(recipe, data.x[chosen], target[chosen], row_weights(recipe, target[split.train], target[chosen]), reference)

    known = rows(split.train)
    fitted = boost(recipe, known, rows(split.test, known) if len(split.test) and recipe.early_stopping else None, progress)
    return fitted.payload, fitted.rounds


def check_rows(data: Dataset, task: str, chosen: Ints | None = None, what: str = "in the data set") -> None:
    """UserError where there are too few rows, one class only, or a column that does not vary."""
    n = len(data) if chosen is None else len(chosen)
    if n < ROWS_MIN:
        raise UserError(f"{n} rows {what}, and at least {ROWS_MIN} are needed; give more data, or a shorter --horizon")
    up, value = (data.up, data.value) if chosen is None else (data.up[chosen], data.value[chosen])
    if task == "classify" and (up == up[0]).all():
        raise UserError(f"one class only: all {n:,} labels {what} are {'up' if up[0] else 'not up'}; give more data, or another threshold")
    if task == "regress" and (value == value[0]).all():
        raise UserError(f"all {n:,} labels {what} are {value[0]:g}; give more data")
    x = data.x if chosen is None else data.x[chosen]
    if flat := [name for name, low, high in zip(data.features, x.min(axis=0), x.max(axis=0), strict=True) if low == high]:
        raise UserError(f"constant in all {n:,} rows {what}: {', '.join(flat)}; leave it out, or give more data")


def measured(data: Dataset, task: str, name: str, predict: Any, rows: Ints) -> dict[str, Any]:
    """`evaluation.metrics` of what a model says of some rows, with None for what cannot be told; nothing of no rows."""
    if not len(rows):
        return {}
    found = metrics(data.outcomes(name, task, predict(data.x[rows]), rows))
    return {key: (None if not math.isfinite(v) else int(v) if key in ("rows", "decided") else float(v)) for key, v in found.items()}


def recipe_document(recipe: Recipe, valid_share: float, embargo_ns: int) -> dict[str, Any]:
    """What `recipe_of` reads, as plain values."""
    return {"parameters": dict(recipe.parameters), "seed": recipe.seed, "class_weight": recipe.class_weight,
            "early_stopping": recipe.early_stopping, "threads": recipe.threads, "valid_share": valid_share, "embargo_ns": embargo_ns}


def recipe_of(card: Card) -> tuple[Recipe, float, int]:
    """The recipe that a card was made by, its share of validation rows and its embargo; PenstockError where it does not say."""
    told = card.about.get("recipe")
    where = f"{card.name} version {card.version}"
    if not isinstance(told, Mapping):
        raise PenstockError(f"{where}: its card has no recipe, so it cannot be trained again; train a new model")
    try:
        recipe = Recipe(card.model, card.task, told["parameters"], told["seed"], told["class_weight"], told["early_stopping"],
                        told["threads"])
        return recipe, float(told["valid_share"]), int(told["embargo_ns"])
    except (KeyError, TypeError, ValueError) as error:
        raise PenstockError(f"{where}: its card's recipe lacks {error}; train a new model") from None


def train_again(card: Card, data: Dataset, *, lineage: Mapping[str, Any] | None = None, progress: Progress | None = None) -> Artefact:
    """The recipe of a card on other data of the same columns and label; the lineage says which version it was."""
    if (data.features, data.interval_ns, data.label) != (card.features, card.interval_ns, card.label):
        raise UserError(f"the data set does not fit {card.name} version {card.version}: {difference(card, data)}")
    r, valid_share, embargo_ns = recipe_of(card)
    return train(data, r.model, r.parameters, r.task, r.seed, r.class_weight, r.early_stopping, valid_share, name=card.name,
                 embargo_ns=embargo_ns, threads=r.threads, lineage={"parent": card.version, **(lineage or {})}, progress=progress)


def difference(card: Card, data: Dataset) -> str:
    """Which columns, timeframe or label differ between a card and a data set."""
    parts = [f"without {name}" for name in card.features if name not in data.features]
    parts += [f"with {name}" for name in data.features if name not in card.features]
    if not parts and data.features != card.features:
        parts.append("the same columns in another order")
    if data.interval_ns != card.interval_ns:
        parts.append("another timeframe")
    if data.label != card.label:
        parts.append("another label")
    return ", ".join(parts)


def code_version() -> dict[str, str]:
    """The package's version, and the commit where the code lies in a git repository of its own."""
    try:
        package = version("penstock")
    except PackageNotFoundError:
        package = ""
    commit = ""
    if (ROOT / ".git").exists():
        try:
            said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
            commit = said.stdout.strip() if said.returncode == 0 else ""
        except (OSError, subprocess.TimeoutExpired):
            commit = ""
    return {"version": package, "commit": commit}


def library_versions(model: str) -> dict[str, str]:
    """Of what decides on the bytes."""
    return {"python": platform.python_version(), "numpy": np.__version__, model: str(import_module(model).__version__)}
