"""What `penstock learn` does, and what a configuration says of learning."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from cli.output import err, out, print_json, progress
from cli.training_runs import check_limit, of_source, open_data, tell_data
from schemas.config_learn import LearnConfig, check_learn
from schemas.errors import UserError, unknown


@dataclass(frozen=True)
class LearnOptions:
    """The command line of `penstock learn`."""

    config: str | None
    name: str | None
    once: bool
    manual: str | None
    approve: bool
    abort: str | None
    data: Sequence[str] | None
    run: str | None
    limit: int
    every_s: float
    warehouse: str | None
    registry: str | None
    as_json: bool


@dataclass(frozen=True)
class Setting:
    """A configuration as learning needs it. names: of the registry, with what the configuration calls them. rules: strategies that name no
    model."""

    config: Any
    learn: LearnConfig
    names: dict[str, str]
    rules: tuple[Any, ...]


def setting_of(path: str | None, name: str | None) -> Setting:
    """Read a configuration; UserError where there is no model in it, or not this one."""
    from cli.secrets import expanded
    from research.learning.baseline import rules_alone
    from research.learning.resolving import known_columns, registered
    from research.replaying import load_config, load_strategies
    loaded = expanded(load_config(path))
    names = {m.registry: m.name for m in registered(loaded.models)}
    if name is not None:
        called = {m.name: m.registry for m in registered(loaded.models)}
        found = called.get(name, name)
        if names and found not in names:
            raise unknown("registered model of the configuration", name, [*names, *called])
        names = {found: names.get(found, found)}
    if path is None:
        return Setting(loaded, LearnConfig(), names, ())
    specs = load_strategies(loaded.strategies, known_columns(loaded.models))
    return Setting(loaded, check_learn(loaded.learn or LearnConfig()), names, rules_alone(specs, [m.name for m in loaded.models]))


def rules_of_source(rules: Sequence[Any], source: Any, interval_ns: int, config: Any) -> Any:
    """What the rules did on a tape, None where there are none; a built-in shorter than the recording's bars takes theirs."""
    from operators.strategies.builtin import BUILTINS
    from research.learning.baseline import FRAME_ROWS, baseline_of_frames
    from schemas.intervals import interval_text
    if not rules:
        return None
    base = max(getattr(source, "recorded_ns", ()), default=0)
    fitted = [replace(r, timeframe=interval_text(base)) if r.name in BUILTINS and r.interval_ns < base else r for r in rules]
    return baseline_of_frames(fitted, source.frames(FRAME_ROWS), interval_ns, conflict=config.conflict)


def rules_of_run(rules: Sequence[Any], run: Any, interval_ns: int) -> Any:
    """What the rules did in a stored run, None where there are none."""
    import pyarrow.compute as pc

    from research.learning.baseline import baseline_of_signals
    from schemas.codec import from_arrow
    from schemas.tables import BARS, SIGNALS
    names = tuple(r.name for r in rules if r.name in run.plan.strategy_names)
    if not names:
        return None
    mine = [r for r in rules if r.name in names]
    bars = from_arrow(BARS, run.table(BARS, "bar_kind = 'time' AND interval_ns = {i:Int64}", i=interval_ns), run.symbols)
    table = run.signals
    signals = from_arrow(SIGNALS, table.filter(pc.is_in(table["strategy"].cast("string"), value_set=_strings(names))), run.symbols, names)
    return baseline_of_signals(mine, bars, signals)


def _strings(names: Sequence[str]) -> Any:
    import pyarrow as pa
    return pa.array(names, pa.string())


