"""The configuration of a run: one file for replay, paper and live. Unknown keys are errors that suggest the nearest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from schemas.config_learn import LearnConfig, check_learn
from schemas.config_live import ExchangeConfig, KafkaConfig, LiveConfig, VenueConfig, parse_section
from schemas.config_models import ModelConfig, ValidatorConfig, models_document, parse_models
from schemas.errors import UserError, unknown
from schemas.intervals import interval_text, parse_interval
from schemas.policy import Policy, parse_policy


@dataclass(frozen=True)
class Config:
    """What a run does. strategies: names of built-ins, paths, or rule documents. features: more features to record, by interval."""

    intervals_ns: tuple[int, ...] = (60 * 10**9,)
    tick_bars: tuple[int, ...] = ()
    volume_bars: tuple[float, ...] = ()
    dollar_bars: tuple[float, ...] = ()
    features: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    strategies: tuple[Any, ...] = ("bollinger_bounce", "breakout_momentum", "momentum")
    allocation: tuple[float, ...] = ()
    conflict: str = "independent"
    quality: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    account: str = "paper"
    warehouse: str = ""
    batch_rows: int = 65_536
    kafka: KafkaConfig | None = None
    exchange: ExchangeConfig | None = None
    venue: VenueConfig | None = None
    models: tuple[ModelConfig, ...] = ()
    validator: ValidatorConfig | None = None
    learn: LearnConfig | None = None
    live: LiveConfig = field(default_factory=LiveConfig)


_KEYS = ("bars", "features", "strategies", "allocation", "conflict", "quality", "policy", "account", "warehouse", "batch_rows", "kafka",
         "exchange", "venue", "live", "models", "validator", "learn")
_SECTIONS: dict[str, type[Any]] = {"kafka": KafkaConfig, "exchange": ExchangeConfig, "venue": VenueConfig, "live": LiveConfig,
                                     "validator": ValidatorConfig, "learn": LearnConfig}
_BAR_KEYS = ("time", "tick", "volume", "dollar")


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where} is not a list")
    return value


def parse_config(document: object, where: str) -> Config:
    """A configuration from a mapping; every mistake is a UserError that names the key."""
    if document is None:
        return Config()
    if not isinstance(document, Mapping):
        raise UserError(f"{where}: not a mapping of keys to values")
    for key in document:
        if key not in _KEYS:
            raise unknown(f"{where} key", str(key), _KEYS)
    made: dict[str, Any] = {}
    bars = document.get("bars", {})
    if not isinstance(bars, Mapping):
        raise UserError(f"{where} bars: not a mapping with {', '.join(_BAR_KEYS)}")
    for key in bars:
        if key not in _BAR_KEYS:
            raise unknown(f"{where} bars key", str(key), _BAR_KEYS)
    if "time" in bars:
        made["intervals_ns"] = tuple(parse_interval(t, f"{where} bars.time") for t in _list(bars["time"], f"{where} bars.time"))
    for key, name in (("tick", "tick_bars"), ("volume", "volume_bars"), ("dollar", "dollar_bars")):
        if key in bars:
            made[name] = tuple(_list(bars[key], f"{where} bars.{key}"))
    if "features" in document:
        given = document["features"]
        if isinstance(given, list):
            given = {interval_text(made.get("intervals_ns", Config.intervals_ns)[0]): given}
        if not isinstance(given, Mapping):
            raise UserError(f"{where} features: not a list of features, nor a mapping of intervals to lists")
        made["features"] = {parse_interval(k, f"{where} features"): tuple(map(str, _list(v, f"{where} features.{k}")))
                            for k, v in given.items()}
    if "strategies" in document:
        made["strategies"] = tuple(_list(document["strategies"], f"{where} strategies"))
    if "allocation" in document:
        try:
            made["allocation"] = tuple(float(v) for v in _list(document["allocation"], f"{where} allocation"))
        except (TypeError, ValueError):
            raise UserError(f'{where} allocation: "{document["allocation"]}" is not a list of shares such as [0.4, 0.3, 0.3]') from None
        if any(v < 0 for v in made["allocation"]) or sum(made["allocation"]) > 1 + 1e-9:
            raise UserError(f"{where} allocation: shares are from 0 and at most 1 in all; these are {made['allocation']}")
    for key in ("conflict", "account", "warehouse"):
        if key in document:
            made[key] = str(document[key])
    if "quality" in document:
        made["quality"] = dict(document["quality"] or {})
    if "policy" in document:
        made["policy"] = parse_policy(document["policy"], f"{where} policy")
    if "batch_rows" in document:
        rows = document["batch_rows"]
        if not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= 10_000_000:
            raise UserError(f'{where} batch_rows: "{rows}" is not a whole number from 1 to 10000000')
        made["batch_rows"] = rows
    if document.get("models") is not None:
        made["models"] = parse_models(document["models"], f"{where} models")
    for key, kind in _SECTIONS.items():
        if document.get(key) is not None:
            made[key] = parse_section(kind, document[key], f"{where} {key}")
    if made.get("learn") is not None:
        check_learn(made["learn"], f"{where} learn")
    return Config(**made)


def parse_config_text(text: str, where: str) -> Config:
    """A configuration from YAML."""
    try:
        return parse_config(yaml.safe_load(text), where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not YAML: {getattr(error, 'problem', error)}") from None


def config_document(config: Config) -> dict[str, Any]:
    """What decides what a run makes, as `parse_config` takes it; strategies are recorded apart."""
    return {
        "bars": {"time": [interval_text(ns) for ns in config.intervals_ns], "tick": list(config.tick_bars),
                 "volume": list(config.volume_bars), "dollar": list(config.dollar_bars)},
        "features": {interval_text(ns): list(names) for ns, names in config.features.items()},
        "allocation": list(config.allocation), "conflict": config.conflict, "quality": dict(config.quality),
        "policy": {"version": config.policy.version, **config.policy.values}, "account": config.account,
        "batch_rows": config.batch_rows,
        **({"models": models_document(config.models)} if config.models else {}),
        **({"validator": asdict(config.validator)} if config.validator else {}),
        **({} if config.live.record_features else {"live": {"record_features": False}}),
    }
