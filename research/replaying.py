"""`replay(paths, config=…, strategies=…)`: a recorded stretch through the whole system, with the results in memory or in a sink.

A replay enables the paper account at its start by a control record, which is on the tape and in the audit like any other.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as with_changes
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from operators.assembly import Plan, plan
from operators.market.bars import BarsConfig, check_recorded
from operators.strategies.builtin import BUILTINS, builtin
from operators.strategies.documents import from_data, parse_strategies
from operators.strategies.rules import StrategySpec
from operators.strategies.validation import Known, registry
from research.digests import Digests
from research.learning.resolving import NOW, artefacts_of, known_columns, promotions_between, resolved
from research.rehearsal import rehearse
from research.summary import Summary
from schemas.codec import to_arrow
from schemas.config import Config, parse_config, parse_config_text
from schemas.errors import UserError, unknown
from schemas.frame import Frame
from schemas.intervals import interval_text
from schemas.tables import BARS, LATE, REJECTED, SIGNALS, Rows, TableSpec
from schemas.tables_desk import AUDIT, CONTROL, DECISIONS, EQUITY, FILLS, LEDGER, ORDERS, POSITIONS
from schemas.tables_models import MODEL_TABLES
from sources.tape import Source, open_tape

ENGINES = ("bytewax", "loop")
KEPT = (BARS, LATE, REJECTED, SIGNALS, DECISIONS, ORDERS, FILLS, LEDGER, POSITIONS, EQUITY, AUDIT, *MODEL_TABLES)
"""Tables that a run keeps. Market input is not copied: it is where it was read from."""

Collect = Callable[[Frame], None]


def load_config(config: str | Path | Mapping[str, Any] | Config | None) -> Config:
    """A configuration from a path, a mapping, or as it is."""
    if config is None:
        return Config()
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return parse_config(config, "config")
    try:
        return parse_config_text(Path(config).read_text(encoding="utf-8"), str(config))
    except OSError as error:
        raise UserError(f"{config}: {error.strerror}; give the path of a configuration in YAML") from None
    except UnicodeDecodeError:
        raise UserError(f"{config}: not a text file; give the path of a configuration in YAML") from None


def load_strategies(given: Iterable[Any], known: Known = registry) -> tuple[StrategySpec, ...]:
    """Strategies from names of built-ins, paths of YAML files, rule documents, or as they are. known: what rules may name."""
    specs: list[StrategySpec] = []
    for item in given:
        if isinstance(item, StrategySpec):
            specs.append(item)
        elif isinstance(item, Mapping):
            specs.append(from_data(dict(item), known))
        elif str(item) in BUILTINS:
            specs.append(builtin(str(item)))
        elif str(item).endswith((".yaml", ".yml")):
            try:
                text = Path(str(item)).read_text(encoding="utf-8")
            except OSError as error:
                raise UserError(f"{item}: {error.strerror}; give a strategy's YAML file or one of {', '.join(BUILTINS)}") from None
            specs.extend(parse_strategies(text, str(item), known))
        else:
            raise unknown("strategy", str(item), BUILTINS)
    return tuple(specs)


def make_plan(config: str | Path | Mapping[str, Any] | Config | None, strategies: Sequence[Any] | None, source: Any = None) -> Plan:
    """The plan of a run; `strategies` replace those of the configuration.

    Where the source records bars longer than a minute, the default bars and the built-in strategies take their interval;
    bars and strategies of one's own that the recording cannot give are a UserError.
    """
    loaded = load_config(config)
    if strategies is not None:
        loaded = with_changes(loaded, strategies=tuple(strategies), allocation=())
    loaded = resolved(loaded, getattr(source, "ts_range", (NOW, NOW))[0])
    store = artefacts_of(loaded)
    specs = load_strategies(loaded.strategies, known_columns(loaded.models))
    recorded: tuple[int, ...] = getattr(source, "recorded_ns", ())
    if not recorded:
        return plan(loaded, specs, store)
    base = max(recorded)
    if loaded.intervals_ns == Config.intervals_ns and base > Config.intervals_ns[0]:
        loaded = with_changes(loaded, intervals_ns=(base,))
    specs = tuple(
        with_changes(spec, timeframe=interval_text(base)) if str(given) in BUILTINS and spec.interval_ns < base else spec
        for given, spec in zip(loaded.strategies, specs, strict=False)
    ) if len(specs) == len(loaded.strategies) else specs
    made = plan(loaded, specs, store)
    for recorded_ns in recorded:
        check_recorded(BarsConfig(made.intervals_ns, loaded.tick_bars, loaded.volume_bars, loaded.dollar_bars), recorded_ns)
    return made


def steered(made: Plan, source: Source, frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, with the record that enables trading before the first row, and promotions before the first row that is not earlier."""
    return enabled(promoted(frames, promotions_between(made.models, *source.ts_range)))


