"""What `penstock model evaluate`, `model certify` and `model certificates` do."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.learning_runs import rules_of_run, rules_of_source, setting_of
from cli.output import err, out, print_json, print_table
from cli.training_runs import check_limit, of_run, of_source, open_data, tell_data
from schemas.config_learn import LearnConfig
from schemas.errors import UserError
from schemas.intervals import parse_interval

SHOWN = ("rows", "accuracy", "ic", "auc", "log_loss", "brier", "calibration_error", "rmse", "mae", "r2")


@dataclass(frozen=True)
class JudgeOptions:
    """Which version, and on which data."""

    reference: str
    data: Sequence[str] | None
    run: str | None
    limit: int
    everything: bool
    ts_from: str | None
    ts_to: str | None
    warehouse: str | None
    registry: str | None
    as_json: bool


def _judged(o: JudgeOptions, rules: Sequence[Any] = (), config: Any = None) -> tuple[Any, Any, Any]:
    """A version with its forecasts of the rows that count, and what the rules did meanwhile."""
    from research.learning.material import outcomes_of
    from research.learning.registry import Registry
    check_limit(o.limit)
    if bool(o.data) == bool(o.run):
        raise UserError("say what to judge it on: --data PATH… or --run RUN" + ("; not both" if o.run else ""))
    registry = Registry.open(o.registry)
    name, _, wanted = o.reference.partition("@")
    artefact = registry.get(name, registry.resolve(name, wanted or None))
    card, baseline = artefact.card, None
    if o.run:
        from cli.warehousing import warehouse_at
        from research.stored import StoredRun
        with warehouse_at(o.warehouse) as url:
            found = of_run(o.run, url, card.features, card.interval_ns, card.label, o.limit, o.as_json)
            if rules:
                baseline = rules_of_run(rules, StoredRun(url, o.run), card.interval_ns)
    else:
        source = open_data(o.data or (), o.ts_from, o.ts_to)
        found = of_source(source, o.data or (), card.features, card.interval_ns, card.label, o.limit, o.as_json)
        baseline = rules_of_source(rules, source, card.interval_ns, config)
    tell_data(found, o.as_json)
    rows = np.arange(len(found)) if o.everything else _unseen(found, card, o.as_json)
    return artefact, outcomes_of(found, artefact, rows, f"{name} version {card.version}"), baseline


def _unseen(data: Any, card: Any, quiet: bool) -> Any:
    """The rows after those that a version was trained on; UserError where there are none."""
    fresh = data.ts_made_ns > int(card.about.get("data", {}).get("labels_to_ns", 0))
    if not fresh.any():
        raise UserError(f"{card.name} version {card.version} was trained on all of this; give later data, or --all to see how it fits "
                        "its own")
    if not fresh.all() and not quiet:
        err.print(f"{int((~fresh).sum()):,} rows up to the end of its training data left out; --all takes them too", highlight=False)
    return np.flatnonzero(fresh)


def evaluate_command(judge: JudgeOptions, window: str, target: str | None) -> None:
    """Everything about a version on some data."""
    from research.learning.comparing import intervals
    from research.learning.evaluation import evaluation
    window_ns = parse_interval(window, "--window")
    artefact, o, _ = _judged(judge)
    found = {**evaluation(o, window_ns), "name": artefact.card.name, "version": artefact.card.version, "digest": artefact.digest,
             "intervals": intervals(o, LearnConfig()), "in_sample": judge.everything}
    if target:
        from research.learning.evaluation_page import write_evaluation
        found["report"] = str(write_evaluation(found, Path(target)))
    if judge.as_json:
        print_json(found)
        return
    print_table(("figure", o.name), [(key, _figure(key, found["overall"][key])) for key in SHOWN])
    for what in ("symbols", "regimes"):
        print_table((what[:-1], *SHOWN[:5]), [(name, *(_figure(key, m[key]) for key in SHOWN[:5])) for name, m in found[what].items()])
    if found["reliability"]:
        print_table(("probability", "rows", "said", "came true"), [
            (f"{b['low']:.1f} to {b['high']:.1f}", b["rows"], f"{b['said']:.3f}", f"{b['came_true']:.3f}") for b in found["reliability"]],
            "calibration")
    low, high = found["intervals"]["accuracy"]["low"], found["intervals"]["accuracy"]["high"]
    if low is not None:
        out.print(f"right directions lie between {low:.2%} and {high:.2%} with 95 % confidence", highlight=False)
    if target:
        out.print(found["report"], highlight=False)


def _figure(key: str, value: float) -> str:
    return "–" if value != value else f"{value:,.0f}" if key == "rows" else f"{value:.4f}"


def certify_command(judge: JudgeOptions, config: str | None) -> int:
    """0 where it is certified, 1 where it is refused; either way the certificate is in the chain."""
    from research.learning.governance import CERTIFIED, FILE, certify, fallback_plan
    from research.learning.registry import Registry
    setting = setting_of(config, None)
    artefact, o, baseline = _judged(judge, setting.rules, setting.config)
    registry, card = Registry.open(judge.registry), artefact.card
    before = registry.active_at(card.name, time.time_ns())
    plan = fallback_plan(before if before != card.version else 0, [r.name for r in setting.rules], setting.learn.accuracy_floor)
    data = {"paths": list(judge.data or ()), "run": judge.run or "", "ts_from_ns": int(o.ts_ns.min()), "ts_to_ns": int(o.ts_end_ns.max())}
    about = {"name": card.name, "version": card.version, "digest": artefact.digest, "in_sample": judge.everything, "data": data}
    made = certify(registry.path / FILE, about, o, baseline, setting.learn.limits, plan, time.time_ns())
    if judge.as_json:
        print_json(made)
    else:
        print_table(("check", "what it asks", "observed", "threshold", "verdict"), [
            (c["name"], c["meaning"], "–" if c["observed"] is None else f"{c['observed']:.4g}", f"{c['sense']} {c['bound']:g}",
             "passed" if c["passed"] else "FAILED") for c in made["checks"]], f"{o.name}: {made['verdict']}, certificate {made['number']}")
        for k, step in enumerate(plan, 1):
            out.print(f"if it fails, {k}: {step}", highlight=False)
    return 0 if made["verdict"] == CERTIFIED else 1


def certificates_command(folder: str | None, as_json: bool) -> int:
    """0 where the chain holds."""
    from cli.model_registry import when
    from research.learning.governance import FILE, certificates, verify_certificates
    from research.learning.registry import Registry
    path = Registry.open(folder).path / FILE
    found, held = verify_certificates(path), certificates(path)
    if as_json:
        print_json({**found, "path": str(path), "list": held})
    else:
        print_table(("number", "model", "version", "verdict", "made", "digest"), [
            (c["number"], c["model"].get("name", ""), c["model"].get("version", ""), c["verdict"], when(c["made_ns"]), c["digest"][:16])
            for c in held])
        out.print("the chain holds" if found["ok"] else f"{path} line {found['broken']} {found['why']}", highlight=False)
    return 0 if found["ok"] else 1
