"""A run in the embedded warehouse, through the command: recorded, compared, explained, verified, and caught when tampered with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    penstock(folder, "replay", "sim:3:4:7", "--strategy", "ema_cross", "--run-id", "one")
    penstock(folder, "replay", "sim:3:4:7", "--strategy", "ema_cross", "--run-id", "two", "--engine", "loop", "--batch-rows", "500")
    return folder


def penstock(folder: Path, *args: str, code: int = 0) -> Any:
    """The object that `penstock … --json` prints, or its error line where it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "cli.main", *args, "--json"], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_engines_and_batches_give_the_same_stages(home: Path) -> None:
    found = penstock(home, "runs", "compare", "one", "two")
    assert found["same"] and len(found["hashes"]) == 8


def test_runs_are_listed_as_done_with_a_report(home: Path) -> None:
    runs = penstock(home, "runs", "list")["runs"]
    assert {r["run_id"]: r["state"] for r in runs} == {"one": "done", "two": "done"}
    assert (home / ".penstock" / "reports" / "one.html").stat().st_size > 100_000


def test_an_existing_run_id_is_refused(home: Path) -> None:
    assert 'run "one" exists' in penstock(home, "replay", "sim:1:1:7", "--run-id", "one", code=2)


@pytest.mark.parametrize("approved", [True, False])
def test_every_order_explains_itself(home: Path, approved: bool) -> None:
    rows = penstock(home, "warehouse", "query", f"SELECT order_id FROM decisions FINAL WHERE approved = {approved} LIMIT 1")["rows"]
    story = penstock(home, "explain", rows[0]["order_id"], "--run", "one")
    assert story["approved"] is approved
    assert story["bar"]["first_seq"] == story["first_tick"]["seq"] and story["bar"]["last_seq"] == story["last_tick"]["seq"]
    assert story["features"]["ema(10)"] > 0 and story["signal"]["seq"] == story["decision"]["seq"]
    refusing = [v["limit"] for v in story["verdicts"] if v["verdict"] == "refused"]
    assert (refusing == []) if approved else (refusing[0] == story["reason"])


@pytest.mark.parametrize("table, change", [("fills", "price = price + 1"), ("equity", "equity = equity + 1"), ("decisions", "equity = 0")])
def test_the_audit_finds_one_changed_record(home: Path, table: str, change: str) -> None:
    from research.stored import StoredRun, opened
    from sinks.warehouse import start_embedded
    running = start_embedded(home / ".penstock" / "warehouse")
    try:
        assert StoredRun(running.url, "two").verify()["ok"]
        client = opened(running.url)
        last = client.command(f"SELECT max(ts_event_ns) FROM {table} WHERE run_id = 'one'")
        client.command(f"ALTER TABLE {table} UPDATE {change} WHERE run_id = 'one' AND ts_event_ns = {last} SETTINGS mutations_sync = 2")
        client.close()
        found = StoredRun(running.url, "one").verify()
    finally:
        running.stop()
    assert not found["ok"] and not found["streams"][table]["ok"]


def test_unknown_runs_are_named(home: Path) -> None:
    assert 'did you mean "one"' in penstock(home, "runs", "show", "onee", code=2)
