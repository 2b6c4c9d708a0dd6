"""What `penstock model list|show|promote|rollback|retire|diff|history|publish|prune|repair|learners` do."""

import getpass
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cli.output import err, out, print_json, print_table
from cli.replaying import parse_time
from research.learning.registry import Registry, Version
from research.learning.registry_events import Standing, promotion_rows
from schemas.artefact import Artefact, card_json
from schemas.errors import PenstockError, UserError, unknown
from schemas.tables_models import PROMOTIONS

DONE = {"activate": "active", "shadow": "in shadow", "retire": "retired", "rollback": "active again"}


def when(ns: int) -> str:
    """A moment for people."""
    return f"{np.datetime64(ns, 'ns')!s:.19}Z" if ns else ""


def list_command(name: str | None, folder: str | None, as_json: bool) -> None:
    """All models, or all versions of one."""
    registry = Registry.open(folder)
    if name is not None:
        versions = registry.versions(name)
        if as_json:
            print_json({"registry": str(registry.path), "name": name, "versions": [asdict(v) for v in versions]})
            return
        print_table(("version", "state", "model", "task", "tag", "parent", "registered", "metrics"),
                    [(v.version, v.state, v.model, v.task, v.tag, v.parent or "", when(v.created_ns),
                      "pruned" if v.pruned else short(v.metrics)) for v in versions], name)
        return
    models = [_summary(n, registry.versions(n)) for n in registry.names()]
    if as_json:
        print_json({"registry": str(registry.path), "models": models})
    elif models:
        print_table(("model", "versions", "active", "shadow", "latest", "latest registered"),
                    [(m["name"], m["versions"], m["active"] or "none", m["shadow"] or "none", m["latest"], when(m["latest_created_ns"]))
                     for m in models])
    else:
        out.print(f"no models in {registry.path} yet; `penstock model train` makes one", highlight=False)


def _summary(name: str, versions: list[Version]) -> dict[str, Any]:
    held = {v.state: v.version for v in versions}
    return {"name": name, "versions": len(versions), "active": held.get("ACTIVE", 0), "shadow": held.get("SHADOW", 0),
            "latest": versions[-1].version, "latest_created_ns": versions[-1].created_ns}


