"""The `penstock` command: noun verb, `--json` for machines, exit codes that scripts can use.

What a command needs is imported when it runs, so that `--help` is quick.
"""

import sys
from typing import Annotated, Optional

import typer

from cli.ingest_commands import register as register_ingest
from cli.learning import register as register_learning
from cli.live import register as register_live
from cli.model_state import register as register_model_state
from cli.models import model
from cli.models import register as register_models
from cli.training import register as register_training

app = typer.Typer(
    name="penstock", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Streaming trading platform: replay recorded markets through the same operators that trade them.\n\n"
         "Start with `penstock simulate --out tape.parquet` and `penstock replay tape.parquet`.",
)
warehouse = typer.Typer(no_args_is_help=True, help="The warehouse: ClickHouse, embedded or a server of yours.")
runs = typer.Typer(no_args_is_help=True, help="What was run: list, show, compare.")
audit = typer.Typer(no_args_is_help=True, help="The audit chain.")
policy = typer.Typer(no_args_is_help=True, help="The risk policy: every limit, its unit and bounds.")
strategies = typer.Typer(no_args_is_help=True, help="Strategies in the rule language.")
topics = typer.Typer(no_args_is_help=True, help="The Kafka topics, one per table. Make them once, before anything runs.")
for _noun, _group in (("warehouse", warehouse), ("runs", runs), ("audit", audit), ("policy", policy),
                      ("strategies", strategies), ("topics", topics)):
    app.add_typer(_group, name=_noun)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
WarehouseUrl = Annotated[Optional[str], typer.Option(
    "--warehouse", help="ClickHouse URL; `none` keeps results in memory. Default: PENSTOCK_WAREHOUSE, else embedded.")]


