"""The commands of a running pipeline, as `cli.main` registers them: `run paper`, `run live`, `control`, `parity`."""

from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
ConfigFile = Annotated[Optional[str], typer.Option(help="Configuration in YAML; a section `kafka` names the broker.")]
RunName = Annotated[Optional[str], typer.Option(
    "--run", help="Name of the run: a second start goes on where it was. Default: paper, or live.")]
Strategy = Annotated[Optional[list[str]], typer.Option(help="A built-in or a YAML file; may be repeated.")]
Start = Annotated[str, typer.Option("--from", help="Where a new run begins to read the topics: earliest, latest, or a time.")]
Once = Annotated[bool, typer.Option("--once", help="Stop where the topics end now.")]
Enable = Annotated[bool, typer.Option("--enable", help="Also write the record that enables trading; without it trading starts disabled.")]
Workers = Annotated[int, typer.Option(help="Worker threads of this process; a run keeps the number of shards it began with.")]
Process = Annotated[Optional[str], typer.Option(metavar="i/n", help="Which of n processes this is, from 0.")]
Peers = Annotated[Optional[str], typer.Option(metavar="HOST:PORT,…", help="Addresses of all n processes, in order.")]
Warehouse = Annotated[Optional[str], typer.Option("--warehouse", help="ClickHouse URL, for a run without a broker.")]

run = typer.Typer(no_args_is_help=True, help="The pipeline, running: from a broker's topics, or straight from a source without one.")


@run.command("paper")
def run_paper(
    config: ConfigFile = None, strategy: Strategy = None, name: RunName = None, start: Start = "earliest", once: Once = False,
    enable: Enable = False, workers: Workers = 1, process: Process = None, peers: Peers = None,
    file: Annotated[Optional[list[str]], typer.Option(help="Without a broker: recorded data; may be repeated.")] = None,
    simulate: Annotated[Optional[str], typer.Option(metavar="SYMBOLS:HOURS:SEED", help="Without a broker: a simulated market.")] = None,
    exchange: Annotated[Optional[str], typer.Option(help="Without a broker: an exchange's websockets, such as binance.")] = None,
    symbols: Annotated[Optional[str], typer.Option(help="With --exchange: symbols, such as BTC/USDT,ETH/USDT.")] = None,
    pace: Annotated[str, typer.Option(help="Without a broker: 1x is real time, 60x, or max.")] = "1x",
    beat: Annotated[Optional[str], typer.Option(help="Without a broker: event time between heartbeats. Default 1s.")] = None,
    warehouse: Warehouse = None, json: Json = False,
) -> None:
    """Trade on paper: the same operators as a replay, on rows as they come.

    With a section `kafka` in the configuration: from topics to topics. Without one: straight from --file, --simulate or --exchange into
    the warehouse, with the input recorded. Ctrl-C or SIGTERM drains it; started again it goes on; killed it loses nothing.
    `penstock parity RUN` compares it with its replay.
    """
    from cli.running import run_command
    run_command("paper", config, strategy, name, warehouse, start, once, enable, workers, process, peers, file, simulate, exchange, symbols,
                pace, beat, json)


@run.command("live")
def run_live(
    config: ConfigFile = None, strategy: Strategy = None, name: RunName = None, start: Start = "latest", once: Once = False,
    workers: Workers = 1, process: Process = None, peers: Peers = None, json: Json = False,
) -> None:
    """Trade for real: approved orders go to the topic `approved`, from which `penstock execute` sends them to the venue.

    It takes two acts: a section `venue` in the configuration, and `penstock control enable` once it runs.
    """
    from cli.running import run_command
    run_command("live", config, strategy, name, None, start, once, False, workers, process, peers, None, None, None, None, "1x", None, json)


def control(
    command: Annotated[str, typer.Argument(help="enable, disable (send nothing), reduce (exits only) or halt (flatten and stop).")],
    config: ConfigFile = None,
    name: Annotated[str, typer.Option("--run", help="The run, where there is no broker.")] = "paper",
    json: Json = False,
) -> None:
    """Enable, disable, reduce or halt trading: a record that takes effect where the pipeline reads it, and is kept like any other."""
    from cli.running import control_command
    control_command(command, config, name, json)


def parity(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a live or paper run.")],
    config: ConfigFile = None, warehouse: Warehouse = None,
    ts_from: Annotated[Optional[str], typer.Option(
        "--from", help="Compare from this event time on; the replay begins at the start.")] = None,
    ts_to: Annotated[Optional[str], typer.Option("--to", help="Compare up to this event time, exclusive.")] = None,
    json: Json = False,
) -> None:
    """Prove that live was the backtest: replay what the run was given and compare every stage. Exit code 1 where something differs.

    Prints OK with counts, or the first event that differs: its stage, both versions, and what it was made from.
    """
    from cli.parity import parity_command
    raise typer.Exit(parity_command(run_name, config, warehouse, ts_from, ts_to, json))


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.add_typer(run, name="run")
    app.command("control")(control)
    app.command("parity")(parity)