def short(metrics: Mapping[str, Any]) -> str:
    """The first numbers among metrics."""
    numbers = [f"{k} {v:.4g}" for k, v in flat(metrics).items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return ", ".join(numbers[:4]) + (" …" if len(numbers) > 4 else "")


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; a list of entries by feature is a mapping from features."""
    if isinstance(value, list) and value and all(isinstance(v, Mapping) and "feature" in v for v in value):
        value = {v["feature"]: {k: x for k, x in v.items() if k != "feature"} for v in value}
    if not isinstance(value, Mapping) or not value:
        return {at: value} if at else {}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{at}.{key}" if at else str(key)).items()}


def show_command(reference: str, folder: str | None, as_json: bool) -> None:
    """One version."""
    registry = Registry.open(folder)
    name, _, wanted = reference.partition("@")
    version = registry.version(name, registry.resolve(name, wanted))
    trouble, card = "", {}
    try:
        found = registry.get(name, version.version)
        card = {k: v for k, v in _document(found).items() if k not in ("edges", "shares")}
        card["feature_hash"] = found.card.feature_hash
    except PenstockError as error:
        trouble = str(error)
    if as_json:
        print_json({**asdict(version), "card": card, "trouble": trouble})
        return
    rows = [("model", f"{name} version {version.version}"), ("state", version.state), ("tag", version.tag), ("kind", version.model),
            ("registered", when(version.created_ns)), ("digest", version.digest[:16])]
    for key, value in flat(card).items():
        if key not in ("name", "version", "model", "format", "about.tag"):
            rows.append((key.removeprefix("about."), ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    print_table(("", ""), rows)
    if trouble:
        err.print(f"cannot be used: {trouble}", highlight=False)


def _document(artefact: Artefact) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(card_json(artefact.card))
    return made


def change_command(action: str, name: str, reference: str | None, at: str | None, backdate: bool, reason: str, actor: str | None,
                   config: str | None, run: str | None, folder: str | None, as_json: bool) -> None:
    """Promote, shadow, retire or roll back; then tell the topic, or the run without a broker, where there is one."""
    registry = Registry.open(folder)
    kafka = _kafka(config)
    version = registry.resolve(name, reference) if reference else None
    effective_ns, who = parse_time(at, "--at"), actor or _login()
    log = _local_log(config, run) if kafka is None and run else None
    if (kafka or log) and effective_ns is not None and effective_ns > time.time_ns():
        raise UserError(f'--at "{at}" has not come yet, and a pipeline switches when it reads the promotion: leave --config and --run away '
                        "for an event that replays alone use, and promote again without --at when the time has come")
    if action == "rollback":
        event = registry.rollback(name, effective_ns, reason, who, backdate, to=version)
    else:
        assert version is not None
        ask = {"activate": registry.promote, "shadow": registry.shadow, "retire": registry.retire}[action]
        event = ask(name, version, effective_ns, reason, who, backdate)
    sent = publish(registry, kafka, config) if kafka is not None else 0
    if log is not None:
        log.promote(promotion_rows([event]))
        log.close()
        sent = 1
    if as_json:
        print_json({**asdict(event), "published": sent})
        return
    told = "" if not sent else f"; {sent} events written to the topic promotions" if kafka is not None else f"; left for run {run}"
    err.print(f"{name} version {event.version}: {DONE[event.action]} from {when(event.effective_ns)}{told}", highlight=False)


def _local_log(config: str | None, run: str) -> Any:
    """The log of a run without a broker; UserError where there is no such run."""
    from pathlib import Path

    from research.replaying import load_config
    from sources.local_log import LocalLog
    state = Path(load_config(config).live.state_dir)
    if not (state / run / "input.sqlite3").exists():
        known = [path.parent.name for path in state.glob("*/input.sqlite3")]
        raise unknown("run", run, known) if known else UserError(f'no run "{run}" in {state}')
    return LocalLog(state / run)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return "unknown"


def _kafka(config: str | None) -> Any:
    """The configuration, where it has a section `kafka`."""
    if config is None:
        return None
    from cli.secrets import expanded
    from research.replaying import load_config
    loaded = expanded(load_config(config))
    return loaded if loaded.kafka is not None else None


def publish(registry: Registry, loaded: Any, config: str | None) -> int:
    """Write what the topic lacks, in the order in which it was decided; how many events that were."""
    from sinks.kafka import KafkaSink
    target = f"{loaded.kafka.servers} {loaded.kafka.prefix} {loaded.account}"
    events, number = registry.unpublished(target)
    try:
        if events:
            with KafkaSink(loaded.kafka, "", loaded.account) as sink:
                for event in events:
                    sink.write(PROMOTIONS, promotion_rows([event]))
    except PenstockError as error:
        raise PenstockError(f"{error}; the registry has the event and the topic does not: when the broker is back, run "
                            f"penstock model publish --config {config}") from None
    registry.mark_published(target, number)
    return len(events)


def publish_command(config: str | None, folder: str | None, as_json: bool) -> None:
    """Write what the topic lacks."""
    kafka = _kafka(config)
    if kafka is None:
        raise UserError("model publish needs --config with a section `kafka`: the broker whose topic `promotions` is to be written")
    sent = publish(Registry.open(folder), kafka, config)
    if as_json:
        print_json({"published": sent})
    else:
        err.print(f"{sent} events written to the topic promotions", highlight=False)


def diff_command(name: str, a: str, b: str, folder: str | None, as_json: bool) -> None:
    """Two versions side by side."""
    registry = Registry.open(folder)
    one, two = (_document(registry.get(name, registry.resolve(name, v))) for v in (a, b))
    features = (one.pop("features"), two.pop("features"))
    for card in (one, two):
        for key in ("edges", "shares", "version"):
            card.pop(key)
    left, right = flat(one), flat(two)
    changed = [{"what": k.removeprefix("about."), "a": left.get(k), "b": right.get(k)}
               for k in sorted({**left, **right}) if left.get(k) != right.get(k)]
    added = [f for f in features[1] if f not in features[0]]
    removed = [f for f in features[0] if f not in features[1]]
    common = [[f for f in of if f in other] for of, other in (features, features[::-1])]
    shown = {"name": name, "a": registry.resolve(name, a), "b": registry.resolve(name, b), "changed": changed, "features_added": added,
             "features_removed": removed, "features_reordered": common[0] != common[1]}
    if as_json:
        print_json(shown)
        return
    rows = [(c["what"], _cell(c["a"]), _cell(c["b"])) for c in changed]
    rows += [("feature", "", f) for f in added] + [("feature", f, "") for f in removed]
    if shown["features_reordered"]:
        rows.append(("order of features", ", ".join(common[0]), ", ".join(common[1])))
    if rows:
        print_table(("what", f"version {shown['a']}", f"version {shown['b']}"), rows, name)
    else:
        out.print("nothing differs but the model itself", highlight=False)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def history_command(name: str, folder: str | None, as_json: bool) -> None:
    """Every event of a model."""
    events = Registry.open(folder).history(name)
    at, after = Standing(), []
    for e in events:
        at.apply(e)
        after.append({"active": at.active.version if at.active else 0, "shadow": at.shadow.version if at.shadow else 0})
    if as_json:
        print_json({"name": name, "events": [{**asdict(e), **held} for e, held in zip(events, after, strict=True)]})
        return
    print_table(("holds from", "what", "version", "active then", "shadow then", "decided", "by", "why"),
                [(when(e.effective_ns), e.action, e.version, held["active"] or "none", held["shadow"] or "none", when(e.recorded_ns),
                  e.actor, e.reason) for e, held in zip(events, after, strict=True)], name)


def prune_command(keep: int, folder: str | None, as_json: bool) -> None:
    """Delete the files of old versions."""
    gone = Registry.open(folder).prune(keep)
    if as_json:
        print_json({"pruned": [{"name": name, "version": version} for name, version in gone]})
    else:
        out.print("pruned: " + (", ".join(f"{name} {version}" for name, version in gone) or "nothing"), highlight=False)


def repair_command(folder: str | None, as_json: bool) -> int:
    """Verify, and make the database again where it is wanted; 0 where every version can be used."""
    from research.learning.registry_repair import repair
    found = repair(Registry.open(folder).path)
    if as_json:
        print_json(asdict(found))
        return 1 if found.trouble else 0
    how = "made again from the files" + (f", the old one is {found.put_aside}" if found.put_aside else "")
    out.print(f"database {how if found.rebuilt else 'whole'}: {found.versions:,} versions, {found.events:,} events", highlight=False)
    for line in found.trouble:
        err.print(line, highlight=False)
    return 1 if found.trouble else 0


def learners_command(as_json: bool) -> None:
    """What a configuration may name."""
    from operators.learners.river_build import catalogue
    found = catalogue()
    if as_json:
        print_json({"learners": found})
        return
    print_table(("learner", "kind", "parameters", "about"),
                [(e["name"], e["kind"], ", ".join(f"{k}={v}" for k, v in e["parameters"].items()), e["about"]) for e in found])
