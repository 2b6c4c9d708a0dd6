"""The sections of the report, in the order in which they are read: each a function from the digest of a run to HTML.

The digest holds what several sections need, computed once; a section only chooses and words it.
"""

import json
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from research import report_numbers as numbers
from research.report_figures import MARKERS_MAX, equity_figure, price_figure
from research.report_meanings import REFUSALS, REJECTED
from research.report_models import models
from research.report_page import (
    DASH,
    Html,
    bars,
    cell,
    count,
    details,
    duration,
    gain,
    money,
    para,
    percent,
    plural,
    price,
    quantity,
    ratio,
    section,
    signed,
    table,
    tile,
    toned,
    when,
)
from schemas.errors import UserError

if TYPE_CHECKING:
    from research.report import ReportData

TRADES_FEW = 30
TRADES_SHOWN = 500
SYMBOLS_DRAWN = 6
DAILY_BELOW_DAYS = 62
SHARPE_DAYS_MIN = 30


class Digest:
    """What the sections share."""

    def __init__(self, data: "ReportData") -> None:
        if "pnl" not in data.summary:
            raise UserError("the run has no summary, so there is nothing to report yet; it is running, or its process died: replay it again")
        self.data, self.summary = data, data.summary
        self.pnl, self.equity_final = float(data.summary["pnl"]), float(data.summary["equity_final"])
        self.capital = self.equity_final - self.pnl
        self.trips = numbers.round_trips(data.fills)
        self.costs = numbers.costs(data.fills, data.equity)
        self.marks = numbers.last_closes(data.bars)
        self.books = numbers.open_books(data.positions, self.marks)
        self.ts = numbers.ints(data.equity, "ts_event_ns")

    @cached_property
    def ts_range(self) -> tuple[int, int] | None:
        """First and last event time: of the bars, else of the equity."""
        if self.data.bars.num_rows:
            return int(numbers.ints(self.data.bars, "ts_open_ns").min()), int(numbers.ints(self.data.bars, "ts_close_ns").max())
        return (int(self.ts.min()), int(self.ts.max())) if len(self.ts) else None

    @property
    def days(self) -> float:
        return (self.ts_range[1] - self.ts_range[0]) / numbers.DAY_NS if self.ts_range else 0.0

    @cached_property
    def ts_halt(self) -> int | None:
        """When trading first halted: in the equity's samples or in a decision."""
        found = [int(numbers.ints(table, "ts_event_ns")[hits][0]) for table in (self.data.equity, self.data.decisions)
                 if (hits := numbers.texts(table, "trading_state") == "halted").any()]
        return min(found, default=None)

    @cached_property
    def symbols(self) -> list[str]:
        """Symbols, the most traded first."""
        traded, names = numbers.codes(self.data.fills, "symbol")
        exits = {s: int(n) for s, n in zip(*np.unique(self.trips.symbol.astype(str), return_counts=True), strict=True)}
        fills = dict(zip(names, np.bincount(traded, minlength=len(names)).tolist(), strict=True))
        known = {*self.marks, *names, *numbers.codes(self.data.rejected, "symbol")[1]} - {""}
        return sorted(known, key=lambda s: (-exits.get(s, 0), -fills.get(s, 0), s))


def header(d: Digest, title: str) -> str:
    """Whose run it is and what it saw."""
    s, span = d.summary, d.ts_range
    facts = [
        ("Data (UTC)", f"{when(span[0], False)} to {when(span[1], False)}, {duration(span[1] - span[0])}" if span else "no rows"),
        ("Symbols", f"{len(d.symbols)}" + (f": {', '.join(sorted(d.symbols)[:8])}{', …' if len(d.symbols) > 8 else ''}" if d.symbols else "")),
        ("Strategies", ", ".join(d.data.strategy_names) or "none"),
        ("Input rows", count(s["rows"])),
        *([("Speed", f"{s['rows_per_second']:,.0f} rows/s ({s['seconds']:,.2f} s; {s['seconds_total']:,.1f} s with start-up)")]
          if "seconds" in s else []),  # a live run takes as long as the market does
    ]
    return (f'<header class="top"><h1>{cell(title)}</h1><div class="facts">'
            + "".join(f"<div><b>{cell(k)}</b><span>{cell(v)}</span></div>" for k, v in facts) + "</div></header>")


