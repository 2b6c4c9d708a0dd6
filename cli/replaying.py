"""`penstock replay` and `penstock demo`: from paths to a run in the warehouse, a report and a summary."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cli.output import err, out, print_json, print_table, progress
from schemas.errors import PenstockError, UserError

HOME = Path(".penstock")


def parse_time(text: str | None, option: str) -> int | None:
    """A UTC date or time, or ns since 1970, to ns."""
    if text is None:
        return None
    if text.isdigit() and len(text) > 12:
        return int(text)
    try:
        return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
    except ValueError:
        raise UserError(f'{option} "{text}" is not a time; write it like 2021-04-02 or 2021-04-02T10:30') from None


def open_source(paths: list[str], ts_from: int | None, ts_to: int | None, config: Any = None) -> Any:
    """The tape of paths; a simulated one from `sim:SYMBOLS:HOURS:SEED`; a stretch of topics from `kafka://HOST:PORT/trades?from=…`."""
    from sources.simulator import simulate
    from sources.tape import open_tape
    simulated = re.fullmatch(r"sim:(\d+):([0-9.]+):(\d+)", paths[0])
    if simulated and len(paths) == 1:
        return simulate(int(simulated[1]), float(simulated[2]), int(simulated[3]))
    if paths[0].startswith("kafka:"):
        if len(paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]}: one URL names all topics of a tape, such as kafka://HOST:PORT/trades,quotes")
        from sources.kafka_tape import open_kafka
        return open_kafka(paths[0], None if config is None else config.kafka, ts_from, ts_to)
    return open_tape(paths, ts_from=ts_from, ts_to=ts_to)


def replay_command(paths: list[str], config: str | None, strategy: list[str] | None, url: str | None, run_id: str | None, engine: str,
                   workers: int, batch_rows: int | None, ts_from: str | None, ts_to: str | None, report: str | None,
                   as_json: bool) -> None:
    """Run it, record it, report it, print it."""
    started = time.perf_counter()
    from cli.secrets import expanded
    from research.replaying import check_engine, load_config, make_plan
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", run_id):
        raise UserError(f'run id "{run_id}" has other characters than letters, digits, ".", "_" and "-"')
    name = run_id or time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{time.time_ns() % 1_000_000:06d}"
    if batch_rows is not None and batch_rows < 1:
        raise UserError(f"--batch-rows {batch_rows} is not positive")
    check_engine(engine, workers)
    loaded = expanded(load_config(config))
    source = open_source(paths, parse_time(ts_from, "--from"), parse_time(ts_to, "--to"), loaded)
    made = make_plan(loaded, strategy, source)
    with progress("compiling", None, as_json):
        from research.replaying import warm_up
        compile_s = warm_up(made)
    if not as_json and compile_s > 1:
        err.print(f"compiled in {compile_s:.1f} s; kept for the next time", highlight=False)
    where = url or made.config.warehouse or None
    if where == "none":
        shown = _in_memory(made, source, name, engine, workers, batch_rows, report, as_json, started)
    else:
        shown = _recorded(made, source, name, where, engine, workers, batch_rows, report, as_json, started, paths)
    if as_json:
        print_json(shown)
    else:
        print_summary(shown)


def _in_memory(made: Any, source: Any, run_id: str, engine: str, workers: int, batch_rows: int | None, report: str | None, as_json: bool,
               started: float) -> dict[str, Any]:
    from research.replaying import replay_plan
    with progress("replaying", source.rows_total, as_json) as update:
        run = replay_plan(made, source, engine=engine, workers=workers, batch_rows=batch_rows, run_id=run_id, progress=update)
    run.summary["seconds_total"] = time.perf_counter() - started
    if report:
        run.report(report)
        run.summary["report"] = report
    return run.summary


def _recorded(made: Any, source: Any, run_id: str, where: str | None, engine: str, workers: int, batch_rows: int | None, report: str | None,
              as_json: bool, started: float, paths: list[str]) -> dict[str, Any]:
    from cli.warehousing import warehouse_at
    from research.recording import ABORTED, DONE, FAILED, Recorder
    from research.replaying import FinalEquity, Tracker, counted, run_plan, steered, summarise
    with warehouse_at(where) as url:
        data = {"paths": paths, "data_hash": source.data_hash, "symbols": list(source.symbols)}
        recorder = Recorder(url, run_id, made, " ".join(["penstock", *sys.argv[1:]]), data)
        tracker = Tracker(made, recorder)
        last, seen = FinalEquity(tracker.summary.capital), dict[str, int]()

        def collect(frame: Any) -> None:
            last.see(frame)
            tracker(frame)

        begun = time.perf_counter()

        def summary() -> dict[str, Any]:
            return summarise(made, tracker, seen, run_id, time.perf_counter() - begun, time.perf_counter() - started, last.value)

        try:
            with progress("replaying", source.rows_total, as_json) as update:
                rows = counted(source.frames(batch_rows or made.config.batch_rows), seen, update)
                run_plan(made, steered(made, source, rows), collect, engine, workers)
            shown = summary()
            recorder.finish(DONE, shown, data)
        except KeyboardInterrupt:
            recorder.finish(ABORTED, summary())
            err.print(f"run {run_id} is marked aborted", highlight=False)
            raise
        except PenstockError:
            recorder.abandon(FAILED, summary())
            raise
        shown["warehouse"] = where or str(HOME / "warehouse")
        target = Path(report) if report else HOME / "reports" / f"{run_id}.html"
        from research.stored import StoredRun
        target.parent.mkdir(parents=True, exist_ok=True)
        StoredRun(url, run_id).report(target)
        shown["report"] = str(target)
        shown["seconds_total"] = time.perf_counter() - started
        return shown


def print_summary(s: dict[str, Any]) -> None:
    """The summary for people."""
    def money(text: str) -> str:
        return f"{float(text):,.2f}"

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    def ratio(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    speed = f" in {s['seconds']:.2f} s, {s['rows_per_second']:,.0f} a second" if "seconds" in s else ""  # a live run has none
    print_table(("", ""), [
        ("run", s["run_id"]), ("rows", f"{s['rows']:,}{speed}"),
        ("bars, features, signals", " · ".join(f"{s['counts'].get(k, 0):,}" for k in ("bars", "features", "signals"))),
        ("round trips", f"{s['trades']:,}, {share(s['win_rate'])} won, profit factor {ratio(s['profit_factor'])}"),
        ("P&L", f"{money(s['pnl'])} after fees of {money(s['fees'])}; equity {money(s['equity_final'])}"),
        ("drawdown, Sharpe", f"{share(s['drawdown_max'])}, {ratio(s['sharpe'])}"),
        ("refused", ", ".join(f"{k} {n:,}" for k, n in s["refusals"].items()) or "nothing"),
        ("rejected, late", f"{s['counts'].get('rejected', 0):,}, {s['counts'].get('late', 0):,}"),
        *((k, s[k]) for k in ("report", "warehouse") if k in s),
    ])
    if s["trades"] < 30:
        out.print("fewer than 30 round trips: the ratios say little", highlight=False)
