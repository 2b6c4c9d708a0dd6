"""The River classes that a configuration may name, found in River's public modules, and what each of their parameters takes.

A name is looked up here and never imported or evaluated: what is not in the catalogue does not exist for a configuration.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from river import (
    anomaly,
    base,
    drift,
    dummy,
    ensemble,
    facto,
    feature_extraction,
    feature_selection,
    forest,
    imblearn,
    linear_model,
    metrics,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    rules,
    stats,
    time_series,
    tree,
)

from schemas.errors import UserError, unknown

_MODULES: dict[str, ModuleType] = {
    "preprocessing": preprocessing, "feature_extraction": feature_extraction, "feature_selection": feature_selection,
    "linear_model": linear_model, "tree": tree, "forest": forest, "ensemble": ensemble, "rules": rules, "neighbors": neighbors,
    "naive_bayes": naive_bayes, "facto": facto, "imblearn": imblearn, "dummy": dummy, "anomaly": anomaly, "time_series": time_series,
    "optim": optim, "optim.losses": optim.losses, "optim.schedulers": optim.schedulers, "optim.initializers": optim.initializers,
    "drift": drift, "drift.binary": drift.binary, "tree.splitter": tree.splitter, "metrics": metrics, "stats": stats,
}

_KINDS: tuple[tuple[str, type], ...] = (
    ("forecaster", time_series.base.Forecaster), ("anomaly", base.AnomalyDetector),
    ("supervised anomaly", base.SupervisedAnomalyDetector), ("anomaly filter", base.AnomalyFilter),
    ("multi-label", base.MultiLabelClassifier), ("multi-target", base.MultiTargetRegressor), ("classifier", base.Classifier),
    ("regressor", base.Regressor), ("transformer", base.BaseTransformer), ("optimizer", optim.base.Optimizer),
    ("loss", optim.base.Loss), ("scheduler", optim.base.Scheduler), ("initializer", optim.base.Initializer),
    ("detector", base.DriftDetector), ("detector", base.BinaryDriftDetector), ("splitter", tree.splitter.Splitter),
    ("quantizer", tree.splitter.Quantizer), ("engine", neighbors.LazySearch), ("metric", metrics.base.Metric),
    ("statistic", stats.base.Univariate), ("pair statistic", stats.base.Bivariate),
)
ESTIMATORS = ("classifier", "regressor", "forecaster", "anomaly")
REFUSED = {
    "SWINN": "keeps a set that all models of a process share, so its state cannot be saved; use LazySearch",
    "RandomTreesEmbedding": "finds its leaves by memory address, so its state cannot be saved; use RBFSampler",
}
"""Classes that cannot keep a learner's promises, with the reason."""

_ANNOTATED = {
    "Classifier": ("classifier",), "Regressor": ("regressor",), "Estimator": ("classifier", "regressor"), "Optimizer": ("optimizer",),
    "Scheduler": ("scheduler",), "Initializer": ("initializer",), "Loss": ("loss",), "BinaryLoss": ("loss",), "RegressionLoss": ("loss",),
    "MultiClassLoss": ("loss",), "DriftDetector": ("detector",), "Splitter": ("splitter",), "Quantizer": ("quantizer",),
    "BaseNN": ("engine",), "MultiClassMetric": ("metric",), "ClassificationMetric": ("metric",), "RegressionMetric": ("metric",),
    "Univariate": ("statistic",), "Bivariate": ("pair statistic",),
}
_WHOLE = frozenset({"height", "mode", "degree", "window_size", "grace_period", "horizon"})
_CALLABLES = frozenset({"dist_func", "dtype", "func", "inverse_func", "default_factory"})


@dataclass(frozen=True)
class Parameter:
    """What a parameter takes. types: of int, float, bool, str, none, list, dict; empty: only classes. kinds: of classes. many: a list of
    classes."""

    name: str
    types: frozenset[str]
    kinds: tuple[str, ...]
    many: bool
    required: bool
    default: Any


@dataclass(frozen=True)
class Entry:
    """A River class. module: the public one. kind: what it is."""

    name: str
    module: str
    kind: str
    made: type
    about: str
    parameters: Mapping[str, Parameter]

    @property
    def seeded(self) -> bool:
        return "seed" in self.parameters