def warnings(d: Digest) -> str:
    """What a reader must know before believing a number."""
    found = []
    if d.ts_halt is not None:
        refused = d.summary["refusals"].get("trading_state", 0)
        after = f" {count(refused)} proposals were refused because of the trading state." if refused else ""
        found.append(f"Trading halted at {when(d.ts_halt)} UTC: the drawdown limit of the policy was reached, or it was halted by command.{after}")
    if d.summary["trades"] < TRADES_FEW:
        found.append(f"Only {plural(d.summary['trades'], 'trade')}: under {TRADES_FEW} round trips, win rate, profit factor and Sharpe ratio say next to nothing.")
    return "".join(f'<p class="warn" role="alert"><b>Warning.</b> {cell(text)}</p>' for text in found)


def tiles(d: Digest) -> str:
    """The headline numbers."""
    s = d.summary
    made = [
        tile("P&L", gain(d.pnl), f"{percent(d.pnl / d.capital if d.capital else None, sign=True)} of {money(d.capital)}"),
        tile("Final equity", money(d.equity_final), plural(len(d.books), "position") + " still open" if d.books else "all positions closed"),
        tile("Largest drawdown", percent(s["drawdown_max"]), "of the highest equity before it"),
        tile("Sharpe ratio", ratio(s["sharpe"]), "hourly, annualised" + (f"; only {duration(d.days * numbers.DAY_NS)} of data"
                                                                         if d.days < SHARPE_DAYS_MIN else "")),
        tile("Win rate", percent(s["win_rate"]), "of round trips, after fees"),
        tile("Profit factor", ratio(s["profit_factor"]), "gains / losses"),
        tile("Trades", count(s["trades"]), "round trips" + (f", {d.trips.open} more open" if d.trips.open else "")),
        tile("Fees", money(float(s["fees"])), f"on a turnover of {money(d.costs.turnover)}"),
    ]
    return f'<div class="tiles">{"".join(made)}</div>'


def equity(d: Digest) -> str:
    if not len(d.ts):
        return section("equity", "Equity and drawdown", para("The run has no equity samples."))
    values, drawdown = numbers.floats(d.data.equity, "equity"), numbers.floats(d.data.equity, "drawdown")
    return section("equity", "Equity and drawdown", equity_figure(d.ts, values, drawdown, d.capital, d.ts_halt),
                   para("Cash plus positions at the last prices, in quote units; below, the distance from the highest equity before. "
                        "The dotted line is the capital at the start."))


def strategies(d: Digest) -> str:
    """Who made what; the sum of the rows and the remainder is the run's P&L."""
    fills, decisions, trips = d.data.fills, d.data.decisions, d.trips
    by, whose = numbers.texts(fills, "strategy"), numbers.texts(decisions, "strategy")
    approved = numbers.ints(decisions, "approved") == 1
    names = list(dict.fromkeys([*d.data.strategy_names, *sorted({*by, *whose} - {""})]))
    realised, fee = numbers.floats(fills, "realised"), numbers.floats(fills, "fee")
    rows: list[tuple[object, ...]] = []
    told = 0.0
    for name in names:
        mine, pnl = by == name, trips.pnl[trips.strategy == name]
        unrealised = sum(b.unrealised for b in d.books if b.strategy == name)
        total = float(realised[mine].sum() - fee[mine].sum()) + unrealised
        told += total
        proposals = whose == name
        rows.append((name, gain(total), count(len(pnl)), percent(numbers.win_rate(pnl)), ratio(numbers.profit_factor(pnl)), money(float(fee[mine].sum())),
                     gain(unrealised) if unrealised else DASH, count(int(proposals.sum())), count(int((proposals & ~approved).sum()))))
    rest = d.pnl - told
    if money(told) != money(d.pnl):
        rows.append(("funding, and prices after the last bar", gain(rest), *[DASH] * 7))
    foot = ("all", gain(d.pnl), count(len(trips)), percent(numbers.win_rate(trips.pnl)), ratio(numbers.profit_factor(trips.pnl)), money(float(fee.sum())),
            gain(sum(b.unrealised for b in d.books)) if d.books else DASH, count(len(whose)), count(int((~approved).sum())))
    heads = ("Strategy", "P&L", "Trades", "Win rate", "Profit factor", "Fees", "Unrealised", "Proposals", "Refused")
    return section("strategies", "Strategies", table(heads, rows, foot=foot),
                   para("P&L is after fees and slippage, with open positions at the close of the last bar (unrealised)."), _statistics(d))


