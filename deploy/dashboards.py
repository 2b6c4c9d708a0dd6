"""Writes the dashboards of Grafana: `python deploy/dashboards.py`. The tests compare what it makes with what is there.

A dashboard is a list of rows of panels; a panel is a title, a unit, its expressions and how it is drawn. Every metric in
an expression is one of `telemetry.metrics`, of the default collectors of a process, or Prometheus's own `up`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).resolve().parent / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
Drawn = Literal["timeseries", "stat", "table", "state-timeline"]


@dataclass(frozen=True)
class Panel:
    """title; unit as Grafana names it; expressions with their legends; what it tells, shown behind the (i)."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    tells: str
    drawn: Drawn = "timeseries"
    width: int = 8
    height: int = 8
    red_from: float | None = None


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """p50, p95 and p99 of a histogram."""
    group, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple((f"histogram_quantile({q / 100:g}, sum by ({group}) (rate({metric}_bucket[$__rate_interval])))", f"{legend}p{q}")
                 for q in (50, 95, 99))


OVERVIEW = (
    (
        Panel("Trading", "none", (('max by (state) (penstock_trading_state{account=~"$account"}) == 1', "{{state}}"),),
              "The state that trading is in. It begins disabled: penstock control enable.", "stat", 4, 4),
        Panel("Equity", "none", (('sum(penstock_equity_quote{account=~"$account"})', "equity"),), "Cash plus positions, quote units.", "stat", 4, 4),
        Panel("Drawdown", "percentunit", (('max(penstock_drawdown_ratio{account=~"$account"})', "drawdown"),
                                          ('max(penstock_drawdown_halt_ratio{account=~"$account"})', "halts at")),
              "Distance from the highest equity, and where trading halts.", "stat", 4, 4),
        Panel("Waiting messages", "short", (('sum(penstock_lag_messages{job="pipeline"})', "pipeline"),), "On Kafka and not read yet.", "stat", 4, 4,
              red_from=10_000),
        Panel("Dead letters", "short", (("sum(increase(penstock_dead_letters_total[24h]))", "24 h"),), "Messages that could not be read.", "stat", 4, 4,
              red_from=1),
        Panel("Processes", "none", (("up", "{{job}}"),), "1: answers. 0: does not.", "stat", 4, 4),
    ),
    (
        Panel("Equity", "none", (('penstock_equity_quote{account=~"$account"}', "{{account}}"),), "Quote units.", width=8),
        Panel("Drawdown", "percentunit", (('penstock_drawdown_ratio{account=~"$account"}', "{{account}}"),
                                          ('penstock_drawdown_halt_ratio{account=~"$account"}', "{{account}} halts")),
              "Of the highest equity.", width=8),
        Panel("Trading state", "none", (('max by (state) (penstock_trading_state{account=~"$account"})', "{{state}}"),),
              "1 for the state that trading is in.", "state-timeline", 8),
    ),
    (
        Panel("Frame latency by stage", "s", quantiles("penstock_frame_seconds", "stage"), "read, sequence, market, desk, sink.", width=12),
        Panel("Tick on Kafka to order on Kafka", "s", quantiles("penstock_order_latency_seconds"),
              "From the message of the row that caused it to the order.", width=12),
    ),
    (
        Panel("Orders and refusals by reason", "ops", (
            ("sum(rate(penstock_orders_approved_total[$__rate_interval]))", "approved"),
            ("sum by (reason) (rate(penstock_orders_refused_total[$__rate_interval])) > 0", "refused: {{reason}}")),
              "What the gate said of each proposal.", width=8),
        Panel("Orders by state, fills", "ops", (("sum by (state) (rate(penstock_orders_total[$__rate_interval]))", "{{state}}"),
                                                ("sum(rate(penstock_fills_total[$__rate_interval]))", "fills")),
              "States that orders came into.", width=8),
        Panel("Exposure and positions", "none", (('penstock_exposure_quote{account=~"$account"}', "exposure"),
                                                 ('penstock_positions_open{account=~"$account"}', "positions"),
                                                 ('penstock_orders_open{account=~"$account"}', "open orders")),
              "Gross notional in quote units; open positions and orders.", width=8),
    ),
    (
        Panel("Least fresh symbols", "s", (("topk(10, penstock_freshness_seconds)", "{{symbol}}"),),
              "Event time since the newest event of a symbol.", width=8),
        Panel("Waiting messages by topic", "short", (("sum by (job, topic) (penstock_lag_messages) > 0", "{{job}} {{topic}}"),),
              "On Kafka and not read yet.", width=8),
        Panel("Rows", "rowsps", (("sum by (table) (rate(penstock_rows_total[$__rate_interval]))", "in {{table}}"),
                                 ("sum by (table) (rate(penstock_rows_made_total[$__rate_interval]))", "made {{table}}")),
              "Rows read, and rows that were made of them.", width=8),
    ),
    (
        Panel("Dead letters", "ops", (("sum by (topic) (rate(penstock_dead_letters_total[$__rate_interval]))", "{{topic}}"),),
              "penstock topics tail dead_letter shows them.", width=6),
        Panel("Sequence", "ops", (("rate(penstock_sequence_waits_total[$__rate_interval])", "waited"),
                                  ("rate(penstock_sequence_skipped_total[$__rate_interval])", "given up"),
                                  ("penstock_held_rows", "rows held")),
              "Missing numbers of writers.", width=6),
        Panel("Snapshots", "s", quantiles("penstock_snapshot_seconds"), "Time that a snapshot took.", width=6),
        Panel("Recovery store", "bytes", (("penstock_recovery_store_bytes", "{{job}}"),), "On disk.", width=6),
    ),
    (
        Panel("Memory", "bytes", (("process_resident_memory_bytes", "{{job}}"),), "Resident.", width=6),
        Panel("Open files", "short", (("process_open_fds", "{{job}}"),), "File descriptors.", width=6),
        Panel("Processor", "percentunit", (("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}}"),), "1 is one core.", width=6),
        Panel("Free disk", "bytes", (("penstock_disk_free_bytes", "{{job}}"),), "Where the process keeps its files.", width=6),
    ),
)

