"""The page that a process shows of itself: `/metrics` for Prometheus and `/healthz` as JSON, on loopback unless told otherwise.

A process is unhealthy (503) where messages are waiting and it has finished nothing for `stalled_s`: it hangs or cannot
keep up at all. One that has nothing to do is healthy. Serving runs in a thread of its own and never touches the flow.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Gauge, generate_latest

from schemas.config_live import LiveConfig
from schemas.errors import UserError
from telemetry import metrics

LOOPBACK = "127.0.0.1"
HOST_VARIABLE = "PENSTOCK_METRICS_HOST"
"""In a container the page must listen on all addresses of the container; the published port is on loopback."""
PORT_OFFSETS = {"pipeline": 0, "ingest": 1, "execute": 2, "archive": 3}
"""One configuration serves all flows of a machine, so each has its place behind `live.metrics_port`."""
PROCESS_STEP = 10
STALLED_S = 120.0


def total(gauge: Gauge) -> float:
    """The sum over all labels."""
    return sum(sample.value for family in gauge.collect() for sample in family.samples)


def health(flow: str, run: str, stalled_s: float = STALLED_S, now_s: Callable[[], float] = time.time) -> tuple[bool, dict[str, Any]]:
    """Whether the process is healthy, and what `/healthz` answers."""
    last_s, lag = total(metrics.PROGRESS_TIMESTAMP), int(total(metrics.LAG_MESSAGES))
    age_s = max(0.0, now_s() - last_s)
    stopped = total(metrics.EXECUTE_STOPPED) > 0
    stalled = lag > 0 and age_s > stalled_s
    said = {
        "ok": not (stalled or stopped), "flow": flow, "run": run,
        "last_progress": datetime.fromtimestamp(last_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "last_progress_age_s": round(age_s, 3), "lag_messages": lag,
    }
    if flow == "pipeline":
        said["frames"] = int(REGISTRY.get_sample_value("penstock_frames_total") or 0)
    if stalled:
        said["why"] = f"{lag} messages are waiting and nothing was finished for {age_s:.0f} s"
    if stopped:
        said["why"] = "an approval did not follow from the one before; nothing is sent any more"
    return not (stalled or stopped), said


class Exporter:
    """A running page; `url` is where it is. `stop()` frees the port."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        host, port = server.server_address[:2]
        self.port = int(port)
        self.url = f"http://{host if isinstance(host, str) else host.decode()}:{self.port}"
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start(live: LiveConfig, flow: str, run: str = "", process: int = 0) -> Exporter | None:
    """Start the page of a flow where the configuration has a port, else only say which flow this is. `process`: of a cluster, 0, 1, …"""
    if live.metrics_port == 0:
        metrics.flow_started(flow, run)
        return None
    port = live.metrics_port + PORT_OFFSETS.get(flow, 0) + PROCESS_STEP * process
    return serve(port, os.environ.get(HOST_VARIABLE) or LOOPBACK, flow=flow, run=run, state_dir=live.state_dir)


def serve(port: int, host: str = LOOPBACK, *, flow: str, run: str = "", state_dir: str = ".", stalled_s: float = STALLED_S) -> Exporter:
    """Start the page of this process; port 0 takes a free one. UserError where the port or the address cannot be had."""
    metrics.flow_started(flow, run)
    metrics.DISK_FREE_BYTES.set_function(lambda: float(shutil.disk_usage(_existing(Path(state_dir))).free))

    registry = metrics.page_of(flow)

    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10.0  # a client that says nothing does not keep a thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                ok, said = health(flow, run, stalled_s)
                self._answer(200 if ok else 503, "application/json", json.dumps(said).encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"/metrics or /healthz\n")

        do_HEAD = do_GET

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """A scrape is no event."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no event of ours."""

    try:
        return Exporter(Server((host, port), Page))
    except OSError as error:
        raise UserError(f"metrics cannot be served on {host}:{port}: {error.strerror or error}; "
                        "give another live.metrics_port") from None
    except OverflowError:
        raise UserError(f"metrics cannot be served on {host}:{port}: a port is from 0 to 65535") from None


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())

