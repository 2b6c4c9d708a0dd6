"""`penstock features`, `policy` and `strategies`: what the operators offer, and features computed as the pipeline does."""

from pathlib import Path
from typing import Any

from cli.output import out, print_json, print_table, progress
from schemas.config import Config
from schemas.errors import UserError
from schemas.intervals import interval_text, parse_interval


def features_command(args: list[str], interval: str | None, names: list[str] | None, target: str | None, as_json: bool) -> None:
    """Dispatch `list`, `show NAME` and `PATH...`."""
    from operators.market.features import catalogue, describe
    if args == ["list"]:
        found = catalogue()
        if as_json:
            print_json({"features": found})
        else:
            print_table(("feature", "family", "columns by default", "what it is"),
                        [(f["name"], f["family"], "\n".join(f["columns"]), f["doc"].split("\n")[0]) for f in found])
        return
    if args[0] == "show":
        if len(args) != 2:
            raise UserError("give one feature: penstock features show rsi")
        shown = describe(args[1])
        if as_json:
            print_json(shown)
        else:
            for key, value in shown.items():
                out.print(f"[bold]{key:<10}[/bold] {value}", highlight=False)
        return
    if target is None:
        raise UserError("say where to write: --out FILE.parquet")
    compute(args, parse_interval(interval, "--interval") if interval else None, tuple(names or ()), Path(target), as_json)


def compute(paths: list[str], interval_ns: int | None, names: tuple[str, ...], target: Path, as_json: bool) -> None:
    """Features of every closed bar of the tape to one Parquet file, which appears when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from operators.market.bars import Bars, BarsConfig, check_recorded
    from operators.market.features import DEFAULT_FEATURES, Features, expand
    from operators.market.quality import Quality
    from operators.protocol import Chain
    from schemas.codec_features import features_to_arrow
    from sources.tape import open_tape
    texts = tuple(r.text for r in expand(names or DEFAULT_FEATURES))
    if target.parent and not target.parent.is_dir():
        raise UserError(f"{target}: the folder {target.parent} does not exist; make it first")
    tape = open_tape(paths)
    if tape.recorded_ns and interval_ns is None:
        interval_ns = max(tape.recorded_ns)
    interval_ns = interval_ns or parse_interval("1m")
    for recorded_ns in tape.recorded_ns:
        check_recorded(BarsConfig((interval_ns,)), recorded_ns)
    chain = Chain([Quality(), Bars(BarsConfig((interval_ns,))), Features({interval_ns: texts})])
    partial = target.with_name(f".{target.name}.part")
    writer: Any = None
    rows = rejected = read = 0
    try:
        with progress(f"features at {interval_text(interval_ns)}", tape.rows_total, as_json) as update:
            for frame in tape.frames(65_536):
                made = chain.step(frame)
                read += sum(len(r) for r in frame.tables.values())
                rejected += len(made.tables.get("rejected", ()))
                for found in made.features:
                    if len(found.bars):
                        table = features_to_arrow(found, made.symbols).drop_columns(["interval_ns", "ts_event_ns", "seq"])
                        table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
                        writer = writer or pq.ParquetWriter(partial, table.schema)
                        writer.write_table(table)
                        rows += table.num_rows
                update(read)
        if writer is None:
            raise UserError(f"no bar of {interval_text(interval_ns)} closed in {read} rows; give a longer tape or a shorter --interval")
        writer.close()
        partial.replace(target)
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    done = {"out": str(target), "rows_read": read, "rows_rejected": rejected, "bars": rows, "features": len(texts)}
    if as_json:
        print_json(done)
    else:
        dropped = f"; {rejected:,} rows rejected" if rejected else ""
        out.print(f"{rows:,} bars, {len(texts)} columns of features → {target}{dropped}", highlight=False)


def policy_command(config: str | None, as_json: bool) -> None:
    """Print the policy of a configuration."""
    from research.replaying import load_config
    from schemas.policy import ENTRIES
    loaded = load_config(config) if config else Config()
    rows = [(e.name, loaded.policy.written(e.name), e.unit, e.doc) for e in ENTRIES]
    if as_json:
        print_json({"version": loaded.policy.version, "digest": loaded.policy.digest, "limits": {r[0]: r[1] for r in rows}})
    else:
        title = f"policy version {loaded.policy.version}, digest {loaded.policy.digest}"
        print_table(("key", "value", "unit", "what it limits"), rows, title)


def strategies_list_command(as_json: bool) -> None:
    """Print the built-in strategies."""
    from operators.strategies.builtin import BUILTINS, builtin
    specs = [builtin(name) for name in BUILTINS]
    if as_json:
        print_json({"strategies": [{"name": s.name, "description": s.description, "timeframe": s.timeframe} for s in specs]})
    else:
        print_table(("strategy", "timeframe", "what it does"), [(s.name, s.timeframe, s.description) for s in specs])


def strategies_show_command(name: str, as_json: bool) -> None:
    """Print a strategy's rules."""
    from operators.strategies.documents import to_data
    from operators.strategies.text import to_text
    from research.replaying import load_strategies
    specs = load_strategies([name])
    if as_json:
        print_json({"strategies": [to_data(s) for s in specs]})
    else:
        for spec in specs:
            out.print(to_text(spec), highlight=False, markup=False)
