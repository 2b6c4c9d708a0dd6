"""What `penstock model train`, `model retrain` and `walk-forward` do."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.output import err, out, print_json, print_table, progress
from schemas.config_models import LabelConfig, label_document, parse_label
from schemas.errors import UserError
from schemas.intervals import interval_text, parse_interval

DEFAULT_TIMEFRAME = "1m"
DEFAULT_BARS_AHEAD = 15
_WORD = re.compile(r"[^\s(]+(?:\([^)]*\)\S*)?")
"""A feature among several: spaces in its brackets are its own."""
SHOWN = ("accuracy", "ic", "auc", "log_loss", "rmse", "r2")


@dataclass(frozen=True)
class DataOptions:
    """Which rows, as the command line says it."""

    paths: Sequence[str] | None
    run: str | None
    timeframe: str | None
    horizon: str | None
    features: Sequence[str] | None
    label: str
    barriers: float
    border: float
    limit: int
    ts_from: str | None
    ts_to: str | None
    warehouse: str | None


@dataclass(frozen=True)
class ModelOptions:
    """Which model, as the command line says it."""

    kind: str
    task: str
    parameters: Sequence[str] | None
    class_weight: str
    seed: int
    early_stopping: int
    valid_share: float
    embargo: str | None
    threads: int

    def recipe(self) -> Any:
        """Checked, so that a mistake is told before any data is read."""
        from operators.learners.boosted import xgboost_module
        from research.learning.boosting import Recipe
        made = Recipe(self.kind, self.task, parameters_of(self.parameters or ()), self.seed, self.class_weight, self.early_stopping,
                      self.threads)
        if self.kind == "xgboost":
            xgboost_module()
        return made


@dataclass(frozen=True)
class SearchOptions:
    """How parameters are searched."""

    trials: int
    storage: str | None
    study: str
    worker: int


def parameters_of(given: Sequence[str]) -> dict[str, float]:
    """`num_leaves=31` and so on to numbers."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f'--param "{text}" is not NAME=NUMBER, such as num_leaves=31') from None
    return found


def label_of(o: DataOptions, interval_ns: int) -> LabelConfig:
    """The label's definition."""
    horizon = o.horizon or interval_text(DEFAULT_BARS_AHEAD * interval_ns)
    return parse_label({"kind": o.label, "horizon": horizon, "upper": o.barriers, "lower": o.barriers, "threshold": o.border}, "--label")


def embargo_of(given: str | None, label: LabelConfig) -> int:
    """The embargo in ns: the horizon where nothing is said; `0` is none."""
    from research.learning.splits import parse_duration
    if given is None:
        return label.horizon_ns
    return 0 if given == "0" else parse_duration(given, "--embargo")


def check_limit(limit: int) -> None:
    if limit < 0:
        raise UserError(f"--limit {limit} is negative; 0 is all rows")


def load(o: DataOptions, quiet: bool) -> Any:
    """The data set that the options ask for."""
    from research.learning.dataset import DEFAULT_FEATURES
    features = tuple(word for text in o.features or () for word in _WORD.findall(text)) or DEFAULT_FEATURES
    check_limit(o.limit)
    if bool(o.paths) == bool(o.run):
        raise UserError("say what to learn from: --data PATH… or --run RUN" + ("; not both" if o.run else ""))
    if o.run:
        interval_ns = parse_interval(o.timeframe or DEFAULT_TIMEFRAME, "--timeframe")
        return of_run(o.run, o.warehouse, features, interval_ns, label_of(o, interval_ns), o.limit, quiet)
    source = open_data(o.paths or (), o.ts_from, o.ts_to)
    recorded = getattr(source, "recorded_ns", ())
    interval_ns = parse_interval(o.timeframe, "--timeframe") if o.timeframe else max(recorded, default=parse_interval(DEFAULT_TIMEFRAME))
    return of_source(source, o.paths or (), features, interval_ns, label_of(o, interval_ns), o.limit, quiet)


def open_data(paths: Sequence[str], ts_from: str | None, ts_to: str | None) -> Any:
    """The tape of --data."""
    from cli.replaying import open_source, parse_time
    return open_source(list(paths), parse_time(ts_from, "--from"), parse_time(ts_to, "--to"))


def of_source(source: Any, paths: Sequence[str], features: Sequence[str], interval_ns: int, label: LabelConfig, limit: int,
              quiet: bool) -> Any:
    """The data set of a tape, with a progress bar."""
    from research.learning.dataset import dataset
    with progress("making the data set", source.rows_total, quiet) as update:
        return dataset(source, features, interval_ns, label, limit=limit, told={"paths": list(paths)}, progress=update)


