"""The `models:` section of a configuration: learners, registered models and ensembles, by name.

    models:
      logit:  {kind: river, timeframe: 1m, features: ["rsi(14)", "ret(5)"], label: {horizon: 15m},
               pipeline: [StandardScaler, {LogisticRegression: {l2: 0.01}}]}
      trees:  {kind: registered, name: trees_15m, version: active}
      vote:   {kind: ensemble, members: [logit, trees]}

Whether a River class or a feature exists is said by who builds them (`operators.learners`, `operators.assembly`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from blake3 import blake3

from schemas.config_live import parse_section
from schemas.errors import UserError, unknown
from schemas.intervals import interval_text, parse_interval
from schemas.tables_models import LABEL_KINDS, MEMBERS_MAX

MODEL_KINDS = ("river", "registered", "ensemble")
TASKS = ("classify", "regress", "anomaly")
SCOPES = ("symbol", "pooled", "groups")
FORECAST_LABELS = ("KEEP", "RESEARCH_ONLY", "DISABLE_DEFAULT")
DRIFT_DETECTORS = ("none", "ADWIN", "PageHinkley", "KSWIN", "CUSUM")
MODELS_MAX = 32
FEATURES_MAX = 256
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")


@dataclass(frozen=True)
class LabelConfig:
    """What is to be foreseen. kind: forward_return: log return over the horizon. volatility_scaled: the same in units of the volatility
    over the horizon, from the last `volatility_bars` log returns. triple_barrier: 1, -1 or 0: which of +upper, -lower times that
    volatility is touched first, or neither within the horizon (Lopez de Prado 2018, chapter 3). threshold: the label counts as up
    where it is above this."""

    kind: str = "forward_return"
    horizon_ns: int = 15 * 60 * 10**9
    upper: float = 2.0
    lower: float = 2.0
    volatility_bars: int = 60
    threshold: float = 0.0

    @property
    def label_id(self) -> int:
        """Hash of the definition."""
        return int.from_bytes(blake3(repr(tuple(getattr(self, f.name) for f in fields(self))).encode()).digest()[:8], "big")


@dataclass(frozen=True)
class DriftConfig:
    """A detector on the losses of an online learner. action: alert: an event. reset: forget all and begin again. replace: a learner that
    began to learn when the detector first warned takes its place. parameters: of the detector."""

    detector: str = "none"
    action: str = "alert"
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundsConfig:
    """What keeps an online learner stable. weight_max: linear weights are clipped to this. learning_rate_max: of its optimiser.
    input_max: a scaled feature beyond this is clipped, in standard deviations; 0: none."""

    weight_max: float = 100.0
    learning_rate_max: float = 1.0
    input_max: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """One model. kind river: `pipeline` is a list of River classes with their parameters, the estimator last, and `scope` says whether
    each symbol has one of its own, all share one, or each of `groups` does. kind registered: `registry` is its name there, `version`
    is active (0) or a number, `initial` the version that a run begins with, `shadow` whether a version in shadow predicts beside it;
    timeframe, features, label and task are those of the version's card. kind ensemble: over `members`."""

    name: str
    kind: str
    interval_ns: int = 60 * 10**9
    features: tuple[str, ...] = ()
    label: LabelConfig = LabelConfig()
    task: str = "classify"
    pipeline: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    scope: str = "symbol"
    groups: tuple[tuple[str, ...], ...] = ()
    warmup: int = 100
    seed: int = 1
    drift: DriftConfig = DriftConfig()
    bounds: BoundsConfig = BoundsConfig()
    registry: str = ""
    version: int = 0
    initial: int = 0
    shadow: bool = True
    members: tuple[str, ...] = ()
    consensus: float = 0.75
    present_min: float = 0.5
    volatility_high: float = 0.05
    confidence_high: float = 0.7
    learning_rate: float = 0.1
    calibrate: bool = True
    forecast: str = "KEEP"


@dataclass(frozen=True)
class ValidatorConfig:
    """What a signal has to pass before it reaches the desk, by layer; 0 switches a layer off. model: whose scores and votes are looked
    at; empty: the layers that need none. statistics: `hits_min` of its labels in the last `window_days` were right, once there are
    `labels_min`. regime: annualised volatility is at most `volatility_max`. size: the trade is at most `participation_max` of the bar's
    notional, as the position would be `notional` quote units. correlation: with a symbol that the strategy already holds, at most
    `correlation_max`. cost: the expected move is at least `edge_min` times the round trip's `cost_bps`."""

    model: str = ""
    window_days: float = 30.0
    hits_min: float = 0.5
    labels_min: int = 100
    volatility_max: float = 3.0
    notional: float = 10_000.0
    participation_max: float = 0.1
    correlation_max: float = 0.95
    correlation_bars: int = 60
    cost_bps: float = 24.0
    edge_min: float = 1.0


