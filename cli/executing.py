"""`penstock execute`: approved orders to a venue, and `penstock exchange fake`: a venue to rehearse with."""

import asyncio
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cli.output import err, out, print_json, print_table
from schemas.errors import UserError

BROKEN_EXIT = 3


def execute_command(config: str | None, servers: str | None, venue: str | None, live: bool, dry_run: bool, drain: bool,
                    skip_offset: list[int], as_json: bool) -> int:
    """Run it; 3 where an approval did not follow from the one before."""
    from cli.connecting import kafka_of
    from cli.logs import say_error
    from dataflows.execute import execute
    from sinks.venue_open import FAKE, is_real, with_venue
    from telemetry.serve import start
    if live and dry_run:
        raise UserError("--live sends orders and --dry-run sends none; give one of them")
    loaded, kafka = _connection(kafka_of, config, servers, venue, dry_run)
    section = with_venue(loaded.venue, venue or (FAKE if dry_run and loaded.venue is None else None))
    if is_real(section, live) and not dry_run:
        err.print(f"REAL orders go to {section.name}, for account {loaded.account}", highlight=False)
    exporter = start(loaded.live, "execute")
    try:
        outcome = execute(kafka, section, loaded.account, live=live, dry_run=dry_run, drain=drain or dry_run, skip=frozenset(skip_offset),
                          told=_tell if dry_run and not as_json else _silent)
    finally:
        if exporter is not None:
            exporter.stop()
    shown = {"account": loaded.account, "venue": section.name, "real": is_real(section, live), "dry_run": dry_run,
             **asdict(outcome.counts), "open": outcome.orders_open, "broken": outcome.broken or None}
    if as_json:
        print_json(shown)
    else:
        _print(shown)
    if outcome.broken:
        say_error(f"{outcome.broken}; nothing is sent any more. Look at the message (`penstock topics tail approved`) and at who may "
                  "write to the topic; if it is not the pipeline's, leave it out with --skip-offset")
        return BROKEN_EXIT
    return 0


def _connection(kafka_of: Any, config: str | None, servers: str | None, venue: str | None, dry_run: bool) -> Any:
    """The configuration and its Kafka. A venue that is not used wants no secrets."""
    from cli.secrets import expanded
    from research.replaying import load_config
    made = load_config(config)
    used = made.venue if made.venue is not None and venue in (None, made.venue.name) else None
    if used is not None and dry_run:
        used = replace(used, key="", secret="", options={})
    # the exchange that prices come from is not this process's
    filled = expanded(replace(made, venue=used, exchange=None))
    if servers is not None:
        from schemas.config_live import KafkaConfig
        return filled, replace(filled.kafka or KafkaConfig(), servers=servers)
    if filled.kafka is None:
        return kafka_of(config, None)  # says what is missing
    return filled, filled.kafka


def _silent(approval: Any, what: str) -> None:
    """Nothing for each order."""


def _tell(approval: Any, what: str) -> None:
    from schemas.codec_json import money_text
    from schemas.ids import id_text
    from schemas.tables import SIDES
    from schemas.tables_desk import ORDER_TYPES
    row = approval.row
    price = f" at {money_text(int(row['limit_price']))}" if int(row["limit_price"]) else ""
    out.print(f"{int(row['approval_no'])} {id_text(int(row['order_id']))} {ORDER_TYPES[int(row['order_type'])]} {SIDES[int(row['side'])]} "
              f"{money_text(int(row['quantity']))} {approval.symbol}{price}: {what}", highlight=False)


def _print(shown: dict[str, Any]) -> None:
    refused = ", ".join(f"{k} {n}" for k, n in shown["refusals"].items())
    print_table(("", ""), [
        ("account, venue", f"{shown['account']}, {shown['venue']}{' (dry run)' if shown['dry_run'] else ''}"),
        ("approvals", f"{shown['approvals']:,} verified ({shown['cancels']:,} to cancel), {shown['duplicates']:,} more were there twice"),
        ("orders sent", f"{shown['sent']:,}, {shown['resent']:,} of them again after they had not arrived"),
        ("filled, cancelled, open", f"{shown['filled']:,}, {shown['cancelled']:,}, {shown['open']:,}"),
        ("refused by the venue", f"{shown['rejected']:,}{f' ({refused})' if refused else ''}"),
        ("too old to be sent", f"{shown['expired']:,}"),
        ("asked by id after no answer", f"{shown['doubted']:,}"),
        ("reports", f"{shown['reports']:,}"),
    ])


def fake_exchange_command(price: list[str], port: int, file: str | None, fee_bps: str, cue: list[str], misbehave: float, seed: int,
                          as_json: bool) -> None:
    """Serve it until Ctrl-C or SIGTERM."""
    from sinks.fake_books import Books
    from sinks.fake_cues import Cues
    from sinks.fake_exchange import FakeExchange
    if not 0 <= misbehave <= 1:
        raise UserError(f"--misbehave {misbehave:g} is a share of the requests, from 0 to 1")
    prices = {}
    for text in price:
        symbol, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'--price "{text}" is not written like BTC/USDT=50000')
        prices[symbol] = value
    path = Path(file) if file else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    cues = Cues(misbehave, seed)
    cues.add(cue)
    asyncio.run(_serve(FakeExchange(Books(prices, path, fee_bps), cues), port, as_json))


async def _serve(exchange: Any, port: int, as_json: bool) -> None:
    url = await exchange.start(port=port)
    shown = {"url": url, "symbols": list(exchange.books.prices), "orders": len(exchange.books.orders)}
    if as_json:
        print_json(shown)
    else:
        out.print(f"fake exchange at {url}: {', '.join(shown['symbols'])}; {shown['orders']} orders in its books", highlight=False)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await ended.wait()
    finally:
        await exchange.stop()
        exchange.books.close()
