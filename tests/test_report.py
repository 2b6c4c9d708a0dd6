"""The report: complete, self-contained, escaped, honest about few trades, and whole or not there."""

import json
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from research.report import ReportData, report_html, write_html
from research.report_meanings import REFUSALS, REJECTED
from research.report_numbers import longest_streak, periods, round_trips, thinned
from research.report_page import money, percent, price
from schemas.codec import to_arrow
from schemas.errors import UserError
from schemas.tables import BARS, LATE, REJECT_REASONS, Rows, TableSpec
from schemas.tables import REJECTED as REJECTED_TABLE
from schemas.tables_desk import DECISIONS, EQUITY, FILLS, HALTED, LIMITS, POSITIONS

HOSTILE = '</script><img src=x onerror=alert(1)>"&'
SYMBOLS = ("BTCUSDT", "<b>ETH")
UNIT = 10**8
MINUTE_NS = 60 * 10**9
START_NS = 1_617_235_200 * 10**9  # 2021-04-01


def fills(trips: list[tuple[int, int, int, int]]) -> Rows:
    """Round trips of one unit: (strategy, symbol, entry price, exit price), two fills each, a fee of 0.5 a fill, ten minutes apart."""
    rows = FILLS.empty(2 * len(trips))
    for k, (strategy, symbol, entry, leave) in enumerate(trips):
        for j, at in enumerate((entry, leave)):
            row = rows[2 * k + j]
            row["ts_event_ns"] = START_NS + (20 * k + 10 * j) * MINUTE_NS
            row["fill_no"], row["strategy"], row["symbol"] = 2 * k + j + 1, strategy, symbol
            row["side"], row["quantity"], row["price"], row["reference"] = 1 + j, UNIT, at * UNIT, at * UNIT - UNIT // 4
            row["fee"], row["closed"], row["cause"] = UNIT // 2, j, j
            row["realised"], row["trade_pnl"] = j * (leave - entry) * UNIT, j * (leave - entry - 1) * UNIT
    return rows


def bars(n: int) -> Rows:
    rows = BARS.empty(n)
    rows["seq"], rows["symbol"], rows["interval_ns"] = np.arange(n), np.arange(n) % 2, MINUTE_NS
    rows["ts_open_ns"] = START_NS + np.arange(n) * MINUTE_NS
    rows["ts_close_ns"] = rows["ts_open_ns"] + MINUTE_NS
    rows["close"] = 100.0 + np.sin(np.arange(n))
    return rows


def data(trips: list[tuple[int, int, int, int]], names: tuple[str, ...] = (HOSTILE,), **changes: Any) -> ReportData:
    made = fills(trips)
    n = max(len(trips) * 20, 1)
    equity = EQUITY.empty(n)
    equity["ts_event_ns"] = START_NS + np.arange(n) * MINUTE_NS
    pnl = sum(leave - entry - 1 for _, _, entry, leave in trips)
    equity["equity"] = np.linspace(1000, 1000 + pnl, n) * UNIT
    summary = {
        "run_id": "run-7", "rows": 12_345, "seconds": 1.5, "seconds_total": 2.5, "rows_per_second": 8230.0,
        "counts": {"bars": 50, "fills": len(made)}, "equity_final": f"{1000 + pnl}.00000000", "pnl": f"{pnl}.00000000",
        "fees": f"{len(trips)}.00000000", "drawdown_max": 0.0321, "sharpe": 1.2345 if trips else None,
        "win_rate": 0.5 if trips else None, "profit_factor": 1.75 if trips else None, "trades": len(trips),
        "refusals": {"heat": 1234} if trips else {}, "hashes": {"bars": "ab" * 16},
    }

    def table(spec: TableSpec, rows: Rows) -> pa.Table:
        return to_arrow(spec, rows, SYMBOLS, names)

    return replace(ReportData(
        bars=table(BARS, bars(50 if trips else 0)), decisions=table(DECISIONS, DECISIONS.empty(len(trips))), fills=table(FILLS, made),
        positions=table(POSITIONS, POSITIONS.empty(0)), equity=table(EQUITY, equity if trips else equity[:0]),
        rejected=table(REJECTED_TABLE, REJECTED_TABLE.empty(3 if trips else 0)), late=table(LATE, LATE.empty(0)), summary=summary,
        strategy_names=names, config={"account": HOSTILE}, policy="version: 1\n", data={"paths": [HOSTILE]}, digests={"policy": "feed0123"},
    ), **changes)


TRIPS = [(0, k % 2, 100, 104 if k % 3 else 97) for k in range(40)]


