"""What a process says of itself: counts follow the frames, the page answers, and every metric is declared and documented."""

import json
import re
import runpy
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from operators.desk.state import ACCOUNT
from schemas.config_live import LiveConfig
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.policy import Policy
from schemas.tables import BEATS, TRADES, Rows, TableSpec
from schemas.tables_desk import DECISIONS, FILLS, LIMITS, ORDER_STATES, ORDERS, REASONS, TRADING_STATES
from telemetry import metrics, serve
from telemetry.ages import Ages
from telemetry.frames import account_started, frame_made, frame_read

ROOT = Path(__file__).parents[1]
S = 10**9


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def rows(spec: TableSpec, **columns: object) -> Rows:
    made = spec.empty(len(next(iter(columns.values()))))  # type: ignore[arg-type]
    for name, values in columns.items():
        made[name] = values
    return made


def standing(*, equity: float, peak: float, exposure: float, positions: int, open_orders: int, trading_state: int) -> Rows:
    """The desk's own record of an account."""
    record = np.zeros(1, ACCOUNT)
    record["equity"], record["peak"], record["exposure"] = (int(x * 10**8) for x in (equity, peak, exposure))
    record["positions"], record["open_orders"], record["trading_state"] = positions, open_orders, trading_state
    return record


def frame(**tables: Rows) -> Frame:
    return Frame("test", 0, 10 * S, ("A", "B"), tables)


@pytest.fixture
def page() -> Iterator[serve.Exporter]:
    exporter = serve.serve(0, flow="pipeline", run="r1")
    yield exporter
    exporter.stop()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_rows_are_counted_by_table_and_symbols_grow_old() -> None:
    before = value("penstock_rows_total", table="trades"), value("penstock_rows_total", table="beats")
    metrics.FRESHNESS_SECONDS.clear()
    frame_read(frame(trades=rows(TRADES, symbol=[0, 1, 0], ts_event_ns=[1 * S, 4 * S, 3 * S]), beats=rows(BEATS, symbol=[-1], ts_event_ns=[10 * S])))
    assert value("penstock_rows_total", table="trades") == before[0] + 3
    assert value("penstock_rows_total", table="beats") == before[1] + 1
    assert metrics.FRESHNESS_SECONDS.ages_s() == {"B": 6.0, "A": 7.0}
    assert value("penstock_freshness_seconds", symbol="A") == 7.0
    assert value("penstock_frontier_timestamp_seconds") == 10.0


def test_freshness_shows_the_most_recent_symbols_only() -> None:
    ages = Ages("test_ages_seconds", "ages", CollectorRegistry(), symbols_max=3)
    names = tuple(f"S{k}" for k in range(1000))
    ages.see(names, np.arange(1000), np.arange(1000) * S)
    assert ages.ages_s() == {"S999": 0.0, "S998": 1.0, "S997": 2.0}
    ages.see(names, np.array([5, -1]), np.array([2000 * S, 2001 * S]))  # -1 speaks for no symbol, but time has passed
    assert ages.ages_s() == {"S5": 1.0, "S999": 1002.0, "S998": 1003.0}
    ages.see(names, np.array([], np.int64), np.array([], np.int64))
    ages.passed(1 * S)  # time does not go back
    assert ages.ages_s()["S5"] == 1.0


def test_freshness_is_not_hurt_by_a_scrape_while_symbols_are_added() -> None:
    ages = Ages("test_ages_seconds", "ages", CollectorRegistry())
    names: tuple[str, ...] = ()
    for k in range(300):
        names = (*names, f"S{k}")
        ages.see(names, np.array([k]), np.array([k * S]))
        assert len(ages.ages_s()) == k + 1
    assert [len(family.samples) for family in ages.collect()] == [300]