@cache
def entries() -> dict[str, Entry]:
    """Dotted name → class, in the order of the modules."""
    found: dict[str, Entry] = {}
    for module, where in _MODULES.items():
        for name in sorted(vars(where)):
            made = vars(where)[name]
            if not inspect.isclass(made) or name.startswith("_") or inspect.isabstract(made) or name in REFUSED:
                continue
            kind = next((k for k, parent in _KINDS if issubclass(made, parent)), "")
            if not kind or made.__module__.endswith(".base") or any(e.made is made for e in found.values()):
                continue
            about = (inspect.getdoc(made) or "").strip().split("\n\n")[0].replace("\n", " ")
            found[f"{module}.{name}"] = Entry(name, module, kind, made, about, _parameters(made))
    return found


@cache
def _by_name() -> dict[str, tuple[Entry, ...]]:
    found: dict[str, tuple[Entry, ...]] = {}
    for entry in entries().values():
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def find(name: str, where: str, kinds: tuple[str, ...] = ()) -> Entry:
    """The class of that name, dotted or not; where two share it, the one of the kinds asked for; UserError with the nearest."""
    dotted = entries().get(name)
    if dotted is not None:
        return dotted
    short = name.rsplit(".", 1)[-1]
    if short in REFUSED:
        raise UserError(f"{where}: {short} {REFUSED[short]}")
    same = _by_name().get(name, ())
    fitting = [e for e in same if e.kind in kinds] or list(same)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f'{where}: "{name}" is in several modules; write {" or ".join(f"{e.module}.{e.name}" for e in fitting)}')
    known = entries() if "." in name else _by_name()
    fit = [n for n, e in entries().items() if e.kind in kinds] if kinds else list(known)
    raise unknown(f"River class at {where}", name, (fit if "." in name else [n.rsplit(".", 1)[-1] for n in fit]) or known)


def is_class(name: object) -> bool:
    """Whether a value of a configuration names a class."""
    return isinstance(name, str) and (name in entries() or name in _by_name() or name.rsplit(".", 1)[-1] in REFUSED)


def _parameters(made: type) -> dict[str, Parameter]:
    if "__init__" not in vars(made) and made.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    found: dict[str, Parameter] = {}
    for name, p in list(inspect.signature(made.__init__).parameters.items())[1:]:  # type: ignore[misc]
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or name in _CALLABLES:
            continue
        words = set(re.findall(r"\w+", str(p.annotation))) if p.annotation is not p.empty else set()
        kinds = tuple(dict.fromkeys(k for word in sorted(words) for k in _ANNOTATED.get(word, ())))
        if not kinds and name in ("model", "classifier", "regressor", "anomaly_detector"):
            kinds = {"model": ("classifier", "regressor"), "anomaly_detector": ("anomaly",)}.get(name, (name,))
        required = p.default is p.empty
        default = None if required else p.default
        types = {t.lower() for t in words & {"int", "float", "bool", "str", "None", "list", "dict", "tuple"}}
        if p.annotation is p.empty and not kinds:
            types = _guessed(name, default)
        many = bool(kinds) and bool({"list", "tuple", "Sequence"} & words)
        found[name] = Parameter(name, frozenset(types), kinds, many, required, default)
    return found


def _guessed(name: str, default: Any) -> set[str]:
    """Types of a parameter without annotation: those of its default; a whole number where the name says that it counts."""
    if name == "seed":
        return {"int", "none"}
    if isinstance(default, bool):
        return {"bool"}
    if isinstance(default, int | float):
        counts = isinstance(default, int) and (name.startswith("n_") or name in _WHOLE)
        return {"int"} if counts else {"int", "float"}
    if isinstance(default, str):
        return {"str"}
    return {"int", "none"} if name in _WHOLE else {"int", "float", "bool", "str", "none", "list", "dict"}


def catalogue() -> list[dict[str, Any]]:
    """Every class as `penstock model learners` prints it: name, module, kind, parameters with their defaults, first line of its doc."""
    return [
        {"name": e.name, "module": e.module, "kind": e.kind, "about": e.about,
         "parameters": {p.name: "required" if p.required else plain(p.default) for p in e.parameters.values()}}
        for e in entries().values()
    ]


def plain(value: Any) -> Any:
    """A default as JSON can say it."""
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
