"""A run without a broker: the same flow straight from a source, killed at any moment, and a replay of what it recorded."""

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cli.running import local_source
from research.parity_runs import local_parity
from research.running import Running
from research.stored import StoredRun
from schemas.config import Config
from schemas.errors import PenstockError, UserError
from schemas.frame import Arrival, Frame
from schemas.tables import TRADES
from schemas.tables_desk import FILLS
from sources.journal import Entry, Range
from sources.local_log import LocalLog
from tests.children import running
from tests.live_runs import plan_for
from tests.warehouse_running import warehouse_url

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, name: str, stop_after: int | None = None, pace: str = "max", command: str | None = "enable",
        live: Mapping[str, Any] | None = None) -> list[Frame]:
    made = plan_for(None, folder, live)
    _, frames = local_source(Config(), None, "3:1:7", None, None, pace, None)
    stop, left = threading.Event(), []

    def seen(frame: Frame) -> None:
        left.append(frame)
        if stop_after is not None and len(left) >= stop_after:
            stop.set()

    running = Running(made, name, frames=frames, url=warehouse_url(), stop=stop, seen=seen)
    if command:
        log = LocalLog(running.folder)
        log.command(command)
        log.close()
    running.go()
    return left


def test_a_run_without_a_broker_is_its_replay(tmp_path: Path) -> None:
    name = f"local-{os.getpid()}"
    run(tmp_path, name)
    result = local_parity(tmp_path / name, warehouse_url(), name)
    assert result["ok"] and result["compared"]["fills"] > 0 and result["compared"]["features"] > 0, result
    kept = sorted((tmp_path / name / "input").glob("*.parquet"))
    assert {p.stem.rsplit("-", 1)[0] for p in kept} == {"trades", "beats", "control"}
    assert sum(pq.read_metadata(p).num_rows for p in kept) == result["rows_in"]


def test_features_that_are_not_recorded_are_not_compared(tmp_path: Path) -> None:
    name = f"bare-{os.getpid()}"
    run(tmp_path, name, live={"record_features": False})
    result = local_parity(tmp_path / name, warehouse_url(), name)
    assert result["ok"] and result["compared"]["fills"] > 0 and not result["compared"].get("features"), result


def test_stopped_and_started_again_it_goes_on_with_the_next_row(tmp_path: Path) -> None:
    whole, parts = f"whole-{os.getpid()}", f"parts-{os.getpid()}"
    run(tmp_path, whole)
    run(tmp_path, parts, stop_after=1)
    run(tmp_path, parts, stop_after=1, command=None)
    run(tmp_path, parts, command=None)
    assert local_parity(tmp_path / parts, warehouse_url(), parts)["ok"]
    a, b = (StoredRun(warehouse_url(), name).table(FILLS) for name in (whole, parts))
    assert a.num_rows > 0 and a.equals(b)