class Page(HTMLParser):
    """Collects what a browser would load and what a reader would see; fails where tags do not match."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


@pytest.fixture(scope="module")
def html() -> str:
    return report_html(data(TRIPS))


def test_the_page_parses_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.loads == []
    assert not {"link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert "@import" not in html.split("<script>")[0] and "url(" not in html.split("<script>")[0]
    assert html.count("Plotly.newPlot(") >= 3


def test_the_page_tells_the_numbers_of_the_summary(html: str) -> None:
    text = Page(html).text
    for shown in ("run-7", "12,345", "8,230 rows/s", "1,022.00", "+22.00", "3.21 %", "1.23", "50.00 %", "1.75", "1,234", "ab" * 16, "feed0123",
                  "2021-04-01", "0.0321", "1.2345", "3 rows were rejected"):
        assert shown in text, shown
    for name in ("Equity and drawdown", "Strategies", "Symbols", "Returns", "Trades", "Refusals by reason", "Costs", "Data quality"):
        assert name in text
    assert REFUSALS["heat"] in text


def test_hostile_names_stay_text(html: str) -> None:
    page = Page(html)
    assert HOSTILE in page.text
    assert "<img src=x" not in html and "<b>ETH" not in html
    assert escape(HOSTILE) in html


def test_few_trades_and_a_halt_are_warned_of(html: str) -> None:
    assert "Warning." not in Page(html).text
    few = Page(report_html(data(TRIPS[:29]))).text
    assert "Only 29 trades" in few
    equity = EQUITY.empty(2)
    equity["ts_event_ns"], equity["trading_state"], equity["equity"] = START_NS, (1, HALTED), UNIT
    assert "Trading halted at 2021-04-01 00:00:00 UTC" in Page(report_html(data(TRIPS, equity=to_arrow(EQUITY, equity, SYMBOLS)))).text


def test_a_run_without_trades_or_rows_has_a_report() -> None:
    text = Page(report_html(data([]))).text
    assert "Only 0 trades" in text and "No round trip was completed" in text and "no rows" in text
    assert "nan" not in text.lower().split()


def test_the_same_data_gives_the_same_bytes(html: str) -> None:
    assert report_html(data(TRIPS)) == html


def test_only_the_last_trades_are_listed() -> None:
    text = Page(report_html(data(TRIPS * 13))).text
    assert "The last 500 of 520 round trips" in text


def test_round_trips_follow_the_fills_whatever_their_order() -> None:
    made = fills([(0, 0, 100, 110), (0, 1, 100, 90), (1, 0, 50, 60)])
    extra = made[:1].copy()  # a second entry fill makes the price an average
    extra["price"], extra["quantity"], extra["fill_no"] = 104 * UNIT, 3 * UNIT, 1
    made["fill_no"] += 1
    for rows in (np.concatenate([extra, made]), np.concatenate([made, extra])[::-1]):
        found = round_trips(to_arrow(FILLS, rows, SYMBOLS, ("a", "b")))
        assert found.strategy.tolist() == ["a", "a", "b"] and found.symbol.tolist() == ["BTCUSDT", "<b>ETH", "BTCUSDT"]
        assert found.entry.tolist() == [103.0, 100.0, 50.0] and found.exit.tolist() == [110.0, 90.0, 60.0]
        assert found.quantity.tolist() == [4.0, 1.0, 1.0] and found.fee.tolist() == [1.5, 1.0, 1.0]
        assert found.pnl.tolist() == [9.0, -11.0, 9.0] and found.long.all() and found.open == 0


def test_an_unfinished_trip_is_counted_and_not_listed() -> None:
    found = round_trips(to_arrow(FILLS, fills([(0, 0, 100, 110), (0, 0, 100, 90)])[:3], SYMBOLS, ("a",)))
    assert len(found) == 1 and found.open == 1


def test_periods_add_up_to_the_change_of_the_equity() -> None:
    made = data(TRIPS)
    found = periods("D", made.equity, 1000.0, round_trips(made.fills), made.fills)
    assert sum(p.pnl for p in found) == pytest.approx(22.0)
    assert sum(p.trades for p in found) == 40 and sum(p.fees for p in found) == pytest.approx(40.0)


def test_thinning_keeps_ends_and_extremes() -> None:
    values = np.sin(np.arange(100_001) / 777.0)
    values[54_321], values[12_345] = 9.0, -9.0
    kept = thinned(values, 1000)
    assert {0, 12_345, 54_321, 100_000} <= set(kept.tolist()) and len(kept) <= 1010
    assert thinned(values[:7], 1000).tolist() == list(range(7))


def test_every_reason_is_explained() -> None:
    assert set(REFUSALS) == set(LIMITS) and set(REJECTED) == set(REJECT_REASONS)


def test_numbers_read_well() -> None:
    assert money(1234567.891) == "1,234,567.89" and money(-0.27996) == "−0.2800" and money(0.0) == "0.00" and money(float("nan")) == "–"
    assert price(0.0014932) == "0.00149320" and price(58_123.4) == "58,123.40" and percent(9.98e-6) == "0.000998 %"
    assert longest_streak(np.array([True, True, False, True])) == 2 and longest_streak(np.zeros(0, bool)) == 0


def test_a_report_is_whole_or_not_there(tmp_path: Path) -> None:
    place = tmp_path / "out.html"
    assert write_html("first", place) == place
    assert place.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["out.html"]
    with pytest.raises(UserError, match="cannot write the report"):
        write_html("second", tmp_path / "missing" / "out.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"):
        write_html("third", tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "out.html"]


def test_the_configuration_is_shown_as_json(html: str) -> None:
    assert json.dumps(HOSTILE)[1:-1] in Page(html).text
