"""From a configuration's `pipeline` to a River model: classes by name, nested ones too, every seed derived and recorded.

Promised: the same configuration and seed build the same model; what River would take silently and not as meant (a class in the wrong
place, a string for a number, an unknown leaf prediction) is a UserError that names the model, the step and the parameter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from river import base, compose, optim, preprocessing, tree, utils

from operators.learners.river_catalogue import Entry, Parameter, catalogue, find, is_class
from schemas.config_models import ModelConfig
from schemas.errors import UserError, unknown

NEIGHBOURS = 1_000
"""Window of a nearest-neighbour model whose `engine` is not named: exact search, where River's default shares state between models."""
_STEADY = {"memory_estimate_period": 10**15, "max_depth": 16}
"""Put where a configuration does not: a tree judges its memory by the size of Python objects, which is not a function of the rows, so it
is bounded by its depth instead."""
_TASKS = {"classify": ("classifier",), "regress": ("regressor", "forecaster"), "anomaly": ("anomaly",)}
_POSITIVE = 1e-300
_BOUNDS: dict[str, tuple[float, float]] = {
    "n_models": (1, 256), "n_trees": (1, 256), "n_estimators": (1, 256), "height": (1, 15), "window_size": (1, 1_000_000),
    "grace_period": (1, 10**9), "max_depth": (1, 64), "n_neighbors": (1, 100_000), "n_components": (1, 10_000), "l1": (0, 1e12),
    "l2": (0, 1e12), "lr": (_POSITIVE, 1e12), "learning_rate": (_POSITIVE, 1e12), "intercept_lr": (0, 1e12), "delta": (_POSITIVE, 1),
    "tau": (0, 1e12), "clip_gradient": (_POSITIVE, 1e300), "lambda_value": (_POSITIVE, 1e6), "n_bins": (2, 100_000), "seed": (0, 2**63 - 1),
    "fading_factor": (0, 1), "q": (0, 1), "n_min": (1, 10**9), "m_min": (1, 10**9), "C": (_POSITIVE, 1e12), "mode": (0, 2),
    "SNARIMAX.p": (0, 10_000), "SNARIMAX.d": (0, 10), "SNARIMAX.q": (0, 10_000), "SNARIMAX.m": (1, 10_000), "SNARIMAX.sp": (0, 1_000),
    "SNARIMAX.sd": (0, 10), "SNARIMAX.sq": (0, 1_000), "beta_1": (0, 1), "beta_2": (0, 1), "rho": (0, 1),
}
_CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("classifier", "split_criterion"): tuple(tree.HoeffdingTreeClassifier._VALID_SPLIT_CRITERIA),
    ("classifier", "leaf_prediction"): tuple(tree.HoeffdingTreeClassifier._VALID_LEAF_PREDICTION),
    ("regressor", "leaf_prediction"): tuple(tree.HoeffdingTreeRegressor._VALID_LEAF_PREDICTION),
}


class Clip(base.Transformer):
    """Clips every feature to ±`limit`: what stands after a scaler bounds how far one absurd row can throw a linear model."""

    def __init__(self, limit: float = 10.0) -> None:
        self.limit = limit

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        high = self.limit
        low = -high
        return {k: low if v < low else high if v > high else v for k, v in x.items()}