def of_run(run: str, warehouse: str | None, features: Sequence[str], interval_ns: int, label: LabelConfig, limit: int, quiet: bool) -> Any:
    """The data set of a stored run."""
    from cli.warehousing import warehouse_at
    from research.learning.dataset import dataset_of_run
    from research.stored import StoredRun
    with warehouse_at(warehouse) as url, progress(f"reading the bars of run {run}", None, quiet):
        return dataset_of_run(StoredRun(url, run), features, interval_ns, label, limit=limit)


def tell_data(data: Any, quiet: bool) -> None:
    """Say what was left out."""
    if quiet:
        return
    c = data.counts
    parts = [f"{c['missing']:,} without a feature"] * bool(c["missing"]) + [f"{c['unlabelled']:,} without a label"] * bool(c["unlabelled"])
    parts += [f"{c['before_limit']:,} before the last {len(data):,}"] * bool(c["before_limit"])
    left = f"; left out: {', '.join(parts)}" if parts else ""
    err.print(f"{len(data):,} rows of {c['bars']:,} bars, {len(data.features)} features, {data.up.mean():.1%} up{left}", highlight=False)


def searched(data: Any, recipe: Any, valid_share: float, embargo_ns: int, s: SearchOptions, quiet: bool) -> tuple[Any, dict[str, Any], Any]:
    """The recipe with the best parameters, what a card says of the search, and its trials; as given where there is none."""
    if s.trials <= 0:
        return recipe, {}, None
    from dataclasses import replace

    from research.learning.search import search
    from research.learning.splits import holdout
    rows = holdout(data.ts_made_ns, data.ts_end_ns, valid_share, embargo_ns).train if valid_share else None
    with progress("searching parameters", s.trials, quiet) as update:
        found = search(data, recipe, s.trials, rows=rows, embargo_ns=embargo_ns, storage=s.storage, study=s.study, worker=s.worker,
                       progress=lambda done, total, best: update(done, f"trial {done} of {total}, loss {best:.5f}"))
    return replace(recipe, parameters=found.parameters), found.lineage(), found


def train_command(o: DataOptions, m: ModelOptions, s: SearchOptions, name: str, tag: str, folder: str | None, as_json: bool) -> None:
    """Read, search, train, register, say."""
    started = time.perf_counter()
    recipe = m.recipe()
    from research.learning.registry import Registry, check_words
    check_words(name, tag)
    registry = Registry.open(folder)
    data = load(o, as_json)
    tell_data(data, as_json)
    _train(data, recipe, m.valid_share, embargo_of(m.embargo, data.label), s, name, tag, None, registry, as_json, started)


def _train(data: Any, recipe: Any, valid_share: float, embargo_ns: int, s: SearchOptions, name: str, tag: str, parent: int | None,
           registry: Any, as_json: bool, started: float) -> None:
    from research.learning.training import train
    recipe, lineage, found = searched(data, recipe, valid_share, embargo_ns, s, as_json)
    with progress(f"training {recipe.model}", recipe.parameters["rounds"], as_json) as update:
        artefact = train(data, recipe.model, recipe.parameters, recipe.task, recipe.seed, recipe.class_weight, recipe.early_stopping,
                         valid_share, name=name, embargo_ns=embargo_ns, threads=recipe.threads,
                         lineage={**lineage, **({"parent": parent} if parent else {})}, progress=lambda done, total: update(done))
    version = registry.register(artefact, tag, parent=parent)
    kept, about = registry.get(name, version), artefact.card.about
    shown = {
        "name": name, "version": version, "tag": tag, "parent": parent or 0, "registry": str(registry.path), "digest": kept.digest,
        "model": recipe.model, "task": recipe.task, "timeframe": interval_text(data.interval_ns), "features": list(data.features),
        "label": label_document(data.label), "parameters": dict(recipe.parameters), "rounds": about["rounds"], "data": about["data"],
        "trained": about["trained"], "metrics": about["metrics"], "in_sample": about["in_sample"], "importance": about["importance"],
        "search": {**lineage["search"], "history": found.history} if found else None, "seconds": time.perf_counter() - started,
    }
    if as_json:
        print_json(shown)
    else:
        print_trained(shown)


