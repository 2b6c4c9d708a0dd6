"""`penstock run` and `penstock control`: the pipeline, from a broker's topics or straight from a source, and its switch."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cli.output import err, print_json, print_table
from cli.replaying import parse_time
from cli.secrets import expanded
from cli.stopping import stopping
from schemas.errors import UserError, unknown
from schemas.tables_desk import COMMANDS, CONTROL, TRADING_STATES
from schemas.tables_live import INPUTS

SHOW_S = 1.0


def source_frames(file: list[str] | None, simulate: str | None, pace: str, beat: str | None) -> tuple[Any, Callable[..., Iterator[Any]]]:
    """The tape of a run without a broker, and its frames with heartbeats, as they are due."""
    from cli.replaying import open_source
    from sources.ingest_pace import beat_of, paced, parse_pace
    source = open_source([f"sim:{simulate}"] if simulate else list(file or ()), None, None)
    speed, beat_ns = parse_pace(pace), beat_of(source, beat)

    def frames(skip: int, stopping: Callable[[], bool]) -> Iterator[Any]:
        yield from paced(source, speed, beat_ns, start_row=skip, stopping=stopping)

    return source, frames


def exchange_frames(loaded: Any, exchange: str | None, symbols: str | None) -> Callable[..., Iterator[Any]]:
    """The frames of an exchange, as they come."""
    from cli.ingesting import exchange_of
    from sources.exchange_frames import live_frames
    asked = exchange_of(loaded, exchange, symbols)

    def frames(skip: int, stopping: Callable[[], bool]) -> Iterator[Any]:
        yield from live_frames(asked, skip, stopping)

    return frames


def local_source(loaded: Any, file: list[str] | None, simulate: str | None, exchange: str | None, symbols: str | None, pace: str,
                 beat: str | None) -> tuple[Any, Callable[..., Iterator[Any]]]:
    """The one source of a run without a broker; a recording's tape too, which says what bars it has."""
    asked = {"--file": bool(file), "--simulate": bool(simulate), "--exchange": bool(exchange)}
    given = [option for option, value in asked.items() if value]
    if not given and loaded.exchange is not None:
        given = ["--exchange"]
    if len(given) != 1:
        raise UserError("no section `kafka` in the configuration, so give one source: --file PATH, --simulate SYMBOLS:HOURS:SEED or "
                        "--exchange NAME --symbols …; or a configuration with `kafka: {servers: 127.0.0.1:9092}`")
    if given == ["--exchange"]:
        return None, exchange_frames(loaded, exchange, symbols)
    return source_frames(file, simulate, pace, beat)


