"""From a configuration that names registered models to one that says all that a run needs of them, and the store they come from.

A registered model's timeframe, features, label and task are those of the card of the version that the run begins with; they are
recorded with the run, so that a replay of it plans the same whatever the registry has become. Later versions come as promotions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from operators.assembly import Plan, plan
from operators.learners.operator import columns_of
from operators.learners.rows import unlike
from operators.strategies.documents import from_data
from operators.strategies.validation import Known, registry
from schemas.artefact import Artefacts
from schemas.config import Config
from schemas.config_models import ModelConfig
from schemas.errors import UserError
from schemas.tables import Rows
from schemas.tables_models import PROMOTIONS, SHADOW

NOW = 2**63 - 1
"""The event time at which a run of what comes begins, as the registry is asked about it."""


def registered(models: Sequence[ModelConfig]) -> list[ModelConfig]:
    """Those that come out of the registry."""
    return [m for m in models if m.kind == "registered"]


def artefacts_of(config: Config) -> Artefacts | None:
    """The store of a configuration's registered models, None where it has none."""
    if not registered(config.models):
        return None
    from research.learning.registry import Registry
    return Registry.open().artefacts()


def resolved(config: Config, ts_ns: int) -> Config:
    """The configuration with what the cards say of its registered models. ts_ns: the event time at which the run begins.

    What the configuration itself says of a registered model (recorded runs do) is kept. UserError where no version was active then.
    """
    if not registered(config.models):
        return config
    from research.learning.registry import Registry
    store = Registry.open()
    return replace(config, models=tuple(m if m.kind != "registered" or m.initial else _resolved(m, store, ts_ns) for m in config.models))


def _resolved(m: ModelConfig, store: Any, ts_ns: int) -> ModelConfig:
    version = m.version or store.active_at(m.registry, None if ts_ns == NOW else ts_ns)
    if not version:
        when = "now" if ts_ns == NOW else f"at {np.datetime64(ts_ns, 'ns').astype('M8[s]')}"
        raise UserError(f"models {m.name}: no version of {m.registry} is active {when}; `penstock model promote {m.registry} VERSION` "
                        "makes one active, or name one with `version: N`")
    artefact = store.get(m.registry, version)
    card = artefact.card
    plain = ModelConfig(m.name, m.kind)
    own = {"interval_ns": card.interval_ns, "features": card.features, "label": card.label, "task": card.task}
    said = {key: getattr(m, key) for key in own if getattr(m, key) != getattr(plain, key)}
    if why := unlike(artefact, replace(m, **{**own, **said})):
        raise UserError(f"models {m.name}: version {version} of {m.registry}: {why}; leave out what the version says itself: timeframe, "
                        "features, label, task")
    return replace(m, initial=version, **own)


def promotions_between(models: Sequence[ModelConfig], ts_from: int, ts_to: int) -> Rows:
    """What was promoted after ts_from, up to ts_to, of the models that follow their registry, in the order of time; before it, what was in
    shadow at ts_from."""
    names = list(dict.fromkeys(m.registry for m in registered(models) if not m.version))
    if not names:
        return PROMOTIONS.empty(0)
    from research.learning.registry import Registry
    rows = Registry.open().promotions(names, ts_from, ts_to)
    begun = rows["ts_event_ns"] <= ts_from
    return rows[(rows["ts_event_ns"] <= ts_to) & (~begun | (rows["action"] == SHADOW))]


def known_columns(models: Sequence[ModelConfig]) -> Known:
    """What rules may name: features, and what these models say."""
    said = columns_of(models)
    return lambda name: name if name in said else registry(name)


def planned(config: Config, strategies: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan of a recorded run, from the documents that were recorded."""
    known = known_columns(config.models)
    return plan(config, tuple(from_data(dict(d), known) for d in strategies), artefacts_of(config))


def as_recorded(config: Config, recorded: Config) -> Config:
    """The configuration with the versions that the run began with, where it is a run that goes on."""
    before = {m.name: m for m in recorded.models}
    return replace(config, models=tuple(
        before[m.name] if m.name in before and (m.kind, m.registry, m.version) == (before[m.name].kind, before[m.name].registry,
                                                                                    before[m.name].version) and m.kind == "registered"
        else m for m in config.models))