INGEST = (
    (
        Panel("Exchange in use", "none", (("penstock_exchange_in_use == 1", "{{exchange}}"),), "Whose rows are written.", "stat", 6, 4),
        Panel("Silent symbols", "short", (("penstock_exchange_silent_symbols", "silent"),), "By their own event rate.", "stat", 6, 4, 1),
        Panel("Clock offset", "s", (("penstock_clock_offset_seconds", "{{exchange}}"),), "The exchange's clock less this machine's.", "stat", 6, 4),
        Panel("Rows a second", "rowsps", (("sum(rate(penstock_ingest_rows_total[$__rate_interval]))", "rows"),), "Written to Kafka.", "stat", 6, 4),
    ),
    (
        Panel("Rows by table", "rowsps", (("sum by (table) (rate(penstock_ingest_rows_total[$__rate_interval]))", "{{table}}"),),
              "Written to the input topics, beats included.", width=12),
        Panel("Longest silence", "s", (("topk(10, penstock_exchange_silence_seconds)", "{{symbol}}"),),
              "Since the exchange last sent an event of a symbol.", width=12),
    ),
    (
        Panel("Connections made again", "ops", (
            ("sum by (exchange, reason) (rate(penstock_exchange_reconnects_total[$__rate_interval]))", "{{exchange}} {{reason}}"),),
              "Lost or rotated.", width=8),
        Panel("Trades fetched, trades dropped", "ops", (
            ("sum by (exchange) (rate(penstock_ingest_filled_total[$__rate_interval]))", "{{exchange}} missed and fetched"),
            ("sum by (exchange) (rate(penstock_ingest_duplicates_total[$__rate_interval]))", "{{exchange}} came twice")),
              "What the socket missed or repeated.", width=8),
        Panel("Clock offset", "s", (("penstock_clock_offset_seconds", "{{exchange}}"),), "Refused beyond exchange.clock_offset_s_max.", width=8),
    ),
    (
        Panel("Event time", "s", (("timestamp(penstock_frontier_timestamp_seconds) - penstock_frontier_timestamp_seconds", "behind the clock"),),
              "How far the pipeline's event time is behind; meaningless for a recording.", width=8),
        Panel("Archive: rows", "rowsps", (("sum by (table) (rate(penstock_archive_rows_total[$__rate_interval]))", "{{table}}"),),
              "That the warehouse acknowledged.", width=8),
        Panel("Archive: waiting", "short", (('sum by (topic) (penstock_lag_messages{job="archive"})', "{{topic}}"),), "Not in the warehouse yet.", width=8),
    ),
    (
        Panel("Archive: insert", "s", quantiles("penstock_archive_insert_seconds"), "Time that an insert took.", width=12),
        Panel("Memory", "bytes", (('process_resident_memory_bytes{job=~"ingest|archive"}', "{{job}}"),), "Resident.", width=12),
    ),
)

