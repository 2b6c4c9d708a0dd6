"""How old the newest event of each symbol is, as one metric for Prometheus.

The label values are bounded: only the `symbols_max` symbols whose newest event is latest are shown, so that an exchange
with ten thousand symbols does not fill the time series database. Seeing rows costs a few nanoseconds a row.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

Ints = npt.NDArray[np.int64]
_NEVER = np.iinfo(np.int64).min


class Ages(Collector):
    """Seconds between the newest event of a symbol and the newest time that was shown, both in the events' own time.

    `see` takes rows as columns; `passed` says that time has moved on though nothing came (a beat). Codes index `symbols`,
    which only grow; other codes (-1: all symbols) only move the time.
    """

    def __init__(self, name: str, doc: str, registry: CollectorRegistry, symbols_max: int = 500) -> None:
        self.name, self.doc, self.symbols_max = name, doc, symbols_max
        self._lock = threading.Lock()
        self._symbols: Sequence[str] = ()
        self._newest: Ints = np.full(64, _NEVER, np.int64)
        self._now_ns = int(_NEVER)
        registry.register(self)

    def see(self, symbols: Sequence[str], codes: Ints, ts_event_ns: Ints) -> None:
        """Rows of one table: code of the symbol and event time, of the same length."""
        if len(ts_event_ns) == 0:
            return
        with self._lock:
            if len(symbols) >= len(self._symbols):
                self._symbols = symbols
            if len(symbols) > len(self._newest):
                self._newest = np.concatenate([self._newest, np.full(len(symbols), _NEVER, np.int64)])
            known = (codes >= 0) & (codes < len(self._newest))
            np.maximum.at(self._newest, codes[known], ts_event_ns[known])
            self._now_ns = max(self._now_ns, int(ts_event_ns.max()))

    def passed(self, ts_ns: int) -> None:
        """Time has come to `ts_ns`."""
        with self._lock:
            self._now_ns = max(self._now_ns, ts_ns)

    def clear(self) -> None:
        """Forget everything, as at the start."""
        with self._lock:
            self._symbols, self._now_ns = (), int(_NEVER)
            self._newest = np.full(64, _NEVER, np.int64)

    def ages_s(self) -> dict[str, float]:
        """Seconds by symbol, the freshest first, at most `symbols_max`."""
        with self._lock:
            newest, now_ns, symbols = self._newest[: len(self._symbols)].copy(), self._now_ns, self._symbols
        order = np.argsort(-newest.astype(np.float64), kind="stable")[: self.symbols_max]
        return {symbols[k]: max(0, now_ns - int(newest[k])) / 1e9 for k in order if newest[k] != _NEVER}

    def describe(self) -> list[Metric]:
        """The metric without values, which is how a registry learns its name."""
        return [GaugeMetricFamily(self.name, self.doc, labels=["symbol"])]

    def collect(self) -> Iterator[Metric]:
        """The values at the moment of a scrape."""
        family = GaugeMetricFamily(self.name, self.doc, labels=["symbol"])
        for symbol, age_s in self.ages_s().items():
            family.add_metric([symbol], age_s)
        yield family
