"""How a River model is asked and taught: its methods looked up once, so that a row costs what River costs and no more.

The order is that of River's pipeline: a transformer learns a row, then transforms it; one that needs the label transforms first. NumPy
warns of nothing here: what is not finite is seen by who asks.
"""

import copyreg
import math
import pickle
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
from river import base, compose, linear_model, proba, rules, time_series, tree

from operators.learners.state_digest import steps_of
from schemas.config_models import ModelConfig

Row = dict[str, float]
STEPS_MAX = 512
"""Bars of horizon over which a forecaster may forecast step by step."""
_CALM = (linear_model.LogisticRegression, linear_model.LinearRegression, linear_model.Perceptron, tree.HoeffdingTreeClassifier)
"""Estimators that compute in Python's floats: NumPy has nothing to warn of, and its error state need not be set around each call."""


def bound(model: Any, config: ModelConfig, bars: int) -> tuple[Callable[[Row], float], Callable[[Row, Any], None]]:
    """How a model is asked and how it is taught, with River's methods looked up once."""
    *before, last = steps_of(model)
    if isinstance(last, time_series.base.Forecaster):
        ask, teach = _forecaster(last, min(bars, STEPS_MAX))
    elif config.task == "classify":
        ask, teach = _classifier(last), last.learn_one
    elif config.task == "regress":
        ask, teach = last.predict_one, last.learn_one
    else:
        ask, teach = _detector(last), lambda x, y: last.learn_one(x)
    score, learn = _behind(model, before, last, ask, teach)
    return (score if isinstance(last, _CALM) else _quiet(score)), (learn if isinstance(last, _CALM) else _quiet(learn))


def _behind(model: Any, before: list[Any], last: Any, ask: Any, teach: Any) -> tuple[Any, Any]:
    """The estimator behind its transformers, which learn first and then transform, as in River's own pipeline."""
    if not before:
        return ask, teach
    transforms = [step.transform_one for step in before]
    if len(before) == 1 and not before[0]._supervised:
        transform, fit = before[0].transform_one, before[0].learn_one

        def learn_scaled(x: Row, y: Any) -> None:
            fit(x)
            teach(transform(x), y)

        return lambda x: ask(transform(x)), learn_scaled

    def score(x: Row) -> Any:
        for step in transforms:
            x = step(x)
        return ask(x)

    def learn(x: Row, y: Any) -> None:
        for step in before:
            if step._supervised:
                made = step.transform_one(x)
                step.learn_one(x, y)
                x = made
            else:
                step.learn_one(x)
                x = step.transform_one(x)
        teach(x, y)

    return score, learn


def _classifier(last: Any) -> Callable[[Row], float]:
    if type(last).predict_proba_one is base.Classifier.predict_proba_one:  # it names a class and no probability
        name = last.predict_one
        return lambda x: 0.5 if (said := name(x)) is None else float(said)
    ask = last.predict_proba_one

    def score(x: Row) -> float:
        said = ask(x)
        up = said.get(True, 0.0)
        return up if up or said.get(False) else 0.5  # a leaf that has seen nothing says 0 of both

    return score


def _detector(last: Any) -> Callable[[Row], float]:
    ask = last.score_one

    def score(x: Row) -> float:
        said = float(ask(x))
        return said if 0.0 <= said <= 1.0 else 1.0 / (1.0 + math.exp(-said))

    return score


def _forecaster(last: Any, steps: int) -> tuple[Callable[[Row], float], Callable[[Row, float], None]]:
    ask, teach = last.forecast, last.learn_one
    if isinstance(last, time_series.HoltWinters):
        return lambda x: ask(steps)[-1], lambda x, y: teach(y)
    return lambda x: ask(steps, [x] * steps)[-1], lambda x, y: teach(y, x)


def _quiet(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call with NumPy's floating point errors ignored."""
    def quiet(*given: Any) -> Any:
        with np.errstate(all="ignore"):
            return call(*given)

    return quiet


def linear_parts(model: Any) -> Iterator[Any]:
    """The linear models in a model: the estimator itself, those of an ensemble, those that a pipeline or a wrapper ends with."""
    if isinstance(model, compose.Pipeline):
        yield from linear_parts(steps_of(model)[-1])
    elif isinstance(model, base.Ensemble):
        for each in model:
            yield from linear_parts(each)
    elif hasattr(model, "weights") and hasattr(model, "intercept"):
        yield model
    else:
        for name in ("regressor", "classifier", "model"):
            inner = getattr(model, name, None)
            if inner is not None:
                yield from linear_parts(inner)


def clip_weights(model: Any, limit: float) -> None:
    """Bring weights and intercepts beyond ±`limit` back to it."""
    for part in linear_parts(model):
        weights = part._weights if hasattr(part, "_weights") else part.weights
        beyond = {name: w for name, w in weights.items() if not -limit <= w <= limit and w == w}
        for name, w in beyond.items():
            weights[name] = math.copysign(limit, w)
        if not -limit <= part.intercept <= limit and part.intercept == part.intercept:
            part.intercept = math.copysign(limit, part.intercept)


def dumped(state: object) -> bytes:
    """A pickle of a learner's state. The generators of River's distributions stay out: nothing that learns draws from them, and they
    are nine tenths of a forest's bytes."""
    out = BytesIO()
    pickler = pickle.Pickler(out, protocol=5)
    pickler.dispatch_table = {**copyreg.dispatch_table, **dict.fromkeys(_DISTRIBUTIONS, _without_generator)}
    pickler.dump(state)
    return out.getvalue()


def loaded(data: bytes) -> Any:
    """What `dumped` was given."""
    return pickle.loads(data)


_DISTRIBUTIONS = (proba.Beta, proba.Gaussian, proba.Multinomial, proba.MultivariateGaussian)


def _without_generator(value: Any) -> tuple[Any, ...]:
    return copyreg.__newobj__, (type(value),), {**value.__dict__, "_rng": None}  # type: ignore[attr-defined]


def rekeyed(model: Any) -> None:
    """Number the rules of a rule learner that was read back below zero: River keeps a new one under its address in this process, which
    is positive and may be what an old one had elsewhere."""
    last = steps_of(model)[-1]
    if isinstance(last, rules.AMRules):
        last._rules = {-number: rule for number, rule in enumerate(last._rules.values(), 1)}
    for each in last if isinstance(last, base.Ensemble) else ():
        rekeyed(each)
