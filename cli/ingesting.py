"""`penstock ingest`: a recording, a simulated market or exchanges onto the input topics."""

import re
from dataclasses import replace
from typing import Any

from blake3 import blake3

from cli.connecting import kafka_of
from cli.output import err, out, print_json, progress
from cli.replaying import parse_time
from cli.secrets import expanded
from cli.stopping import stopping
from schemas.config import Config
from schemas.config_live import ExchangeConfig, KafkaConfig
from schemas.errors import UserError


def ingest_command(file: list[str], frames: list[str], simulate: str | None, exchange: str | None, symbols: str | None, config: str | None,
                   servers: str | None, pace: str, beat: str | None, codec: str | None, writer: str | None, ts_from: str | None,
                   ts_to: str | None, linger_ms: float, as_json: bool) -> None:
    """One source, all of it or until it is told to stop."""
    from research.replaying import load_config
    from sources.ingest_pace import beat_of, parse_pace
    given = [name for name, value in (("--file", file), ("--frames", frames), ("--simulate", simulate), ("--exchange", exchange)) if value]
    made = expanded(load_config(config))
    if not given and made.exchange is not None:
        given = ["--exchange"]
    if len(given) != 1:
        raise UserError("name one source: --file PATH, --frames PATH, --simulate SYMBOLS:HOURS:SEED or --exchange NAME"
                        + (f"; these are {', '.join(given)}" if given else ""))
    if writer is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", writer):
        raise UserError(f'writer "{writer}" has other characters than letters, digits, ".", "_" and "-"')
    if not 0 <= linger_ms <= 10_000:
        raise UserError(f"--linger-ms {linger_ms:g}; give 0 to 10000")
    if given == ["--exchange"]:
        if any(value is not None for value in (beat, ts_from, ts_to, codec)) or pace != "1x":
            raise UserError("--pace, --beat, --codec, --from and --to are for recordings; an exchange comes as it comes")
        asked = exchange_of(made, exchange, symbols)
        _ingest_exchange(asked, made, kafka_of(config, servers)[1], writer, linger_ms, as_json)
        return
    if symbols is not None:
        raise UserError("--symbols is for --exchange; a recording's symbols are those in it")
    if codec not in (None, "json", "arrow"):
        raise UserError(f'--codec "{codec}" is not json or arrow')
    speed = parse_pace(pace)
    source = _source(given[0], file or frames, simulate, parse_time(ts_from, "--from"), parse_time(ts_to, "--to"))
    beat_ns = beat_of(source, beat)
    name = writer or tape_writer(given[0].strip("-"), source, beat_ns)
    chosen = codec or ("arrow" if speed == 0 else "json")
    ingest(source, made, kafka_of(config, servers)[1], name, speed, beat_ns, chosen, linger_ms, as_json)


def tape_writer(kind: str, source: Any, beat_ns: int) -> str:
    """The name of a tape's writer, made of what it writes."""
    return f"{kind}-{blake3(f'{source.data_hash} {beat_ns}'.encode()).hexdigest()[:12]}"


def ingest(source: Any, made: Config, kafka: KafkaConfig, name: str, speed: float, beat_ns: int, codec: str, linger_ms: float,
           as_json: bool) -> None:
    """Write a tape to the input topics and say what was written."""
    from dataflows.ingest import ingest_tape
    from telemetry.serve import start
    exporter = start(made.live, "ingest", name)
    try:
        with stopping() as stop, progress(f"writing to {kafka.servers} as {name}", source.rows_total, as_json) as update:
            done = ingest_tape(source, kafka, name, pace=speed, beat_ns=beat_ns, codec="arrow" if codec == "arrow" else "json",
                               linger_ms=linger_ms, stopping=stop.is_set, progress=update, told=_told)
    finally:
        if exporter is not None:
            exporter.stop()
    _print(done, as_json)


def _source(kind: str, paths: list[str], simulated: str | None, ts_from: int | None, ts_to: int | None) -> Any:
    from sources.simulator import simulate
    from sources.tape import open_tape
    if kind != "--simulate":
        return open_tape(paths, ts_from=ts_from, ts_to=ts_to)
    match = re.fullmatch(r"(\d+):(\d+(?:\.\d+)?):(\d+)", simulated or "")
    if not match:
        raise UserError(f'--simulate "{simulated}" is not SYMBOLS:HOURS:SEED; write it like 20:24:7')
    if ts_from is not None or ts_to is not None:
        raise UserError("--from and --to are for recordings; a simulated market has SYMBOLS:HOURS:SEED")
    return simulate(int(match[1]), float(match[2]), int(match[3]))


def _told(messages: int) -> None:
    if messages > 100_000:
        err.print(f"reading {messages:,} messages to find where this writer stopped …", highlight=False)


def _print(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    from sinks.ingest_writer import shown
    words = [f"{'stopped' if done['stopped'] else 'done'}: {shown(done['rows'])} written as {done['writer']}"]
    if done["resumed_from"]:
        words.append(f"resumed from number {done['resumed_from']:,}")
    if done.get("already_there"):
        words.append(f"{done['already_there']:,} rows were there already")
    if done.get("fetched"):
        words.append(f"{done['fetched']:,} missed trades fetched")
    if done.get("filled"):
        words.append(f"{done['filled']:,} numbers filled with beats")
    out.print("; ".join(words), highlight=False, soft_wrap=True)


def _ingest_exchange(asked: ExchangeConfig, made: Config, kafka: KafkaConfig, writer: str | None, linger_ms: float, as_json: bool) -> None:
    from dataflows.ingest import ingest_live
    from telemetry.serve import start
    identity = blake3(repr((asked.names, asked.symbols, asked.tables)).encode()).hexdigest()[:12]
    name = writer or f"{asked.names[0] if asked.names else 'exchange'}-{identity}"
    exporter = start(made.live, "ingest", name)
    try:
        with stopping() as stop, progress(f"{', '.join(asked.names)} to {kafka.servers} as {name}", None, as_json) as update:
            done = ingest_live(asked, kafka, name, linger_ms=linger_ms, stopping=stop.is_set, progress=update, told=_told)
    finally:
        if exporter is not None:
            exporter.stop()
    _print(done, as_json)


def exchange_of(made: Config, exchange: str | None, symbols: str | None) -> ExchangeConfig:
    """The configured exchange with what the command line says instead."""
    try:
        import ccxt  # noqa: F401
    except ImportError:
        raise UserError('exchanges need ccxt, which is not installed; install it with pip install "penstock[exchange]"') from None
    asked = made.exchange or ExchangeConfig()
    if exchange is not None:
        asked = replace(asked, names=_listed(exchange))
    if symbols is not None:
        asked = replace(asked, symbols=_listed(symbols))
    for what, names in (("exchange", asked.names), ("symbol", asked.symbols)):
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise UserError(f'{what} "{twice}" is named twice')
    return asked


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