def promoted(frames: Iterable[Frame], promotions: Rows) -> Iterator[Frame]:
    """The frames with promotions, each at the place of the first row that is not earlier than it."""
    done = 0
    for frame in frames:
        here = []
        while done < len(promotions):
            row = promotions[done:done + 1].copy()
            seqs = [int(rows["seq"][at]) for rows in frame.tables.values()
                    if (at := int(np.searchsorted(rows["ts_event_ns"], row["ts_event_ns"][0]))) < len(rows)]
            if not seqs:
                break
            row["seq"], row["symbol"] = min(seqs), -1
            here.append(row)
            done += 1
        yield frame.with_tables(promotions=np.concatenate(here)) if here else frame


def enabled(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, with the record that enables trading before the first row."""
    first = True
    for frame in frames:
        if first:
            first = False
            control = CONTROL.empty(1)
            starts = [int(rows["ts_event_ns"][0]) for rows in frame.tables.values() if len(rows)]
            control["ts_event_ns"], control["symbol"] = min(starts, default=0), -1
            control["seq"] = min((int(rows["seq"][0]) for rows in frame.tables.values() if len(rows)), default=0) - 1
            frame = frame.with_tables(control=control)
        yield frame


class Tracker:
    """Follows a run frame by frame: counts, summary and hashes, and hands each frame on."""

    def __init__(self, made: Plan, collect: Collect | None, hashes: bool = True) -> None:
        self.summary = Summary(made.config.policy)
        self.digests = Digests(made.names)
        self.rows = 0
        self.symbols: tuple[str, ...] = ()
        self.ts_range: list[int] = []
        self._collect = collect
        self._hashes = hashes

    def __call__(self, frame: Frame) -> None:
        self.symbols = frame.symbols
        self.summary.add(frame)
        if self._hashes:
            self.digests.add(frame)
        if self._collect is not None:
            self._collect(frame)


def warm_up(made: Plan) -> float:
    """Compile, or load, every kernel that the plan needs; returns the seconds it took."""
    started = time.perf_counter()
    from research.warm import warm_plan
    warm_plan(made)
    return time.perf_counter() - started


def check_engine(engine: str, workers: int) -> None:
    """UserError where the engine or its number of workers is none."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if workers < 1 or (engine == "loop" and workers != 1):
        raise UserError(f"--workers {workers} with the {engine} engine; the loop has one worker, bytewax one or more")


def run_plan(made: Plan, frames: Iterable[Frame], collect: Collect, engine: str = "loop", workers: int = 1) -> None:
    """Run frames through the plan on an engine; the rows are the same on each."""
    check_engine(engine, workers)
    if engine == "loop":
        rehearse(made, frames, collect)
    else:
        from dataflows.backtest import run_backtest
        run_backtest(made, iter(frames), collect, workers)


def counted(frames: Iterable[Frame], seen: dict[str, int], progress: Callable[[int], None] | None) -> Iterator[Frame]:
    """The frames, counting their input rows and telling `progress`."""
    for frame in frames:
        n = sum(len(rows) for rows in frame.tables.values())
        seen["rows"] = seen.get("rows", 0) + n
        for name, rows in frame.tables.items():
            seen[name] = seen.get(name, 0) + len(rows)
        if progress is not None:
            progress(seen["rows"])
        yield frame


def summarise(made: Plan, tracker: Tracker, seen: Mapping[str, int], run_id: str, seconds: float, seconds_total: float,
              equity_final: int) -> dict[str, Any]:
    """The object that `--json` prints."""
    counts = {name: n for name, n in seen.items() if name != "rows"}
    counts.update(tracker.summary.counts)
    rows = seen.get("rows", 0)
    return {
        "run_id": run_id, "rows": rows, "seconds": seconds, "seconds_total": seconds_total,
        "rows_per_second": rows / seconds if seconds > 0 else 0.0, "counts": counts,
        **tracker.summary.values(equity_final), "hashes": tracker.digests.values(), "record_hashes": tracker.digests.records(),
    }


class FinalEquity:
    """Keeps the account's equity at the last frame: what the ledger says, marked at the last prices."""

    def __init__(self, capital: int) -> None:
        self.value = capital

    def see(self, frame: Frame) -> None:
        if "account" in frame.tables:
            self.value = int(frame.tables["account"]["equity"][-1])


class Run:
    """A finished run: its tables as Arrow, its summary, its report."""

    def __init__(self, made: Plan, symbols: tuple[str, ...], frames: list[Frame], summary: dict[str, Any],
                 source: Mapping[str, Any]) -> None:
        self.plan, self.symbols, self.frames, self.summary, self.source = made, symbols, frames, summary, dict(source)

    def table(self, spec: TableSpec) -> pa.Table:
        """All rows of one table."""
        parts = [rows for frame in self.frames if len(rows := frame.rows(spec))]
        rows = np.concatenate(parts) if parts else spec.empty(0)
        return to_arrow(spec, rows, self.symbols, self.plan.names)

    bars = cached_property(lambda self: self.table(BARS))
    signals = cached_property(lambda self: self.table(SIGNALS))
    decisions = cached_property(lambda self: self.table(DECISIONS))
    orders = cached_property(lambda self: self.table(ORDERS))
    fills = cached_property(lambda self: self.table(FILLS))
    ledger = cached_property(lambda self: self.table(LEDGER))
    positions = cached_property(lambda self: self.table(POSITIONS))
    equity = cached_property(lambda self: self.table(EQUITY))
    audit = cached_property(lambda self: self.table(AUDIT))
    rejected = cached_property(lambda self: self.table(REJECTED))
    late = cached_property(lambda self: self.table(LATE))

    @cached_property
    def features(self) -> pa.Table:
        """One row per closed bar, a column per feature; of several timeframes, the rows carry their interval."""
        from schemas.codec_features import features_to_arrow
        tables = [features_to_arrow(found, self.symbols) for frame in self.frames for found in frame.features if len(found.bars)]
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})

    def report(self, path: str | Path) -> Path:
        """Write the report, one self-contained HTML file; returns its path."""
        from research.report import write_report
        return write_report(self, Path(path))