@app.callback()
def logging(
    log_format: Annotated[str, typer.Option(envvar="PENSTOCK_LOG_FORMAT", help="text or json, on standard error.")] = "text",
    log_level: Annotated[str, typer.Option(envvar="PENSTOCK_LOG_LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    # no docstring: it would replace the help of the whole command
    from cli.logs import set_up_logs
    set_up_logs(log_format, log_level)


@app.command()
def replay(
    paths: Annotated[list[str], typer.Argument(
        metavar="PATH...", help="Files, folders or globs; `sim:SYMBOLS:HOURS:SEED` simulates; "
        "`kafka://HOST:PORT/trades,quotes?from=…&to=…&as=corrected|seen` reads topics by times or offsets.")],
    config: Annotated[Optional[str], typer.Option(help="Configuration in YAML.")] = None,
    strategy: Annotated[Optional[list[str]], typer.Option(help="A built-in or a YAML file; may be repeated.")] = None,
    warehouse: WarehouseUrl = None,
    run_id: Annotated[Optional[str], typer.Option(help="Name of the run; must be new.")] = None,
    engine: Annotated[str, typer.Option(help="bytewax or loop; both give the same rows.")] = "bytewax",
    workers: Annotated[int, typer.Option(help="Bytewax workers.")] = 1,
    batch_rows: Annotated[Optional[int], typer.Option(help="Rows per frame; does not change results.")] = None,
    ts_from: Annotated[Optional[str], typer.Option("--from", help="First event time, e.g. 2021-04-02 or 2021-04-02T10:30.")] = None,
    ts_to: Annotated[Optional[str], typer.Option("--to", help="End of event time, exclusive.")] = None,
    report: Annotated[Optional[str], typer.Option(help="Where to write the HTML report.")] = None,
    json: Json = False,
) -> None:
    """Replay recorded trades, quotes or bars: bars, features, strategies, gate, paper fills, ledger, audit."""
    from cli.replaying import replay_command
    replay_command(paths, config, strategy, warehouse, run_id, engine, workers, batch_rows, ts_from, ts_to, report, json)


@app.command()
def demo(json: Json = False) -> None:
    """Replay a simulated day of 20 symbols into the embedded warehouse and write the report."""
    from cli.replaying import replay_command
    replay_command(["sim:20:24:7"], None, None, None, None, "bytewax", 1, None, None, None, None, json)


@app.command()
def features(
    args: Annotated[list[str], typer.Argument(metavar="PATH... | list | show NAME")],
    interval: Annotated[Optional[str], typer.Option(help="Timeframe, 1s to 1d. Default: the recording's, 1m for trades.")] = None,
    feature: Annotated[Optional[list[str]], typer.Option(help="A feature such as 'rsi(14)'; may be repeated. Default: all.")] = None,
    out: Annotated[Optional[str], typer.Option(help="Parquet file to write.")] = None,
    json: Json = False,
) -> None:
    """Compute features exactly as the pipeline does, a row per closed bar; or `list` them, or `show` one."""
    from cli.features import features_command
    features_command(args, interval, feature, out, json)


@app.command()
def simulate(
    out: Annotated[str, typer.Option(help="Parquet file to write.")],
    symbols: Annotated[int, typer.Option(help="How many symbols.")] = 20,
    hours: Annotated[float, typer.Option(help="How many hours.")] = 24.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 7,
    quotes: Annotated[bool, typer.Option(help="Also write best bid and offer.")] = False,
    json: Json = False,
) -> None:
    """Write a simulated market: regimes, volatility clustering, correlated returns, quiet symbols."""
    from cli.simulating import simulate_command
    simulate_command(out, symbols, hours, seed, quotes, json)


@app.command()
def report(run_id: Annotated[str, typer.Argument(metavar="RUN")], out: Annotated[Optional[str], typer.Option(help="HTML file.")] = None,
           warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Write the HTML report of a run that is in the warehouse."""
    from cli.stored import report_command
    report_command(run_id, out, warehouse, json)


@app.command()
def explain(order_id: Annotated[str, typer.Argument(metavar="ORDER_ID")],
            run_id: Annotated[Optional[str], typer.Option("--run", help="Run; default: the latest that has it.")] = None,
            warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """From an order, sent or refused, back to its signal, features, bar, ticks, policy and every gate verdict."""
    from cli.stored import explain_command
    explain_command(order_id, run_id, warehouse, json)


@app.command()
def doctor(warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Check versions, clock, disk and warehouse; say what is missing and how to get it."""
    from cli.doctor import doctor_command
    doctor_command(warehouse, json)


@runs.command("list")
def runs_list(warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """All runs, newest first."""
    from cli.stored import runs_list_command
    runs_list_command(warehouse, json)


@runs.command("show")
def runs_show(run_id: Annotated[str, typer.Argument(metavar="RUN")], warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Summary and hashes of one run."""
    from cli.stored import runs_show_command
    runs_show_command(run_id, warehouse, json)


@runs.command("compare")
def runs_compare(a: Annotated[str, typer.Argument(metavar="RUN")], b: Annotated[str, typer.Argument(metavar="OTHER")],
                 warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Two runs side by side; names the first stage whose hash differs. Exit code 1 where one does."""
    from cli.stored import runs_compare_command
    raise typer.Exit(runs_compare_command(a, b, warehouse, json))


@audit.command("verify")
def audit_verify(run_id: Annotated[str, typer.Argument(metavar="RUN")], warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Hash the run's stored records again and compare with its audit chain. Exit code 1 where a block differs."""
    from cli.stored import audit_verify_command
    raise typer.Exit(audit_verify_command(run_id, warehouse, json))


@policy.command("show")
def policy_show(config: Annotated[Optional[str], typer.Option(help="Configuration in YAML.")] = None, json: Json = False) -> None:
    """The policy in force, defaults filled in."""
    from cli.features import policy_command
    policy_command(config, json)


@strategies.command("list")
def strategies_list(json: Json = False) -> None:
    """The built-in strategies."""
    from cli.features import strategies_list_command
    strategies_list_command(json)


@strategies.command("show")
def strategies_show(name: Annotated[str, typer.Argument(help="A built-in or a YAML file.")], json: Json = False) -> None:
    """A strategy's rules; validates a file."""
    from cli.features import strategies_show_command
    strategies_show_command(name, json)


@warehouse.command("serve")
def warehouse_serve(directory: Annotated[str, typer.Option("--dir", help="Where the data lives.")] = ".penstock/warehouse",
                    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
                    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8123) -> None:
    """Serve the embedded ClickHouse over ClickHouse's HTTP protocol until Ctrl-C."""
    from cli.warehousing import serve_command
    serve_command(directory, host, port)


@warehouse.command("query")
def warehouse_query(sql: Annotated[str, typer.Argument(help="A SELECT.")], warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Run a query and print its rows."""
    from cli.warehousing import query_command
    query_command(sql, warehouse, json)


@warehouse.command("export")
def warehouse_export(run_id: Annotated[str, typer.Argument(metavar="RUN")],
                     out: Annotated[str, typer.Option(help="Folder for one Parquet file a table.")],
                     warehouse: WarehouseUrl = None, json: Json = False) -> None:
    """Write all tables of a run as Parquet."""
    from cli.warehousing import export_command
    export_command(run_id, out, warehouse, json)


Servers = Annotated[Optional[str], typer.Option(
    "--servers", metavar="HOST:PORT,...", help="Kafka brokers. Default: the configuration's section kafka.")]
ConfigPath = Annotated[Optional[str], typer.Option("--config", help="Configuration in YAML.")]


@app.command()
def archive(config: ConfigPath = None, servers: Servers = None, warehouse: WarehouseUrl = None,
            table: Annotated[Optional[list[str]], typer.Option(help="Only this table; may be repeated. Default: all.")] = None,
            group: Annotated[Optional[str], typer.Option(
                help="Name under which the broker keeps how far it came. Another warehouse wants another. Default: PREFIXarchive.")] = None,
            once: Annotated[bool, typer.Option("--once", help="Stop where the topics end now, instead of going on.")] = False,
            rewind: Annotated[bool, typer.Option("--rewind", help="Read from the beginning again; stored rows are not doubled.")] = False,
            accept_loss: Annotated[bool, typer.Option(
                "--accept-loss", help="Go on though retention passed messages not archived.")] = False,
            process: Annotated[Optional[str], typer.Option(metavar="I/N", help="Share the partitions: 0/2 and 1/2.")] = None,
            json: Json = False) -> None:
    """Write all topics into ClickHouse: market data as the run `market`, the rest under its run.

    Killed anywhere it loses and doubles nothing.
    """
    from cli.archiving import archive_command
    archive_command(config, servers, warehouse, table, group, once, rewind, accept_loss, process, json)


@topics.command("create")
def topics_create(config: ConfigPath = None, servers: Servers = None,
                  partitions: Annotated[Optional[list[str]], typer.Option(
                      metavar="TOPIC=N", help="Another number of partitions, for ever; may be repeated.")] = None,
                  replication: Annotated[int, typer.Option(help="Replicas of every partition: 3 on a cluster.")] = 1,
                  update: Annotated[bool, typer.Option("--update", help="Set retention and so on of those that exist as wanted.")] = False,
                  json: Json = False) -> None:
    """Make every topic that is missing, and say how those that are there differ. Running it again changes nothing."""
    from cli.topics import create_command
    create_command(config, servers, partitions, replication, update, json)


@topics.command("list")
def topics_list(config: ConfigPath = None, servers: Servers = None, json: Json = False) -> None:
    """All topics with partitions, messages, key, codec and retention."""
    from cli.topics import list_command
    list_command(config, servers, json)


@topics.command("describe")
def topics_describe(topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A table such as trades, or the topic's full name.")],
                    config: ConfigPath = None, servers: Servers = None, json: Json = False) -> None:
    """One topic: its columns, key, codec and retention, and the offsets of its partitions. --json has its JSON Schema too."""
    from cli.topics import describe_command
    describe_command(topic, config, servers, json)


@topics.command("tail")
def topics_tail(topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A table such as fills, or the topic's full name.")],
                config: ConfigPath = None, servers: Servers = None,
                count: Annotated[int, typer.Option("-n", help="How many rows, counted from the end.")] = 10,
                follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
                json: Annotated[bool, typer.Option("--json", help="One JSON object a row, with its place and time.")] = False) -> None:
    """The last rows as JSON, a line each, whatever the codec: PARTITION:OFFSET, run, row."""
    from cli.topics import tail_command
    tail_command(topic, config, servers, count, follow, json)


exchange = typer.Typer(no_args_is_help=True, help="An exchange on this machine, to rehearse with.")
app.add_typer(exchange, name="exchange")


@app.command()
def execute(
    config: ConfigPath = None, servers: Servers = None,
    venue: Annotated[Optional[str], typer.Option(help="A ccxt id, or fake. Default: the configuration's venue.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Trade with real money. Without it, the exchange's testnet.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every approval, say what would be sent, end; nothing is sent.")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="End when every order that is on the log is final.")] = False,
    skip_offset: Annotated[Optional[list[int]], typer.Option(
        help="A message of the approved topic to leave out, after you looked at it; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Send approved orders to a venue, and write what becomes of them to the reports topic. One process per account.

    Every approval must follow from the one before it (exit code 3 where one does not, and nothing is sent any more). An order is sent once,
    whatever is killed when: the venue is asked about it before it is sent again. One that is older than venue.age_s_max is not sent.
    """
    from cli.executing import execute_command
    raise typer.Exit(execute_command(config, servers, venue, live, dry_run, drain, skip_offset or [], json))


@exchange.command("fake")
def exchange_fake(
    price: Annotated[list[str], typer.Option(
        metavar="SYMBOL=PRICE", help="A market and its last price, such as BTC/USDT=50000; may be repeated.")],
    port: Annotated[int, typer.Option(help="Port to listen on, on loopback.")] = 8765,
    file: Annotated[Optional[str], typer.Option(help="Where its books are kept. Default: in memory.")] = None,
    fee_bps: Annotated[str, typer.Option(help="Fee, hundredths of a percent.")] = "10",
    cue: Annotated[Optional[list[str]], typer.Option(
        metavar="REQUEST:TROUBLE[:VALUE]", help="For the next request, such as order:drop_after or ask:slow:0.5; may be repeated.")] = None,
    misbehave: Annotated[float, typer.Option(help="Share of all requests that meet trouble.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trouble.")] = 0,
    json: Json = False,
) -> None:
    """A fake exchange that speaks Binance's spot order API, for `penstock execute --venue fake`.

    It checks signatures and timestamps, keeps its books in a file, and misbehaves on cue. Move a price with
    curl -d '{"symbol": "BTC/USDT", "price": "49000"}' 127.0.0.1:8765/fake/price
    """
    from cli.executing import fake_exchange_command
    fake_exchange_command(price, port, file, fee_bps, cue or [], misbehave, seed, json)


register_live(app)
register_ingest(app)
register_models(app)
register_model_state(model)
register_training(app)
register_learning(app)


def main() -> None:
    """Entry point."""
    from cli.errors import guarded
    code = 0

    def run() -> None:
        nonlocal code
        found = app(standalone_mode=False)
        code = found if isinstance(found, int) else 0

    try:
        failed = guarded(run)
    except typer.Exit as stop:
        failed = stop.exit_code
    except Exception as error:
        # a usage error of the command line itself; everything else is a bug and keeps its traceback
        if not hasattr(error, "format_message"):
            raise
        from cli.logs import say_error
        say_error(f"{error.format_message()}; see penstock --help")
        failed = 2
    sys.exit(failed or code)


if __name__ == "__main__":
    main()
