"""Every metric of the platform, declared once: name, labels, what it says, with the unit last.

A flow calls what it needs: `metrics.ROWS.labels(table="trades").inc(n)`. Every process has its own registry and exporter, and
Prometheus tells the processes apart by job, so the same metric may come from several flows. Labels have few values: tables,
topics with partitions, reasons, states; symbols only through `Ages`, which bounds them. The table in `docs/operations.md` is
made from `DECLARED`, and dashboards and alerts may use nothing else.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    disable_created_metrics,
)
from prometheus_client.registry import Collector, CollectorRegistry

from schemas.tables_desk import TRADING_STATES
from telemetry.ages import Ages

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asks for

Flow = Literal["every", "pipeline", "desk", "execute", "ingest", "archive"]
AnyCollector = TypeVar("AnyCollector", bound=Collector)
Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)
Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True)
class Declared:
    """A metric as Prometheus sees it: a counter's name ends in _total, a histogram has _bucket, _sum and _count."""

    name: str
    kind: Kind
    flow: Flow
    labels: tuple[str, ...]
    doc: str


DECLARED: list[Declared] = []
"""All of them, in the order of this file."""

_LATENCY_S = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_AGE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


_collectors: list[tuple[Flow, Collector]] = []
_FAMILIES: dict[str, tuple[Flow, ...]] = {"pipeline": ("every", "pipeline", "desk")}


class Page(Collector):
    """What one flow shows: its own metrics, and those of another flow where that runs in this process too (they are not 0)."""

    def __init__(self, flow: str) -> None:
        self._own = _FAMILIES.get(flow, ("every", flow))

    def collect(self) -> Iterator[Metric]:
        for process in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            yield from process.collect()
        for flow, collector in _collectors:
            for family in collector.collect():
                if flow in self._own or any(sample.value for sample in family.samples):
                    yield family


