"""`penstock fetch-history`: an exchange's past into files, or onto the input topics."""

from pathlib import Path
from typing import Any

from blake3 import blake3

from cli.ingesting import exchange_of
from cli.output import err, out, print_json, print_table, progress
from cli.replaying import HOME, parse_time
from cli.secrets import expanded
from cli.stopping import stopping
from schemas.errors import UserError

KAFKA = "kafka"


def history_command(exchange: str | None, symbols: str | None, what: str, timeframe: str, ts_from: str, ts_to: str | None, target: str,
                    config: str | None, servers: str | None, as_json: bool) -> None:
    """Fetch, say what came and what is missing; with `kafka`, write the files to the topics too."""
    from research.replaying import load_config
    from sources.history import check_request, fetch_history
    made = expanded(load_config(config))
    asked = exchange_of(made, exchange, symbols)
    begin, end = parse_time(ts_from, "--from"), parse_time(ts_to, "--to")
    assert begin is not None
    from_ms, to_ms = begin // 10**6, None if end is None else end // 10**6
    check_request(asked, what, from_ms, to_ms)
    kafka = None
    if target == KAFKA:
        if what == "funding":
            raise UserError("--out kafka takes trades or candles; fetch funding into a folder")
        from cli.connecting import kafka_of
        kafka = kafka_of(config, servers)[1]
        identity = (asked.names[0], asked.symbols, what, timeframe, from_ms, to_ms)
        target = str(HOME / "history" / blake3(repr(identity).encode()).hexdigest()[:12])
    elif servers is not None:
        raise UserError("--servers is for --out kafka")
    with stopping() as stop, progress(f"fetching {what} of {', '.join(asked.symbols)}", 1.0, as_json) as update:
        done = fetch_history(asked, what, timeframe, from_ms, to_ms, Path(target), stopping=stop.is_set, progress=update)
    if kafka is not None and not done["stopped"]:
        _to_topics(done, made, kafka, as_json)
    elif as_json:
        print_json(done)
    else:
        _print(done)


def _to_topics(done: dict[str, Any], made: Any, kafka: Any, as_json: bool) -> None:
    from cli.ingesting import ingest, tape_writer
    from sources.ingest_pace import beat_of
    from sources.tape import open_tape
    files = [f["path"] for f in done["files"] if f["rows"]]
    if not files:
        raise UserError("the exchange has nothing of that; nothing was written")
    if not as_json:
        _print(done)
    source = open_tape(files)
    beat_ns = beat_of(source, None)
    ingest(source, made, kafka, tape_writer("history", source, beat_ns), 0.0, beat_ns, "arrow", 5.0, as_json)


def _print(done: dict[str, Any]) -> None:
    print_table(("file", "rows", "missing"), [
        (f["path"] if f["rows"] else "(nothing)", f["rows"], sum(max(0, g["missing"]) for g in f["gaps"])) for f in done["files"]])
    for f in done["files"]:
        for gap in f["gaps"][:10]:
            first, end = (gap["from"], gap["to"]) if "from" in gap else (gap["from_id"], gap["to_id"])
            out.print(f"{f['symbol']}: the exchange does not have {gap['missing']:,} between {first} and {end}", highlight=False,
                      soft_wrap=True)
        if len(f["gaps"]) > 10:
            out.print(f"{f['symbol']}: and {len(f['gaps']) - 10} gaps more, in gaps.json", highlight=False)
    if done["stopped"]:
        err.print("stopped; the same command goes on from here", highlight=False)
    elif all(f["already"] for f in done["files"]):
        err.print("everything was there already", highlight=False)
