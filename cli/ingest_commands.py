"""The commands that bring market data in, as `cli.main` registers them: `ingest`, `fetch-history`."""

from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Text = Optional[str]
Texts = Optional[list[str]]
ConfigFile = Annotated[Text, typer.Option("--config", help="Configuration in YAML: kafka, exchange, live.")]
Servers = Annotated[Text, typer.Option("--servers", metavar="HOST:PORT,…", help="Kafka brokers. Default: the section kafka.")]
Exchange = Annotated[Text, typer.Option("--exchange", help="A ccxt id such as binance. To ingest: several by commas, by priority.")]
Symbols = Annotated[Text, typer.Option("--symbols", help="Of the exchange, by commas: BTC/USDT,ETH/USDT.")]


def ingest(
    file: Annotated[Texts, typer.Option(help="Recorded trades, quotes or bars: a file, folder or glob; may be repeated.")] = None,
    frames: Annotated[Texts, typer.Option(help="Raw websocket frames of an exchange; may be repeated.")] = None,
    simulate: Annotated[Text, typer.Option(metavar="SYMBOLS:HOURS:SEED", help="A simulated market, such as 20:24:7.")] = None,
    exchange: Exchange = None, symbols: Symbols = None, config: ConfigFile = None, servers: Servers = None,
    pace: Annotated[str, typer.Option(help="Of a recording: 1x as it was, 60x a minute a second, max as fast as it goes.")] = "1x",
    beat: Annotated[Text, typer.Option(help="Event time between heartbeats. Default: 1s; for bars alone, their interval.")] = None,
    codec: Annotated[Text, typer.Option(help="json, a row a message, or arrow, many. Default: arrow at max pace.")] = None,
    writer: Annotated[Text, typer.Option(help="Name under which the rows are numbered: one process at a time under a name, "
                                              "which is yours to see to. Default: made of the source.")] = None,
    ts_from: Annotated[Text, typer.Option("--from", help="First event time of a recording.")] = None,
    ts_to: Annotated[Text, typer.Option("--to", help="End of event time, exclusive.")] = None,
    linger_ms: Annotated[float, typer.Option(help="How long a message waits for company.")] = 5.0, json: Json = False,
) -> None:
    """Write a recording, a simulated market or an exchange's live prices to the input topics, with heartbeats.

    Stopped or killed at any moment, the same command goes on where it was. Of a recording no row is lost and none is
    there twice. The topics must exist: `penstock topics create`.
    """
    from cli.ingesting import ingest_command
    ingest_command(file or [], frames or [], simulate, exchange, symbols, config, servers, pace, beat, codec, writer, ts_from, ts_to,
                   linger_ms, json)


def fetch_history(
    ts_from: Annotated[str, typer.Option("--from", help="First time, e.g. 2024-08-01 or 2024-08-01T10:30.")],
    out: Annotated[str, typer.Option(help="Folder for one Parquet file a symbol, or `kafka` for the input topics.")],
    exchange: Exchange = None, symbols: Symbols = None,
    what: Annotated[str, typer.Option(help="trades, candles or funding.")] = "candles",
    timeframe: Annotated[str, typer.Option(help="Of candles: 1m, 5m, 1h, 1d, …")] = "1m",
    ts_to: Annotated[Text, typer.Option("--to", help="End, exclusive. Default: now.")] = None,
    config: ConfigFile = None, servers: Servers = None, json: Json = False,
) -> None:
    """Fetch an exchange's past over REST into Parquet files that `penstock replay` reads.

    It keeps to the exchange's rate limits. Stopped or killed, the same command goes on where it was. What the exchange
    does not have is asked for twice, then listed in gaps.json and in the summary; candles carry it in their column `gap`.
    """
    from cli.history import history_command
    history_command(exchange, symbols, what, timeframe, ts_from, ts_to, out, config, servers, json)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ingest)
    app.command("fetch-history")(fetch_history)