EXECUTION = (
    (
        Panel("Stopped", "none", (("penstock_execute_stopped", "stopped"),), "1: an approval did not follow from the one before.", "stat", 6, 4, 1),
        Panel("Unknown orders", "short", (("penstock_orders_unknown", "unknown"),), "The venue is being asked.", "stat", 6, 4, 1),
        Panel("Expired, 24 h", "short", (("increase(penstock_orders_expired_total[24h])", "expired"),), "Too old to be sent.", "stat", 6, 4, 1),
        Panel("Sent, 24 h", "short", (("increase(penstock_orders_sent_total[24h])", "sent"),), "To the venue.", "stat", 6, 4),
    ),
    (
        Panel("Orders", "ops", (("rate(penstock_orders_sent_total[$__rate_interval])", "sent"),
                                ("rate(penstock_orders_expired_total[$__rate_interval])", "expired"),
                                ("sum by (reason) (rate(penstock_orders_rejected_total[$__rate_interval]))", "rejected: {{reason}}"),
                                ("penstock_orders_unknown", "unknown now")),
              "What became of approvals.", width=12),
        Panel("Age when sent", "s", quantiles("penstock_order_age_seconds"), "Older than venue.age_s_max is not sent.", width=12),
    ),
    (
        Panel("Round trip to the venue", "s", quantiles("penstock_venue_seconds", "request"), "By request.", width=12),
        Panel("Tick on Kafka to order on Kafka", "s", quantiles("penstock_order_latency_seconds"), "The pipeline's share.", width=12),
    ),
    (
        Panel("Waiting approvals", "short", (('sum by (topic) (penstock_lag_messages{job="execute"})', "{{topic}}"),), "Not handled yet.", width=8),
        Panel("Orders by state", "ops", (("sum by (state) (rate(penstock_orders_total[$__rate_interval]))", "{{state}}"),), "As the desk sees them.", width=8),
        Panel("Memory", "bytes", (('process_resident_memory_bytes{job="execute"}', "{{job}}"),), "Resident.", width=8),
    ),
)

DASHBOARDS = {"overview": ("Penstock", OVERVIEW), "ingest": ("Penstock: ingest and archive", INGEST), "execution": ("Penstock: execution", EXECUTION)}


def panel(made: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana stores it."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if made.red_from is not None:
        steps.append({"color": "red", "value": made.red_from})
    options: dict[str, Any] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name", "colorMode": "value"},
        "table": {}, "state-timeline": {"mergeValues": True, "showValue": "never"},
    }[made.drawn]
    return {
        "id": number, "type": made.drawn, "title": made.title, "description": made.tells, "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": made.width, "h": made.height}, "options": options,
        "fieldConfig": {"defaults": {"unit": made.unit, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
        "targets": [{"refId": chr(ord("A") + k), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
                    for k, (expr, legend) in enumerate(made.queries)],
    }


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana provisions it."""
    title, rows = DASHBOARDS[name]
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        x = 0
        for made in row:
            panels.append(panel(made, len(panels) + 1, x, y))
            x += made.width
        y += max(made.height for made in row)
    account = {"name": "account", "type": "query", "datasource": SOURCE, "query": "label_values(penstock_equity_quote, account)", "includeAll": True,
               "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2}
    return {
        "uid": f"penstock-{name}", "title": title, "tags": ["penstock"], "schemaVersion": 39, "version": 1, "editable": False, "refresh": "5s",
        "timezone": "utc", "time": {"from": "now-1h", "to": "now"}, "panels": panels,
        "templating": {"list": [account] if "$account" in json.dumps(panels) else []},
        "links": [{"title": "Penstock", "type": "dashboards", "tags": ["penstock"], "asDropdown": False, "includeVars": False, "keepTime": True}],
    }


def text(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name), "utf-8")
        print(f"{name}.json")


if __name__ == "__main__":
    main()