def test_the_input_may_be_replayed_like_any_recording(tmp_path: Path) -> None:
    from research.replaying import replay
    name = f"replayed-{os.getpid()}"
    run(tmp_path, name)
    folder = tmp_path / name / "input"
    result = replay([str(p) for p in sorted(folder.glob("trades-*.parquet"))], strategies=("momentum",))
    assert result.summary["counts"]["trades"] == sum(pq.read_metadata(p).num_rows for p in folder.glob("trades-*.parquet"))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_it_resumes_with_the_same_books(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    plan_for(None, tmp_path)  # compiled, so that a start is quick
    name = f"killed-{os.getpid()}-{seed}"
    config = tmp_path / "c.yaml"
    config.write_text(f"strategies: [rsi_mean_reversion, momentum]\nwarehouse: '{warehouse_url()}'\n"
                      f"live: {{state_dir: '{tmp_path}', snapshot_s: 0.3}}\n")
    words = [sys.executable, "-m", "cli.main", "run", "paper", "--simulate", "3:1:7", "--run", name, "--config", str(config), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kills = 0
    for pace in ("600x", "600x", "600x", "max"):
        first = pace == "600x" and not (tmp_path / name / "input.sqlite3").exists()
        with running([*words, "--pace", pace, *(["--enable"] if first else [])], cwd=tmp_path, env=environment) as child:
            if pace == "max":
                _, err = child.communicate(timeout=300)
                assert child.returncode == 0, err[-2000:]
                break
            before = _rows(tmp_path / name)
            while _rows(tmp_path / name) < before + int(random.integers(200, 2500)) and child.poll() is None:
                time.sleep(0.02)
            if child.poll() is None:
                child.kill()
                kills += 1
    assert kills >= 2
    result = local_parity(tmp_path / name, warehouse_url(), name)
    assert result["ok"], result["difference"]
    undisturbed = f"calm-{os.getpid()}-{seed}"
    run(tmp_path, undisturbed)
    a, b = (StoredRun(warehouse_url(), n).table(FILLS) for n in (undisturbed, name))
    assert a.num_rows > 0 and a.equals(b)


def _rows(folder: Path) -> int:
    if not (folder / "input.sqlite3").exists():
        return 0
    try:
        log = LocalLog(folder, create=False)
    except PenstockError:
        return 0  # it is just being made
    rows = sum(e.rows for e in log.entries())
    log.close()
    return rows


def test_one_run_runs_once(tmp_path: Path) -> None:
    from research.running import one_process
    with one_process(tmp_path / "r", 0), pytest.raises(UserError, match=f"run r is running already, as process {os.getpid()}"), \
            one_process(tmp_path / "r", 0):
        pass


def rows(n: int, first: int = 0) -> Any:
    out = TRADES.empty(n)
    out["seq"] = out["ts_event_ns"] = np.arange(first, first + n)
    return out


def test_the_log_gives_back_what_it_was_given_from_sqlite_and_from_parquet(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    for k in range(4):
        entry = Entry(k, (Range("trades", 0, k * 10, k * 10 + 10),), k == 2, 5, k * 10, 10)
        log.append(entry, [Arrival("trades", 0, rows(10, k * 10))], ("A",))
    for moved in (0, 2, 4):
        log.rotate(moved, all_of_it=True)
        for a, b in ((0, 40), (3, 17), (15, 25), (39, 40), (20, 20)):
            assert log.read(Range("trades", 0, a, b)).tobytes() == rows(b - a, a).tobytes()
    assert [e.number for e in log.entries(2)] == [2, 3] and log.entries()[2].skip
    log.close()
    assert LocalLog(tmp_path, create=False).names == ["A"]


def test_a_command_is_given_once_and_stays_until_it_is_input(tmp_path: Path) -> None:
    log, other = LocalLog(tmp_path), LocalLog(tmp_path)
    other.command("halt")
    assert log.commands() == ["halt"] and log.commands() == []
    assert LocalLog(tmp_path).commands() == ["halt"]  # a process that died before it was input
    log.append(Entry(0, (), False, 0, 0, 0), [], ())
    assert LocalLog(tmp_path).commands() == []


@pytest.mark.parametrize("bad", [b"x", b"", b"\x00" * 5000], ids=["short", "empty", "zeros"])
def test_a_damaged_recovery_store_is_an_error_that_says_the_way_out_and_the_way_out_works(tmp_path: Path, bad: bytes) -> None:
    name = f"damaged-{os.getpid()}-{len(bad)}"
    run(tmp_path, name, stop_after=1)
    store = tmp_path / name / "recovery"
    (store / "part-0.sqlite3").write_bytes(bad)
    with pytest.raises(PenstockError, match="recovery store .* cannot be used: .*; move that folder away and start again: the run is then formed"):
        run(tmp_path, name, command=None)
    store.rename(tmp_path / "away")
    run(tmp_path, name, command=None)
    assert local_parity(tmp_path / name, warehouse_url(), name)["ok"]