def page_of(flow: str) -> CollectorRegistry:
    """The registry that a flow's page is made from."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page(flow))
    return registry


def _kept(flow: Flow, collector: AnyCollector) -> AnyCollector:
    _collectors.append((flow, collector))
    return collector


def _counter(name: str, flow: Flow, doc: str, labels: Sequence[str] = ()) -> Counter:
    DECLARED.append(Declared(f"{name}_total", "counter", flow, tuple(labels), doc))
    return _kept(flow, Counter(name, doc, labels))


def _gauge(name: str, flow: Flow, doc: str, labels: Sequence[str] = ()) -> Gauge:
    DECLARED.append(Declared(name, "gauge", flow, tuple(labels), doc))
    return _kept(flow, Gauge(name, doc, labels))


def _histogram(name: str, flow: Flow, doc: str, labels: Sequence[str] = (), buckets: Sequence[float] = _LATENCY_S) -> Histogram:
    DECLARED.append(Declared(name, "histogram", flow, tuple(labels), doc))
    return _kept(flow, Histogram(name, doc, labels, buckets=buckets))


def _ages(name: str, flow: Flow, doc: str) -> Ages:
    DECLARED.append(Declared(name, "gauge", flow, ("symbol",), doc))
    return _kept(flow, Ages(name, doc, REGISTRY))


# every flow
BUILD = _kept("every", Info("penstock_build", "version of Penstock and of Python"))
DECLARED.append(Declared("penstock_build_info", "info", "every", ("version", "python"), "version of Penstock and of Python; always 1"))
RUN = _kept("every", Gauge("penstock_run_info", "which flow and which run this process is; always 1", ["flow", "run"]))
DECLARED.append(Declared("penstock_run_info", "gauge", "every", ("flow", "run"), "which flow and which run this process is; always 1"))
PROGRESS_TIMESTAMP = _gauge("penstock_progress_timestamp_seconds", "every",
                            "when this process last finished a piece of work (a frame, a batch, a report), seconds since 1970")
LAG_MESSAGES = _gauge("penstock_lag_messages", "every",
                      "messages of a topic partition that are on Kafka and not read yet", ["topic", "partition"])
DEAD_LETTERS = _counter("penstock_dead_letters", "every",
                        "messages that could not be read, by topic; each is a row of dead_letter", ["topic"])
DISK_FREE_BYTES = _gauge("penstock_disk_free_bytes", "every", "free space where this process keeps its files")

# the pipeline
ROWS = _counter("penstock_rows", "pipeline", "input rows that were read, by table", ["table"])
ROWS_MADE = _counter("penstock_rows_made", "pipeline", "rows that the operators made and the sink published, by table", ["table"])
FRAMES = _counter("penstock_frames", "pipeline", "frames that went all the way through")
FRAME_SECONDS = _histogram("penstock_frame_seconds", "pipeline",
                           "time that a frame took, by stage: read, sequence, market, desk, sink", ["stage"])
FRONTIER_TIMESTAMP = _gauge("penstock_frontier_timestamp_seconds", "pipeline", "highest event time seen, seconds since 1970")
JOURNAL_FRAME = _gauge("penstock_journal_frame", "pipeline", "number of the last frame in the journal")
SEQUENCE_WAITS = _counter("penstock_sequence_waits", "pipeline",
                          "times that rows were held back because a number of their writer was missing")
SEQUENCE_SKIPPED = _counter("penstock_sequence_skipped", "pipeline", "missing numbers of writers that were given up after live.hold_s")
HELD_ROWS = _gauge("penstock_held_rows", "pipeline", "rows that are held back now")
SNAPSHOT_SECONDS = _histogram("penstock_snapshot_seconds", "pipeline", "time that a snapshot took")
RECOVERY_BYTES = _gauge("penstock_recovery_store_bytes", "pipeline", "size of the recovery store, which holds the snapshots")
SNAPSHOT_TIMESTAMP = _gauge("penstock_snapshot_timestamp_seconds", "pipeline", "when the last snapshot was finished, seconds since 1970")
FRESHNESS_SECONDS = _ages("penstock_freshness_seconds", "pipeline",
                          "event time that has passed since the newest event of a symbol, for the 500 most recent symbols")

# the desk, in the pipeline
DECISIONS = _counter("penstock_decisions", "desk", "proposals that the gate decided")
ORDERS_APPROVED = _counter("penstock_orders_approved", "desk", "proposals that the gate approved")
ORDERS_REFUSED = _counter("penstock_orders_refused", "desk", "proposals that the gate refused, by the first limit that refused", ["reason"])
ORDERS = _counter("penstock_orders", "desk", "states that orders came into, by state", ["state"])
FILLS = _counter("penstock_fills", "desk", "executions that were booked")
ORDER_LATENCY_SECONDS = _histogram("penstock_order_latency_seconds", "desk",
                                   "from the message of the causing row on Kafka to the order on Kafka")
TRADING_STATE = _gauge("penstock_trading_state", "desk", "1 for the state that trading is in, 0 for the others", ["account", "state"])
EQUITY = _gauge("penstock_equity_quote", "desk", "cash plus positions at the last prices, quote units", ["account"])
EXPOSURE = _gauge("penstock_exposure_quote", "desk", "gross notional of the positions, quote units", ["account"])
POSITIONS = _gauge("penstock_positions_open", "desk", "open positions", ["account"])
OPEN_ORDERS = _gauge("penstock_orders_open", "desk", "orders that may still be filled", ["account"])
DRAWDOWN = _gauge("penstock_drawdown_ratio", "desk", "distance from the highest equity, of that equity", ["account"])
DRAWDOWN_HALT = _gauge("penstock_drawdown_halt_ratio", "desk", "drawdown at which everything is flattened and trading halts", ["account"])

# the execute flow
ORDERS_SENT = _counter("penstock_orders_sent", "execute", "orders that were sent to the venue")
ORDERS_REJECTED = _counter("penstock_orders_rejected", "execute", "orders that the venue refused, by what it said", ["reason"])
ORDERS_EXPIRED = _counter("penstock_orders_expired", "execute", "orders that were too old to be sent, so they never were")
ORDERS_UNKNOWN = _gauge("penstock_orders_unknown", "execute", "orders of which it is not known now whether the venue has them")
ORDER_AGE_SECONDS = _histogram("penstock_order_age_seconds", "execute", "age of an order when it was sent", buckets=_AGE_S)
VENUE_SECONDS = _histogram("penstock_venue_seconds", "execute",
                           "round trip of a request to the venue, by request", ["request"], buckets=_AGE_S)
EXECUTE_STOPPED = _gauge("penstock_execute_stopped", "execute",
                         "1 where an approval did not follow from the one before, so nothing is sent any more")

# the ingest
INGEST_ROWS = _counter("penstock_ingest_rows", "ingest", "rows that were written to the input topics, by table", ["table"])
INGEST_FILLED = _counter("penstock_ingest_filled", "ingest", "trades that a socket missed and that were fetched", ["exchange"])
INGEST_DUPLICATES = _counter("penstock_ingest_duplicates", "ingest", "trades that came twice and were dropped", ["exchange"])
RECONNECTS = _counter("penstock_exchange_reconnects", "ingest",
                      "connections that were lost or rotated and made again, by reason", ["exchange", "reason"])
SILENCE_SECONDS = _ages("penstock_exchange_silence_seconds", "ingest", "time since the exchange last sent an event of a symbol")
SILENT_SYMBOLS = _gauge("penstock_exchange_silent_symbols", "ingest", "symbols that are silent, each by its own event rate")
CLOCK_OFFSET_SECONDS = _gauge("penstock_clock_offset_seconds", "ingest", "the exchange's clock less this machine's", ["exchange"])
EXCHANGE_IN_USE = _gauge("penstock_exchange_in_use", "ingest",
                         "1 for the exchange whose rows are written, 0 for those in reserve", ["exchange"])

# the archive
ARCHIVE_ROWS = _counter("penstock_archive_rows", "archive", "rows that the warehouse acknowledged, by table", ["table"])
ARCHIVE_SECONDS = _histogram("penstock_archive_insert_seconds", "archive", "time that an insert took", buckets=_AGE_S)


def flow_started(flow: str, run: str = "") -> None:
    """Say which flow this process is, and of which run; call once at the start."""
    try:
        installed = version("penstock")
    except PackageNotFoundError:
        installed = "unknown"
    BUILD.info({"version": installed, "python": platform.python_version()})
    RUN.clear()
    RUN.labels(flow=flow, run=run).set(1)
    progressed()


@cache
def one(metric: Labelled, *values: str) -> Labelled:
    """A metric with these label values, looked up once: for what is counted in every frame. Not for a metric that is cleared."""
    return metric.labels(*values)


def progressed() -> None:
    """A piece of work is done: a frame, a batch, a report."""
    PROGRESS_TIMESTAMP.set(time.time())


def trading_state(account: str, state: int) -> None:
    """The state that an account's trading is in, as a code into `TRADING_STATES`."""
    for code, name in enumerate(TRADING_STATES):
        TRADING_STATE.labels(account=account, state=name).set(code == state)