def test_decisions_orders_fills_and_the_account() -> None:
    before = {name: value(name) for name in ("penstock_decisions_total", "penstock_orders_approved_total", "penstock_fills_total", "penstock_frames_total")}
    cash = value("penstock_orders_refused_total", reason="cash")
    filled = value("penstock_orders_total", state="filled")
    decided = rows(DECISIONS, approved=[1, 0, 0], reason=[0, REASONS.index("cash"), REASONS.index("cash")], trading_state=[1, 1, 1])
    ordered = rows(ORDERS, state=[ORDER_STATES.index("new"), ORDER_STATES.index("filled")])
    made = frame(decisions=decided, orders=ordered, fills=rows(FILLS, fill_no=[1]), account=standing(equity=8_000, peak=10_000, exposure=1.5, positions=2,
                 open_orders=3, trading_state=2), trades=rows(TRADES, symbol=[0]))
    bars, trades = value("penstock_rows_made_total", table="bars"), value("penstock_rows_made_total", table="trades")
    frame_made(made, "acc", (*made.tables, "bars"))
    assert (value("penstock_rows_made_total", table="bars"), value("penstock_rows_made_total", table="trades")) == (bars, trades)
    assert value("penstock_decisions_total") == before["penstock_decisions_total"] + 3
    assert value("penstock_orders_approved_total") == before["penstock_orders_approved_total"] + 1
    assert value("penstock_fills_total") == before["penstock_fills_total"] + 1
    assert value("penstock_frames_total") == before["penstock_frames_total"] + 1
    assert value("penstock_orders_refused_total", reason="cash") == cash + 2
    assert value("penstock_orders_total", state="filled") == filled + 1
    assert value("penstock_equity_quote", account="acc") == 8000.0
    assert value("penstock_drawdown_ratio", account="acc") == 0.2
    assert value("penstock_exposure_quote", account="acc") == 1.5
    assert value("penstock_positions_open", account="acc") == 2
    assert value("penstock_orders_open", account="acc") == 3
    assert {s: value("penstock_trading_state", account="acc", state=s) for s in TRADING_STATES} == {
        "disabled": 0, "active": 0, "reducing": 1, "halted": 0}


def test_an_account_that_stands_still_is_shown_once() -> None:
    record = standing(equity=5, peak=5, exposure=0, positions=0, open_orders=0, trading_state=1)
    frame_made(frame(account=record), "still", ())
    metrics.EQUITY.labels(account="still").set(7)
    frame_made(frame(account=record), "still", ())
    assert value("penstock_equity_quote", account="still") == 7, "not written again"
    frame_made(frame(account=standing(equity=6, peak=6, exposure=0, positions=0, open_orders=0, trading_state=1)), "still", ())
    assert value("penstock_equity_quote", account="still") == 6 and value("penstock_drawdown_ratio", account="still") == 0


@pytest.fixture(autouse=True)
def nothing_waits() -> None:
    """Other tests of this process have left their lags."""
    metrics.LAG_MESSAGES.clear()
    metrics.EXECUTE_STOPPED.set(0)


def test_an_account_starts_disabled_with_every_reason_at_a_first_value() -> None:
    account_started("fresh", Policy({"drawdown_halt": "15 %"}))
    assert value("penstock_trading_state", account="fresh", state="disabled") == 1
    assert value("penstock_drawdown_halt_ratio", account="fresh") == 0.15
    assert all(REGISTRY.get_sample_value("penstock_orders_refused_total", {"reason": r}) is not None for r in LIMITS)


def test_the_page_has_metrics_and_health(page: serve.Exporter) -> None:
    status, text = get(f"{page.url}/metrics")
    assert status == 200
    found = {family.name for family in text_string_to_metric_families(text)}
    assert {"penstock_rows", "penstock_build_info", "penstock_frame_seconds", "penstock_run_info", "process_resident_memory_bytes", "process_open_fds"} <= found
    assert "_created" not in text
    status, text = get(f"{page.url}/healthz")
    said = json.loads(text)
    assert status == 200 and said["ok"] and said["flow"] == "pipeline" and said["run"] == "r1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["last_progress"])
    assert get(f"{page.url}/nothing")[0] == 404
    assert page.url.startswith("http://127.0.0.1:")


def test_health_is_lost_where_messages_wait_and_nothing_is_done() -> None:
    metrics.progressed()
    last = value("penstock_progress_timestamp_seconds")
    assert serve.health("pipeline", "r", 60, lambda: last + 3600)[0], "nothing waits: idle is healthy"
    metrics.LAG_MESSAGES.labels(topic="t", partition="0").set(5)
    try:
        assert serve.health("pipeline", "r", 60, lambda: last + 59)[0]
        ok, said = serve.health("pipeline", "r", 60, lambda: last + 61)
        assert not ok and said["why"] == "5 messages are waiting and nothing was finished for 61 s" and said["lag_messages"] == 5
    finally:
        metrics.LAG_MESSAGES.clear()