class Watched:
    """Counts what went by, and says so on the terminal once a second."""

    def __init__(self, run: str, quiet: bool) -> None:
        self.counts: dict[str, int] = {}
        self.frames, self.frontier_ns, self.equity, self.state = 0, 0, 0, 0
        self.run, self.quiet = run, quiet
        self._shown = 0.0

    def __call__(self, frame: Any) -> None:
        self.frames += 1
        self.frontier_ns = max(self.frontier_ns, frame.frontier_ns)
        for name, rows in frame.tables.items():
            if name != "account":
                self.counts[name] = self.counts.get(name, 0) + len(rows)
        account = frame.tables.get("account")
        if account is not None:
            self.equity, self.state = int(account["equity"][-1]), int(account["trading_state"][-1])
        now = time.monotonic()
        if not self.quiet and now - self._shown > SHOW_S and sys.stderr.isatty():
            self._shown = now
            print(f"\r\033[K{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Where the run is, in one line."""
        rows = sum(self.counts.get(t, 0) for t in ("trades", "quotes", "recorded"))
        at = str(np.datetime64(self.frontier_ns, "ns"))[:19] + "Z" if self.frontier_ns else "no rows yet"
        return (f"{self.run}: {at} · {rows:,} rows · {self.counts.get('bars', 0):,} bars · {self.counts.get('decisions', 0):,} decisions · "
                f"{self.counts.get('fills', 0):,} fills · equity {self.equity / 1e8:,.2f} · trading {TRADING_STATES[self.state]}")

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {"run_id": self.run, "frames": self.frames, "frontier_ns": self.frontier_ns, "trading_state": TRADING_STATES[self.state],
                "equity": f"{self.equity / 1e8:.8f}", "counts": dict(sorted(self.counts.items()))}


@contextlib.contextmanager
def measured(config: Any, run: str, process: int) -> Iterator[None]:
    """The page of metrics, where the configuration wants one, up before the kernels compile."""
    from telemetry.frames import account_started
    from telemetry.metrics import flow_started
    from telemetry.serve import start
    flow_started("pipeline", run)
    account_started(config.account, config.policy)
    exporter = start(config.live, "pipeline", run, process)
    try:
        yield
    finally:
        if exporter is not None:
            exporter.stop()


def run_command(kind: str, config: str | None, strategy: list[str] | None, run: str | None, url: str | None, start: str, once: bool,
                enable: bool, workers: int, process: str | None, peers: str | None, file: list[str] | None, simulate: str | None,
                exchange: str | None, symbols: str | None, pace: str, beat: str | None, as_json: bool) -> None:
    """Run it until it is stopped, or until the source or the topics end."""
    from research.replaying import load_config, make_plan, warm_up
    from research.running import Running, as_begun
    loaded = expanded(load_config(config))
    name = run or kind
    check_name(name)
    number, addresses = cluster_of(process, peers)
    if workers < 1:
        raise UserError(f"--workers {workers} is not a number of workers; give 1 or more")
    if loaded.kafka is None:
        if addresses or kind == "live":
            who = "several processes need" if addresses else "run live needs"
            raise UserError(f"{who} a broker: a section `kafka` in the configuration")
        source, frames = local_source(loaded, file, simulate, exchange, symbols, pace, beat)
    elif file or simulate or exchange:
        raise UserError("with a section `kafka` the rows come from the topics; bring them there with `penstock ingest`")
    else:
        source, frames = None, None
    if kind == "live" and loaded.venue is None:
        raise UserError("run live needs a section `venue` in the configuration: that is the first of two acts; the second is "
                        "`penstock control enable`")
    if loaded.kafka is not None:
        from brokers.partitions import partitions
        partitions(loaded.kafka, INPUTS)  # what is wrong with the broker is said at once, before kernels compile
    made = make_plan(as_begun(loaded, name), strategy, source)
    watched = Watched(name, as_json)
    running = Running(made, name, external=kind == "live", start=parse_start(start), once=once, workers=workers, process=number,
                      peers=addresses, frames=frames, command=" ".join(["penstock", *sys.argv[1:]]), seen=watched)
    with measured(loaded, name, number):
        warm_up(made)
        if enable:
            send_command(loaded, running.folder, "enable")
        with stopping(running.stop):
            if loaded.kafka is None:
                from cli.warehousing import warehouse_at
                with warehouse_at(url or loaded.warehouse or None) as where:
                    running.url = where
                    running.go()
            else:
                running.go()
    if not as_json and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if as_json:
        print_json(watched.summary())
    else:
        s = watched.summary()
        print_table(("", ""), [("run", name), ("frames", f"{s['frames']:,}"), ("trading", s["trading_state"]), ("equity", s["equity"]),
                               *((k, f"{v:,}") for k, v in s["counts"].items())])


def check_name(name: str) -> None:
    """UserError where a run's name could not be a folder's."""
    import re
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f'run "{name}" has other characters than letters, digits, ".", "_" and "-"')


def parse_start(text: str) -> str | int:
    """earliest, latest, or a time in ns."""
    if text in ("earliest", "latest"):
        return text
    found = parse_time(text, "--from")
    assert found is not None
    return found


def cluster_of(process: str | None, peers: str | None) -> tuple[int, tuple[str, ...]]:
    """The number of this process and the addresses of all, from `i/n` and `host:port,host:port`."""
    if process is None and peers is None:
        return 0, ()
    if process is None or peers is None:
        raise UserError("--process i/n and --peers host:port,host:port belong together")
    addresses = tuple(p.strip() for p in peers.split(",") if p.strip())
    try:
        number, of = (int(x) for x in process.split("/"))
    except ValueError:
        raise UserError(f'--process "{process}" is not of the form i/n, such as 0/2') from None
    if of != len(addresses) or not 0 <= number < of:
        raise UserError(f"--process {process} does not fit {len(addresses)} --peers: i is from 0 to n-1, and there are n peers")
    return number, addresses


def send_command(config: Any, folder: Any, command: str) -> None:
    """Write a control record to where the run takes it from."""
    if config.kafka is None:
        from sources.local_log import LocalLog
        log = LocalLog(folder)
        log.command(command)
        log.close()
        return
    from sinks.kafka import KafkaSink
    rows = CONTROL.empty(1)
    rows["ts_event_ns"], rows["seq"], rows["symbol"], rows["command"] = time.time_ns(), -1, -1, COMMANDS.index(command)
    with KafkaSink(config.kafka, "", config.account) as sink:
        sink.write(CONTROL, rows)


def control_command(command: str, config: str | None, run: str, as_json: bool) -> None:
    """Enable, disable, reduce or halt."""
    from pathlib import Path

    from research.replaying import load_config
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    loaded = expanded(load_config(config))
    folder = Path(loaded.live.state_dir) / run
    if loaded.kafka is None and not (folder / "input.sqlite3").exists():
        raise UserError(f"no run {run} in {loaded.live.state_dir}; name it with --run, or give --config with a section kafka")
    send_command(loaded, folder, command)
    shown = {"command": command, "account": loaded.account, "run_id": run if loaded.kafka is None else None}
    if as_json:
        print_json(shown)
    else:
        err.print(f"{command}: written for account {loaded.account}; it takes effect where the pipeline reads it", highlight=False)