_LABEL_KEYS = ("kind", "horizon", "upper", "lower", "volatility_bars", "threshold")
_KEYS = {
    "river": ("kind", "timeframe", "features", "label", "task", "pipeline", "scope", "groups", "warmup", "seed", "drift", "bounds",
              "forecast"),
    "registered": ("kind", "name", "version", "initial", "shadow", "timeframe", "features", "label", "task", "forecast"),
    "ensemble": ("kind", "members", "consensus", "present_min", "volatility_high", "confidence_high", "learning_rate", "calibrate",
                 "forecast"),
}


def parse_models(document: object, where: str) -> tuple[ModelConfig, ...]:
    """The models of a configuration, in their order; UserError names the model, the key and the value."""
    if not isinstance(document, Mapping):
        raise UserError(f"{where}: not a mapping of names to models")
    if len(document) > MODELS_MAX:
        raise UserError(f"{where}: {len(document)} models; at most {MODELS_MAX}")
    models = tuple(_model(str(name), value, f"{where} {name}") for name, value in document.items())
    known = {m.name: m for m in models}
    for m in models:
        for member in m.members:
            if member not in known:
                raise unknown(f"{where} {m.name} member", member, [n for n in known if n != m.name])
            if known[member].kind == "ensemble":
                raise UserError(f'{where} {m.name}: member "{member}" is an ensemble itself; name its members')
    return models


def _model(name: str, document: object, where: str) -> ModelConfig:
    if not _NAME.match(name):
        raise UserError(f'{where}: "{name}" is not a name; use a to z, 0 to 9 and _, beginning with a letter, at most 48')
    if not isinstance(document, Mapping):
        raise UserError(f"{where}: not a mapping of keys to values")
    kind = str(document.get("kind", ""))
    if not kind:
        raise UserError(f"{where}: kind is missing; one of {', '.join(MODEL_KINDS)}")
    if kind not in MODEL_KINDS:
        raise unknown(f"{where} kind", kind, MODEL_KINDS)
    for key in document:
        if key not in _KEYS[kind]:
            raise unknown(f"{where} key", str(key), _KEYS[kind])
    made: dict[str, Any] = {"name": name, "kind": kind}
    for key, value in document.items():
        _put(made, str(key), value, f"{where} {key}")
    model = ModelConfig(**made)
    _check(model, where)
    return model


def _put(made: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key == "kind":
        return
    if key == "timeframe":
        made["interval_ns"] = parse_interval(value, where)
    elif key == "name":
        made["registry"] = str(value)
    elif key == "version":
        if value != "active" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f'{where}: "{value}" is neither active nor a version number')
        made["version"] = 0 if value == "active" else value
    elif key == "label":
        made["label"] = parse_label(value, where)
    elif key in ("drift", "bounds"):
        made[key] = parse_section(DriftConfig if key == "drift" else BoundsConfig, value, where)
    elif key == "pipeline":
        made["pipeline"] = _pipeline(value, where)
    elif key == "groups":
        if not isinstance(value, list) or not all(isinstance(g, list) and g for g in value):
            raise UserError(f"{where}: not a list of lists of symbols")
        made["groups"] = tuple(tuple(map(str, group)) for group in value)
    else:
        made.update(_plain(key, value, where))


@dataclass(frozen=True)
class _Plain:
    """The keys whose values `parse_section` can read as they are."""

    features: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    task: str = ""
    scope: str = ""
    forecast: str = ""
    warmup: int = 0
    seed: int = 0
    initial: int = 0
    shadow: bool = True
    calibrate: bool = True
    consensus: float = 0.0
    present_min: float = 0.0
    volatility_high: float = 0.0
    confidence_high: float = 0.0
    learning_rate: float = 0.0


def _plain(key: str, value: Any, where: str) -> dict[str, Any]:
    return {key: getattr(parse_section(_Plain, {key: value}, where.removesuffix(f" {key}")), key)}


def parse_label(document: object, where: str) -> LabelConfig:
    """A label's definition from a mapping."""
    if not isinstance(document, Mapping):
        raise UserError(f"{where}: not a mapping such as {{kind: forward_return, horizon: 15m}}")
    for key in document:
        if key not in _LABEL_KEYS:
            raise unknown(f"{where} key", str(key), _LABEL_KEYS)
    given = {k: v for k, v in document.items() if k != "horizon"}
    threshold = given.pop("threshold", 0.0)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise UserError(f'{where} threshold: "{threshold}" is not a number')
    label = parse_section(LabelConfig, given, where)
    horizon_ns = parse_interval(document["horizon"], f"{where} horizon") if "horizon" in document else label.horizon_ns
    made = LabelConfig(label.kind, horizon_ns, label.upper, label.lower, label.volatility_bars, float(threshold))
    if made.kind not in LABEL_KINDS:
        raise unknown(f"{where} kind", made.kind, LABEL_KINDS)
    if made.upper <= 0 or made.lower <= 0:
        raise UserError(f"{where}: barriers upper {made.upper:g} and lower {made.lower:g} are in units of volatility and above 0")
    if not 2 <= made.volatility_bars <= 100_000:
        raise UserError(f"{where} volatility_bars: {made.volatility_bars} is not from 2 to 100000")
    return made