class Reader:
    """Gives a manager its material, from paths or from a run that is opened again at every look."""

    def __init__(self, o: LearnOptions, setting: Setting, url: str | None) -> None:
        self.o, self.setting, self.url = o, setting, url
        self.run: Any = None

    def open(self) -> None:
        """Look at the run as it is now."""
        if self.url is not None:
            from research.stored import StoredRun
            self.run = StoredRun(self.url, str(self.o.run))

    def provide(self, card: Any) -> Any:
        """The material for a card's columns and label."""
        from research.learning.dataset import dataset_of_run
        from research.learning.material import Material
        limit = self.o.limit or self.setting.learn.limit
        if self.run is not None:
            data = dataset_of_run(self.run, card.features, card.interval_ns, card.label, limit=limit)
            return Material(data, rules_of_run(self.setting.rules, self.run, card.interval_ns))
        paths = tuple(self.o.data or self.setting.learn.data)
        source = open_data(paths, None, None)
        data = of_source(source, paths, card.features, card.interval_ns, card.label, limit, self.o.as_json)
        tell_data(data, self.o.as_json)
        return Material(data, rules_of_source(self.setting.rules, source, card.interval_ns, self.setting.config))

    def feed(self, card: Any, name: str) -> Any:
        """The scores of the run, None where there is no run."""
        from research.learning.watching import StoredFeed
        if self.run is None:
            return None
        return StoredFeed(self.run, self.setting.names[name], card.task, card.interval_ns, -(-card.label.horizon_ns // card.interval_ns))


def learn_command(o: LearnOptions) -> None:
    """Look once, or until asked to stop."""
    from cli.stopping import stopping
    from cli.warehousing import warehouse_at
    check_limit(o.limit)
    setting = setting_of(o.config, o.name)
    if not setting.names:
        raise UserError("no registered model to learn: give --name NAME, or a configuration with `models: {trees: {kind: registered, "
                        "name: NAME}}`")
    if o.data and o.run:
        raise UserError("--data and --run: give one of them")
    steering = o.approve or o.abort is not None
    if not steering and not (o.data or o.run or setting.learn.data):
        raise UserError("say what to learn from: --data PATH…, --run RUN, or `learn: {data: [PATH, …]}` in the configuration")
    if not o.every_s > 0:
        raise UserError(f"--every {o.every_s:g} is not a number of seconds above 0")
    with stopping() as asked, ExitStack() as stack:
        url = stack.enter_context(warehouse_at(o.warehouse)) if o.run else None
        reader = Reader(o, setting, url)
        manual = o.manual or ""
        while True:
            reader.open()
            for name in setting.names:
                _look(o, setting, reader, name, manual, asked.is_set)
            manual = ""
            if o.once or steering or asked.wait(o.every_s):
                return


def _look(o: LearnOptions, setting: Setting, reader: Reader, name: str, manual: str, asked: Callable[[], bool]) -> None:
    """One look at one model; then the topic is told, where there is one."""
    from cli.model_registry import publish
    from research.learning.manager import Manager, Stopped
    from research.learning.registry import Registry
    registry = Registry.open(o.registry)
    card = registry.get(name, registry.resolve(name)).card
    with progress(f"learning {name}", 1.0, o.as_json) as update:
        manager = Manager(
            registry, name, setting.learn, reader.provide, time.time_ns, feed=reader.feed(card, name),
            rule_names=tuple(r.name for r in setting.rules), tell=lambda event: _tell(event, o.as_json),
            progress=lambda what, done, total: update(done / max(1, total), what), stopping=asked)
        try:
            if o.approve:
                found = manager.approve()
            elif o.abort is not None:
                ended = manager.abort(o.abort)
                found = {"status": ended.status, "cycle": ended.number, "version": ended.version, "reason": ended.reason}
            else:
                found = manager.once(manual)
        except Stopped as stopped:
            found = {"status": "stopped", "reason": str(stopped)}
    if setting.config.kafka is not None:
        found["published"] = publish(registry, setting.config, o.config)
    report = manager.cycles.folder(found.get("cycle", 0)) / "report.md"
    if report.exists():
        found["report"] = str(report)
    if o.as_json:
        print_json({"event": "look", "name": name, **found})
    elif found["status"] != "idle" or o.once:
        watched = (found.get("watch") or {}).get("why", "")
        err.print(f"{name}: {found['status']}" + (f", version {found['version']}" if found.get("version") else "")
                  + (f": {found['reason']}" if found.get("reason") else f" ({watched})" if watched else ""), highlight=False, markup=False)
        if report.exists():
            out.print(str(report), highlight=False)


def _tell(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    said = event.get("why") or event.get("reason") or event.get("gates") or ""
    if isinstance(said, dict):
        said = ", ".join(f"{gate} {verdict}" for gate, verdict in said.items())
    text = "; ".join(said) if isinstance(said, list) else said
    err.print(f"{event['name']}: {event['event']} {text}".rstrip(), highlight=False, markup=False)