def _statistics(d: Digest) -> str:
    """The distribution of the round trips, and of time."""
    pnl, held = d.trips.pnl, d.trips.ts_exit - d.trips.ts_entry
    if not len(pnl):
        return ""
    wins, losses = pnl[pnl > 0], pnl[pnl < 0]
    exposure, value = numbers.floats(d.data.equity, "exposure"), numbers.floats(d.data.equity, "equity")
    left = [("Average trade", gain(float(pnl.mean()))), ("Median trade", gain(float(np.median(pnl)))),
            ("Average winner", gain(float(wins.mean())) if len(wins) else None), ("Average loser", gain(float(losses.mean())) if len(losses) else None),
            ("Best / worst", Html(f"{gain(float(pnl.max()))} / {gain(float(pnl.min()))}"))]
    right = [("Held, median", duration(float(np.median(held)))), ("Held, longest", duration(float(held.max()))),
             ("Most wins / losses in a row", f"{numbers.longest_streak(pnl > 0)} / {numbers.longest_streak(pnl <= 0)}"),
             ("Time in the market", percent(float((exposure > 0).mean())) if len(exposure) else None),
             ("Exposure, average of equity", percent(float((exposure / np.where(value > 0, value, np.nan)).mean())) if len(exposure) else None)]
    return f'<h3>Trades in numbers</h3><div class="two">{table(("", ""), left, kind="plain")}{table(("", ""), right, kind="plain")}</div>'


def symbols(d: Digest) -> str:
    fills, trips = d.data.fills, d.trips
    of, refused_of = numbers.texts(fills, "symbol"), numbers.texts(d.data.decisions, "symbol")
    refused = numbers.ints(d.data.decisions, "approved") == 0
    realised, fee = numbers.floats(fills, "realised"), numbers.floats(fills, "fee")
    turnover = numbers.floats(fills, "quantity") * numbers.floats(fills, "price")
    rows = []
    for name in d.symbols:
        mine, pnl = of == name, trips.pnl[trips.symbol == name]
        total = float(realised[mine].sum() - fee[mine].sum()) + sum(b.unrealised for b in d.books if b.symbol == name)
        _, close = numbers.shortest_bars(d.data.bars, name)
        moved = float(close[-1] / close[0] - 1) if len(close) else None
        rows.append((name, gain(total), count(len(pnl)), percent(numbers.win_rate(pnl)), money(float(fee[mine].sum())), money(float(turnover[mine].sum())),
                     count(int(((refused_of == name) & refused).sum())), price(close[-1]) if len(close) else None, toned(percent(moved, sign=True), moved)))
    heads = ("Symbol", "P&L", "Trades", "Win rate", "Fees", "Turnover", "Refused", "Last close", "Price moved")
    return section("symbols", "Symbols", table(heads, rows) if rows else para("No symbols."), _open(d))


def _open(d: Digest) -> str:
    if not d.books:
        return ""
    rows = [(b.strategy, b.symbol, quantity(b.quantity), price(b.entry), price(b.mark), gain(b.unrealised)) for b in d.books]
    return "<h3>Open at the end</h3>" + table(("Strategy", "Symbol", "Quantity", "Entry", "Last close", "Unrealised"), rows, words=2)