def _pipeline(value: object, where: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: not a list of River classes such as [StandardScaler, {{LogisticRegression: {{l2: 0.01}}}}]")
    steps: list[tuple[str, Mapping[str, Any]]] = []
    for k, item in enumerate(value):
        if isinstance(item, str):
            steps.append((item, {}))
        elif isinstance(item, Mapping) and len(item) == 1:
            (name, parameters), = item.items()
            if parameters is not None and not isinstance(parameters, Mapping):
                raise UserError(f'{where}[{k}] {name}: "{parameters}" is not a mapping of parameters to values')
            steps.append((str(name), {str(p): v for p, v in (parameters or {}).items()}))
        else:
            raise UserError(f'{where}[{k}]: "{item}" is neither a class nor a class with its parameters')
    return tuple(steps)


def _check(m: ModelConfig, where: str) -> None:
    if m.kind == "river":
        if not m.pipeline:
            raise UserError(f"{where}: pipeline is missing; give a list of River classes, the estimator last")
        if not 1 <= len(m.features) <= FEATURES_MAX:
            raise UserError(f"{where}: {len(m.features)} features; give 1 to {FEATURES_MAX}")
        choices = (("task", m.task, TASKS), ("scope", m.scope, SCOPES), ("drift detector", m.drift.detector, DRIFT_DETECTORS),
                   ("drift action", m.drift.action, ("alert", "reset", "replace")))
        for key, value, known in choices:
            if value not in known:
                raise unknown(f"{where} {key}", value, known)
        if (m.scope == "groups") != bool(m.groups):
            raise UserError(f"{where}: scope groups and groups go together")
        members = [s for group in m.groups for s in group]
        if len(members) != len(set(members)):
            raise UserError(f"{where} groups: a symbol is in two groups")
        if m.label.horizon_ns < m.interval_ns:
            raise UserError(f"{where} label horizon: {interval_text(m.label.horizon_ns)} is shorter than a bar of "
                            f"{interval_text(m.interval_ns)}")
    if m.kind == "registered" and not m.registry:
        raise UserError(f"{where}: name is missing: the name of the model in the registry")
    if m.kind == "ensemble":
        if not 1 <= len(m.members) <= MEMBERS_MAX:
            raise UserError(f"{where}: {len(m.members)} members; give 1 to {MEMBERS_MAX}")
        if len(set(m.members)) != len(m.members):
            raise UserError(f"{where}: a member is named twice")
        for key in ("consensus", "present_min", "confidence_high"):
            if not 0 <= getattr(m, key) <= 1:
                raise UserError(f"{where} {key}: {getattr(m, key):g} is not from 0 to 1")
    if m.forecast not in FORECAST_LABELS:
        raise unknown(f"{where} forecast", m.forecast, FORECAST_LABELS)


def models_document(models: tuple[ModelConfig, ...]) -> dict[str, Any]:
    """The models as `parse_models` takes them."""
    return {m.name: _document(m) for m in models}


def label_document(label: LabelConfig) -> dict[str, Any]:
    """A label as `parse_label` takes it."""
    return {"kind": label.kind, "horizon": interval_text(label.horizon_ns), "upper": label.upper, "lower": label.lower,
            "volatility_bars": label.volatility_bars, "threshold": label.threshold}


def _document(m: ModelConfig) -> dict[str, Any]:
    out: dict[str, Any] = {"kind": m.kind}
    for key in _KEYS[m.kind]:
        if key == "timeframe":
            out[key] = interval_text(m.interval_ns)
        elif key == "name":
            out[key] = m.registry
        elif key == "version":
            out[key] = m.version or "active"
        elif key == "label":
            out[key] = label_document(m.label)
        elif key in ("drift", "bounds"):
            section = getattr(m, key)
            out[key] = {f.name: dict(v) if isinstance(v := getattr(section, f.name), Mapping) else v for f in fields(section)}
        elif key == "pipeline":
            out[key] = [{name: dict(parameters)} if parameters else name for name, parameters in m.pipeline]
        elif key == "groups":
            if m.groups:
                out[key] = [list(group) for group in m.groups]
        elif key != "kind":
            value = getattr(m, key)
            out[key] = list(value) if isinstance(value, tuple) else value
    return out