def replay_plan(made: Plan, source: Source, *, engine: str = "loop", workers: int = 1, batch_rows: int | None = None,
                run_id: str = "memory", progress: Callable[[int], None] | None = None) -> Run:
    """Run a plan over a source and keep the results in memory."""
    started = time.perf_counter()
    kept: list[Frame] = []
    names = {spec.name for spec in KEPT}
    tracker = Tracker(made, lambda frame: kept.append(with_changes(frame, tables={k: v for k, v in frame.tables.items() if k in names})))
    seen: dict[str, int] = {}
    last = FinalEquity(tracker.summary.capital)

    def collect(frame: Frame) -> None:
        last.see(frame)
        tracker(frame)

    begun = time.perf_counter()
    frames = counted(source.frames(batch_rows or made.config.batch_rows), seen, progress)
    run_plan(made, steered(made, source, frames), collect, engine, workers)
    seconds = time.perf_counter() - begun
    summary = summarise(made, tracker, seen, run_id, seconds, time.perf_counter() - started, last.value)
    paths = [r.path for r in getattr(source, "recordings", ())]
    return Run(made, tracker.symbols, kept, summary, {"data_hash": source.data_hash, "paths": paths})


def replay(paths: Sequence[str] | str | Source, config: str | Path | Mapping[str, Any] | Config | None = None,
           strategies: Sequence[Any] | None = None, *, engine: str = "loop", workers: int = 1, batch_rows: int | None = None,
           ts_from: int | None = None, ts_to: int | None = None, run_id: str = "memory",
           progress: Callable[[int], None] | None = None) -> Run:
    """Replay recorded data and keep the results in memory.

    paths: a path, several, or a source. ts_from, ts_to: event time in ns. Raises UserError for what the caller can mend.
    """
    started = time.perf_counter()
    if isinstance(paths, str):
        paths = [paths]
    source: Any = open_tape([str(p) for p in paths], ts_from=ts_from, ts_to=ts_to) if isinstance(paths, Sequence) else paths
    made = make_plan(config, strategies, source)
    warm_up(made)
    run = replay_plan(made, source, engine=engine, workers=workers, batch_rows=batch_rows, run_id=run_id, progress=progress)
    run.summary["seconds_total"] = time.perf_counter() - started
    return run