def prices(d: Digest) -> str:
    """The most traded symbols, one at a time."""
    drawn = [s for s in d.symbols if s in d.marks][:SYMBOLS_DRAWN]
    if not drawn:
        return section("prices", "Price, entries and exits", para("No bars closed."))
    buttons = "".join(f'<button type="button" data-panel="panel-{k}" aria-pressed="{"false" if k else "true"}">{cell(s)}</button>' for k, s in enumerate(drawn))
    panels = "".join(f'<div class="panel" id="panel-{k}"{" hidden" if k else ""}><h3>{cell(s)}</h3>'
                     f"{price_figure(k, s, *numbers.shortest_bars(d.data.bars, s), d.trips)}</div>" for k, s in enumerate(drawn))
    more = f"The {len(drawn)} most traded of {len(d.symbols)} symbols. " if len(d.symbols) > len(drawn) else ""
    return section("prices", "Price, entries and exits", f'<div class="tabs">{buttons}</div>' if len(drawn) > 1 else "", panels,
                   para(f"{more}Closes, thinned to the highs and lows of short stretches; at most the last {MARKERS_MAX} round trips of a symbol. "
                        "A line from entry to exit is green where the trip made money after fees. "
                        "A figure opens on the time in which the symbol was traded; a double click shows all of it."))


def returns(d: Digest) -> str:
    """Months, and the days of a run that is shorter than two."""
    def rows(found: list[numbers.Period]) -> list[tuple[object, ...]]:
        return [(p.label, toned(percent(p.returns, sign=True), p.returns), gain(p.pnl), count(p.trades), money(p.fees)) for p in found]

    if not len(d.ts):
        return section("returns", "Returns", para("The run has no equity samples."))
    heads, text = ("Return", "P&L", "Trades", "Fees"), "Change of the equity, open positions included; a trade counts where it closed."
    args = d.data.equity, d.capital, d.trips, d.data.fills
    parts = [table(("Month", *heads), rows(numbers.periods("M", *args)))]
    if d.days < DAILY_BELOW_DAYS:
        days = numbers.periods("D", *args)
        busy = [p for p in days if p.pnl or p.trades or p.fees]
        parts.append(f"<h3>By day</h3>{table(('Day', *heads), rows(busy))}" if busy else "")
        if len(busy) < len(days):
            text += f" {count(len(days) - len(busy))} of {count(len(days))} days had neither a trade nor a change and are left out."
    return section("returns", "Returns", *parts, para(text))


def trades(d: Digest) -> str:
    t = d.trips
    first = max(len(t) - TRADES_SHOWN, 0)
    note = (f"The last {TRADES_SHOWN} of {count(len(t))} round trips; all of them are in the warehouse, table fills." if first else f"All {count(len(t))} round trips.")
    if not len(t):
        return section("trades", "Trades", para("No round trip was completed."))
    rows = [(str(t.strategy[k]), str(t.symbol[k]), "long" if t.long[k] else "short", when(t.ts_entry[k]), when(t.ts_exit[k]), price(t.entry[k]), price(t.exit[k]),
             quantity(t.quantity[k]), money(t.fee[k]), gain(t.pnl[k]), str(t.cause[k])) for k in range(len(t) - 1, first - 1, -1)]
    heads = ("Strategy", "Symbol", "Side", "Entry (UTC)", "Exit (UTC)", "Entry price", "Exit price", "Quantity", "Fees", "P&L", "Closed by")
    return section("trades", "Trades", f'<div class="long">{table(heads, rows, words=5)}</div>',
                   para(f"{note} Latest first; prices are averages over the fills, P&L is after fees."))


def refusals(d: Digest) -> str:
    found = d.summary["refusals"]
    decided = int(d.data.decisions.num_rows)
    total = sum(found.values())
    text = f"{count(decided)} proposals reached the gate: {count(decided - total)} approved, {count(total)} refused"
    text += f" ({percent(total / decided)})." if decided else "."
    return section("refusals", "Refusals by reason", bars((name, n, REFUSALS.get(name, "")) for name, n in found.items()),
                   para(text + (" A proposal that several limits would refuse counts under the first of them." if total else "")))