@dataclass
class _Builder:
    """Builds one model; `seeds` records what each class with a seed was given, by its place."""

    config: ModelConfig
    seed: int
    seeds: dict[str, int] = field(default_factory=dict)

    def made(self, name: str, given: Mapping[str, Any], where: str, path: str, kinds: tuple[str, ...] = ()) -> Any:
        """An instance of the class of that name."""
        entry = find(name, where, kinds)
        if kinds and entry.kind not in kinds:
            raise UserError(f"{where}: {entry.name} is {one(entry.kind)}; what fits here is {one(*kinds)}")
        where, path = f"{where} {entry.name}", f"{path}.{entry.name}"
        for key in given:
            if key not in entry.parameters:
                if not entry.parameters:
                    raise UserError(f'{where}: takes no parameters; drop "{key}"')
                raise unknown(f"parameter of {where}", key, entry.parameters)
        missing = [p.name for p in entry.parameters.values() if p.required and p.name not in given]
        if missing:
            raise UserError(f"{where}: {missing[0]} is missing")
        values = {k: self._value(entry, entry.parameters[k], v, f"{where} {k}", f"{path}.{k}") for k, v in given.items()}
        self._put_defaults(entry, values, path)
        try:
            instance = entry.made(**values)
        except (TypeError, ValueError, KeyError, NotImplementedError, AttributeError, ArithmeticError) as error:
            raise UserError(f"{where}: {str(error).strip() or type(error).__name__}") from None
        self._check_rate(instance, where)
        return instance

    def _put_defaults(self, entry: Entry, values: dict[str, Any], path: str) -> None:
        if entry.seeded:
            if values.get("seed") is None:
                values["seed"] = derived(self.seed, path)
            self.seeds[path] = values["seed"]
        for key, steady in _STEADY.items():
            if key in entry.parameters and values.get(key) is None:
                values[key] = steady
        if "engine" in entry.parameters and values.get("engine") is None:
            values["engine"] = self.made("LazySearch", {"window_size": NEIGHBOURS}, "", path)
        if entry.kind == "engine":
            values["dist_func"] = utils.math._euclidean_distance  # type: ignore[attr-defined]

    def _check_rate(self, instance: Any, where: str) -> None:
        rates = []
        if isinstance(instance, optim.base.Optimizer) and hasattr(instance, "lr"):
            rates.append(("lr", instance.learning_rate))
        if isinstance(getattr(instance, "intercept_lr", None), optim.base.Scheduler):
            rates.append(("intercept_lr", instance.intercept_lr.get(0)))
        for name, rate in rates:
            if rate > self.config.bounds.learning_rate_max:
                most = self.config.bounds.learning_rate_max
                raise UserError(f"{where} {name}: begins at {rate:g}, above bounds learning_rate_max {most:g}")

    def _value(self, entry: Entry, p: Parameter, value: Any, where: str, path: str) -> Any:
        if p.kinds:
            nested = self._nested(p, value, where, path)
            if nested is not None:
                return nested
        if value is None and "none" in p.types:
            return None
        if not _fits(p, value):
            hint = '; write a number as 0.001, since YAML reads 1e-3 as text' if isinstance(value, str) and _is_number(value) else ""
            raise UserError(f'{where}: "{value}" is not {_takes(p)}{hint}')
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = _BOUNDS.get(f"{entry.name}.{p.name}", _BOUNDS.get(p.name, (float("-inf"), float("inf"))))
            if not low <= value <= high:
                allowed = f"above 0 and at most {high:g}" if low == _POSITIVE else f"from {low:g} to {high:g}"
                raise UserError(f"{where}: {value} is not {allowed}")
        choices = _CHOICES.get((entry.kind, p.name))
        if choices and value not in choices:
            raise unknown(where, str(value), choices)
        return value

    def _nested(self, p: Parameter, value: Any, where: str, path: str) -> Any:
        """What `value` builds where it names classes; None where it does not."""
        if isinstance(value, list) and p.many:
            return [self._one(item, f"{where}[{k}]", f"{path}.{k}", p.kinds) for k, item in enumerate(value)]
        if isinstance(value, list) and value and all(_names_class(item) for item in value):
            return self.pipeline(value, where, path, p.kinds)
        if _names_class(value) or (isinstance(value, str) and "str" not in p.types) or isinstance(value, Mapping):
            return self._one(value, where, path, p.kinds)
        return None

    def _one(self, value: Any, where: str, path: str, kinds: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return self.pipeline(value, where, path, kinds)
        name, given = _named(value, where)
        return self.made(name, given, where, path, kinds)

    def pipeline(self, steps: list[Any], where: str, path: str, kinds: tuple[str, ...]) -> Any:
        """Transformers and, last, an estimator of one of the kinds."""
        named = [_named(step, f"{where}[{k}]") for k, step in enumerate(steps)]
        return chained(self._steps(named, where, path, kinds))

    def _steps(self, named: list[tuple[str, Mapping[str, Any]]], where: str, path: str, kinds: tuple[str, ...]) -> list[Any]:
        made: list[Any] = []
        for k, (name, given) in enumerate(named):
            place = f"{where}[{k}]"
            entry, last = find(name, place), k == len(named) - 1
            if not last and entry.kind != "transformer":
                raise UserError(f"{place}: {entry.name} is {one(entry.kind)} and is not last; transformers come first, an estimator ends")
            if last and entry.kind not in kinds:
                raise UserError(f"{place}: {entry.name} is {one(entry.kind)}; {self._ends_with(kinds)}")
            made.append(self.made(f"{entry.module}.{entry.name}", given, place, f"{path}.{k}"))
        return made

    def _ends_with(self, kinds: tuple[str, ...]) -> str:
        return f"the list ends with {one(*kinds)}, since the task is {self.config.task}"

    def model(self) -> Any:
        """The configuration's model."""
        where = f"models {self.config.name} pipeline"
        steps = self._steps(list(self.config.pipeline), where, "", _TASKS[self.config.task])
        if self.config.bounds.input_max < 0:
            raise UserError(f"models {self.config.name} bounds input_max: {self.config.bounds.input_max:g} is below 0")
        if self.config.bounds.input_max:
            scalers = (preprocessing.StandardScaler, preprocessing.AdaptiveStandardScaler)
            at = next((k for k, step in enumerate(steps) if isinstance(step, scalers)), None)
            if at is None:
                raise UserError(f"models {self.config.name} bounds input_max: is in standard deviations; put a StandardScaler into it")
            steps.insert(at + 1, Clip(self.config.bounds.input_max))
        return chained(steps)


def build(config: ModelConfig, seed: int) -> Any:
    """The River model of a configuration: an estimator, or a River pipeline that ends with one; UserError for what cannot be."""
    return _Builder(config, seed).model()


def seeds(config: ModelConfig, seed: int) -> dict[str, int]:
    """Place in the pipeline → the seed that `build` gives the class there."""
    builder = _Builder(config, seed)
    builder.model()
    return builder.seeds


def derived(seed: int, path: str) -> int:
    """A seed of 31 bits from another one and a name."""
    return int.from_bytes(blake3(f"{seed}:{path}".encode()).digest()[:4], "big") >> 1


def chained(steps: list[Any]) -> Any:
    """The only step, or a pipeline of all."""
    return steps[0] if len(steps) == 1 else compose.Pipeline(*steps)


def _names_class(value: Any) -> bool:
    return is_class(value) or (isinstance(value, Mapping) and len(value) == 1 and is_class(next(iter(value))))


def _named(value: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        (name, given), = value.items()
        if given is None or isinstance(given, Mapping):
            return str(name), {str(k): v for k, v in (given or {}).items()}
        raise UserError(f'{where} {name}: "{given}" is not a mapping of parameters to values')
    raise UserError(f'{where}: "{value}" is not a class with its parameters such as {{SGD: {{lr: 0.01}}}}')


_TESTS: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v == v and abs(v) != float("inf"),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "none": lambda v: v is None,
    "list": lambda v: isinstance(v, list),
    "tuple": lambda v: isinstance(v, list),
    "dict": lambda v: isinstance(v, Mapping),
}
_TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word", "none": "null", "list": "a list",
               "tuple": "a list", "dict": "a mapping"}


def _fits(p: Parameter, value: Any) -> bool:
    return any(_TESTS[t](value) for t in p.types)


def _takes(p: Parameter) -> str:
    types = p.types - {"int"} if "float" in p.types else p.types
    return " or ".join([*([one(*p.kinds)] if p.kinds else []), *(_TYPE_NAMES[t] for t in _TYPE_NAMES if t in types)])


def one(*kinds: str) -> str:
    """`a classifier or an optimizer`."""
    return " or ".join(f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in kinds)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


__all__ = ["Clip", "build", "catalogue", "chained", "derived", "seeds"]