def print_trained(s: Mapping[str, Any]) -> None:
    """What was trained, for people."""
    rows = [(key, _figure(s["in_sample"].get(key)), _figure(s["metrics"].get(key))) for key in SHOWN
            if s["in_sample"].get(key) is not None]
    rows.insert(0, ("rows", f"{s['in_sample']['rows']:,}", f"{s['metrics'].get('rows', 0):,}"))
    print_table(("", "trained on", "after it"), rows, f"{s['name']} version {s['version']}: {s['model']}, {s['rounds']} trees, "
                f"{s['label']['kind']} {s['label']['horizon']} on {s['timeframe']}")
    most = ", ".join(f"{row['feature']} {row['gain']:.0%}" for row in s["importance"][:6])
    out.print(f"most gain: {most}", highlight=False, markup=False)
    out.print(f"registered in {s['registry']} as {s['name']}@{s['version']}; it is live after: penstock model promote {s['name']} "
              f"{s['version']}", highlight=False, markup=False)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def retrain_command(name: str | None, base: str | None, paths: Sequence[str] | None, run: str | None, limit: int, tag: str,
                    s: SearchOptions, ts_from: str | None, ts_to: str | None, warehouse: str | None, folder: str | None,
                    as_json: bool) -> None:
    """The recipe of a version on new data."""
    started = time.perf_counter()
    from research.learning.registry import Registry, check_words
    from research.learning.training import recipe_of
    registry = Registry.open(folder)
    if name is None:
        names = registry.names()
        if len(names) != 1:
            raise UserError(f"say which model: {', '.join(names)}" if names
                            else f"no model in {registry.path}; penstock model train makes one")
        name = names[0]
    check_limit(limit)
    check_words(name, tag)
    parent = registry.resolve(name, base)
    card = registry.get(name, parent).card
    recipe, valid_share, embargo_ns = recipe_of(card)
    known = card.about.get("data", {}).get("source", {})
    if paths and run:
        raise UserError("say what to learn from: --data PATH… or --run RUN; not both")
    if not paths and not run:
        paths, run = known.get("paths"), known.get("run")
    if run:
        data = of_run(str(run), warehouse, card.features, card.interval_ns, card.label, limit, as_json)
    elif paths:
        data = of_source(open_data(paths, ts_from, ts_to), paths, card.features, card.interval_ns, card.label, limit, as_json)
    else:
        raise UserError(f"{name} version {parent} does not say what it was trained on; give --data PATH… or --run RUN")
    tell_data(data, as_json)
    _train(data, recipe, valid_share, embargo_ns, s, name, tag, parent, registry, as_json, started)


def walk_forward_command(o: DataOptions, m: ModelOptions, train_for: str, test: str, anchored: bool, cost_bps: float, threshold: float,
                         target: str | None, as_json: bool) -> None:
    """Walk forward, and say what came out."""
    started = time.perf_counter()
    from research.learning.splits import parse_duration
    from research.learning.walk_forward import fit_by, walk_forward
    recipe, train_ns, test_ns = m.recipe(), parse_duration(train_for, "--train"), parse_duration(test, "--test")
    if cost_bps < 0 or threshold < 0:
        raise UserError(f"--cost-bps {cost_bps:g} and --threshold {threshold:g} are from 0 on")
    data = load(o, as_json)
    tell_data(data, as_json)
    embargo_ns = embargo_of(m.embargo, data.label)
    with progress("walking forward", None, as_json) as update:
        made = walk_forward(data, train_ns, test_ns, embargo_ns, anchored, fit_by(recipe, m.valid_share, embargo_ns), task=m.task,
                            name=m.kind, cost_bps=cost_bps, threshold=threshold,
                            progress=lambda done, total, note: update(done, f"window {done} of {total}, {note}"))
    shown = {**made.document, "recipe": {"model": recipe.model, "parameters": dict(recipe.parameters), "seed": recipe.seed,
                                         "class_weight": recipe.class_weight}, "seconds": time.perf_counter() - started}
    if target:
        from research.learning.walk_report import write_walk
        shown["report"] = str(write_walk(made.document, Path(target)))
    if as_json:
        print_json(shown)
    else:
        print_walk(shown)


def print_walk(s: Mapping[str, Any]) -> None:
    """The windows and the whole, for people."""
    from research.report_page import percent, when
    last = "log_loss" if s["task"] == "classify" else "r2"
    rows = [(when(w["test_from_ns"], False), w["rows"], percent(w["accuracy"]), f"{w['ic']:.4f}", f"{w[last]:.5f}", w["trades"],
             percent(w["net"], sign=True)) for w in s["windows"]]
    o, t = s["overall"], s["trading"]
    rows.append(("all", o["rows"], percent(o["accuracy"]), f"{o['ic']:.4f}", f"{o[last]:.5f}", t["trades"], percent(t["net"], sign=True)))
    print_table(("test from", "rows", "accuracy", "IC", last.replace("_", " "), "trades", "net"), rows,
                f"{s['model']}, {s['horizon']} ahead on {s['timeframe']}: train {s['train']}, test {s['test']}, embargo {s['embargo']}")
    out.print(f"gross {percent(t['gross'], sign=True)}, net {percent(t['net'], sign=True)} of the capital at {t['cost_bps']:g} bps a side; "
              f"a trade earns {t['gross_bps_per_trade']:.2f} bps before costs and breaks even at {t['break_even_cost_bps']:.2f} bps a side",
              highlight=False, markup=False)
    if "report" in s:
        out.print(f"report: {s['report']}", highlight=False, markup=False)