def costs(d: Digest) -> str:
    c = d.costs
    gross = d.pnl + c.total
    rows = [(name, money(v), ratio(v / c.turnover * 1e4) if c.turnover else None, percent(v / gross) if gross > 0 else None)
            for name, v in (("Fees", c.fees), ("Slippage", c.slippage), ("Funding", c.funding))]
    foot = ("All costs", money(c.total), ratio(c.total / c.turnover * 1e4) if c.turnover else None, percent(c.total / gross) if gross > 0 else None)
    said = (f"Before costs the strategies made {money(gross)}; costs took {percent(c.total / gross)} of it." if gross > 0 else
            f"Before costs the strategies already lost {money(-gross)}, so that a share of gross P&L has no meaning." if gross < 0 else "Nothing was traded.")
    return section("costs", "Costs", table(("Cost", "Quote units", "bps of turnover", "Share of gross P&L"), rows, foot=foot, kind="narrow"),
                   para(f"{said} Slippage is the distance between the price of a fill and the market price that it was filled from, times quantity; "
                        f"turnover was {money(c.turnover)}."))


def quality(d: Digest) -> str:
    """What was wrong with, or missing from, the input."""
    data = d.data
    reasons, names = numbers.codes(data.rejected, "reason")
    dropped = sorted(zip(names, np.bincount(reasons, minlength=len(names)).tolist(), strict=True), key=lambda item: -item[1])
    of, symbols = numbers.codes(data.bars, "symbol")
    gap, opened = numbers.ints(data.bars, "gap"), numbers.ints(data.bars, "ts_open_ns")
    closed = numbers.ints(data.bars, "ts_close_ns")
    rejected, late = numbers.texts(data.rejected, "symbol"), numbers.texts(data.late, "symbol")
    rows = []
    for k, name in enumerate(symbols):
        mine = of == k
        rows.append((name, count(int(mine.sum())), when(opened[mine].min(), False), when(closed[mine].max(), False), count(int((gap[mine] > 0).sum())),
                     count(int(gap[mine].sum())), count(int(gap[mine].max())), count(int((rejected == name).sum())), count(int((late == name).sum()))))
    heads = ("Symbol", "Bars", "First (UTC)", "Last (UTC)", "Gaps", "Empty intervals", "Longest gap", "Rejected", "Late")
    return section(
        "quality", "Data quality",
        para(f"{count(data.rejected.num_rows)} rows were rejected and {count(data.late.num_rows)} came after their bar had closed.", "fact"),
        bars((name, n, REJECTED.get(name, "")) for name, n in dropped) if dropped else "", table(heads, rows) if rows else "",
        para("A gap is a stretch of intervals without a row between two bars, its length counted in intervals. In a quiet market that is no loss of data; bars are not invented."))


def provenance(d: Digest) -> str:
    """What made the numbers, and the hashes by which they can be compared."""
    s, data = d.summary, d.data
    paths = data.data.get("paths") or []
    made = [("run", s["run_id"]), *((k, Html(f"<code>{cell(v)}</code>")) for k, v in data.digests.items() if v),
            *(("input", str(p)) for p in paths[:20])]
    if len(paths) > 20:
        made.append(("input", f"and {len(paths) - 20} more"))
    stages = [(k, count(s["counts"].get(k, 0)), Html(f"<code>{cell(v)}</code>")) for k, v in s["hashes"].items()]
    exact = [(k, DASH if s[k] is None else signed(str(s[k]))) for k in ("equity_final", "pnl", "fees", "drawdown_max", "sharpe", "win_rate", "profit_factor", "trades")]
    counts = ", ".join(f"{k} {count(n)}" for k, n in s["counts"].items())
    return section(
        "provenance", "Where the numbers come from", table(("What", "Value"), made, words=2, kind="wrap"),
        "<h3>Stage hashes</h3>", *(
            (table(("Stage", "Rows", "Hash"), stages, words=3, kind="wrap"),
             para("A stage's hash depends on its rows alone: a replay of the same data with the same configuration gives the same, on any engine and with any batch size."))
            if stages else (para("A live run has none; penstock parity compares it with its replay, row by row."),)),
        "<h3>The summary, unrounded</h3>", table(("Number", "Value"), exact, words=2, kind="wrap"), para(f"Rows per table: {counts}."),
        details("Policy", data.policy), details("Strategies", data.strategies),
        details("Configuration", json.dumps(dict(data.config), indent=2, default=str, ensure_ascii=False)))


SECTIONS = (equity, strategies, symbols, prices, returns, trades, models, refusals, costs, quality, provenance)