def test_health_is_lost_where_execute_has_stopped(page: serve.Exporter) -> None:
    metrics.EXECUTE_STOPPED.set(1)
    try:
        status, text = get(f"{page.url}/healthz")
    finally:
        metrics.EXECUTE_STOPPED.set(0)
    assert status == 503 and "approval" in json.loads(text)["why"]


def test_a_port_in_use_is_the_users_to_mend(page: serve.Exporter) -> None:
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{page.port}: .* give another live.metrics_port"):
        serve.serve(page.port, flow="pipeline")
    with pytest.raises(UserError, match="a port is from 0 to 65535"):
        serve.serve(70_000, flow="pipeline")


def test_each_flow_of_a_machine_has_its_port() -> None:
    assert serve.start(LiveConfig(metrics_port=0), "ingest") is None
    base = free_ports()
    exporter = serve.start(LiveConfig(metrics_port=base), "ingest", "r", process=1)
    assert exporter is not None
    try:
        assert exporter.port == base + 11
        assert json.loads(get(f"{exporter.url}/healthz")[1])["flow"] == "ingest"
    finally:
        exporter.stop()


def free_ports() -> int:
    """A port 11 below one that is free."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1]) - 11


def families(text: str) -> dict[str, Metric]:
    return {f"{f.name}_total" if f.type == "counter" else f.name: f for f in text_string_to_metric_families(text)}


def test_a_page_shows_its_own_flow_and_others_only_where_they_run_here(page: serve.Exporter) -> None:
    for gauge in (metrics.SILENT_SYMBOLS, metrics.EXECUTE_STOPPED, metrics.ORDERS_UNKNOWN):
        gauge.set(0)
    shown = families(get(f"{page.url}/metrics")[1])
    assert {d.name for d in metrics.DECLARED if d.flow in ("every", "pipeline", "desk")} <= set(shown)
    assert not {"penstock_exchange_silent_symbols", "penstock_execute_stopped", "penstock_orders_unknown"} & set(shown)
    metrics.SILENT_SYMBOLS.set(2)  # a run without a broker has the exchange in its own process
    try:
        assert "penstock_exchange_silent_symbols" in families(get(f"{page.url}/metrics")[1])
    finally:
        metrics.SILENT_SYMBOLS.set(0)
    other = families(generate_latest(metrics.page_of("ingest")).decode())
    assert "penstock_exchange_silent_symbols" in other and "penstock_held_rows" not in other and "process_open_fds" in other


def test_what_is_declared_is_what_is_shown() -> None:
    metrics.flow_started("pipeline")
    shown = families(generate_latest(REGISTRY).decode())
    ours = {name for name in shown if name.startswith("penstock_")}
    assert ours == {d.name for d in metrics.DECLARED}
    for d in metrics.DECLARED:
        assert shown[d.name].documentation == d.doc.replace("\n", " ") or d.kind == "info"
        kind = "gauge" if d.kind == "info" else d.kind
        assert shown[d.name].type == kind
        for sample in shown[d.name].samples:
            assert set(sample.labels) - {"le"} == set(d.labels), d.name


def test_names_end_in_their_unit_and_are_declared_once() -> None:
    names = [d.name for d in metrics.DECLARED]
    assert len(set(names)) == len(names)
    units = ("_seconds", "_bytes", "_ratio", "_quote", "_messages", "_total", "_info", "_rows")
    counts = {"penstock_journal_frame", "penstock_trading_state", "penstock_positions_open", "penstock_orders_open", "penstock_orders_unknown", "penstock_execute_stopped",
              "penstock_exchange_silent_symbols", "penstock_exchange_in_use"}
    assert {d.name for d in metrics.DECLARED if not d.name.endswith(units)} == counts
    assert all(d.name.startswith("penstock_") and d.doc and not d.doc.endswith(".") for d in metrics.DECLARED)


def test_every_metric_is_documented_as_it_is_declared() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["operations_page"](page)
    assert page == made, "run: python docs/generate.py"
    assert set(re.findall(r"^\| `(penstock_\w+)` \|", page, re.MULTILINE)) == {d.name for d in metrics.DECLARED}
