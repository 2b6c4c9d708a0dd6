"""The life of a warehouse: started, shared, stopped, killed, locked, damaged. An acknowledged row is never lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import urllib3

from schemas.codec import encode_ipc
from schemas.errors import PenstockError, UserError
from sinks.clickhouse import connect, query_arrow
from sinks.warehouse import ENGINE_FOLDER, SERVER_FILE, running_url, start_embedded
from tests.warehouse_running import http

ROOT = Path(__file__).resolve().parent.parent


def _serve(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sinks.warehouse_server", str(directory), "--port", "0", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _url(directory: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (directory / SERVER_FILE).exists():
            record = json.loads((directory / SERVER_FILE).read_text())
            if record["pid"] == process.pid:
                return str(record["url"])
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, said = process.communicate(timeout=90)
    finally:
        process.kill()
    return process.returncode, said


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "warehouse"


def test_commands_share_one_and_the_last_stops_it(directory: Path) -> None:
    first = start_embedded(directory)
    second = start_embedded(directory)
    assert first.url == second.url == running_url(directory)
    first.stop()
    first.stop()
    assert http("SELECT 1", url=second.url).data == b"1\n"
    second.stop()
    assert running_url(directory) is None
    assert not (directory / SERVER_FILE).exists()
    with pytest.raises(PenstockError, match=r"does not answer: .*Connection refused.*penstock warehouse serve"):
        connect(first.url)


def test_a_warehouse_ends_when_its_user_is_killed(directory: Path) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from sinks.warehouse import start_embedded\n"
         "start_embedded(sys.argv[1]); print(1, flush=True); time.sleep(60)", str(directory)],
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    with user:
        assert user.stdout is not None
        user.stdout.readline()
        assert running_url(directory)
        user.kill()
    deadline = time.monotonic() + 60
    while running_url(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_url(directory) is None


@pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_inserts_finish(directory: Path, wish: signal.Signals) -> None:
    server = _serve(directory)
    url = _url(directory, server)
    http("CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a", url=url)
    answers: list[Any] = []
    slow = "INSERT INTO t SELECT number + 0 * sleepEachRow(0.01) FROM numbers(100)"
    insert = threading.Thread(target=lambda: answers.append(http(slow, url=url)))
    insert.start()
    while not int(http("SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'", url=url).data):
        time.sleep(0.01)
    server.send_signal(wish)
    insert.join()
    assert _end(server) == (0, "")
    assert answers[0].status == 200
    again = start_embedded(directory)
    assert http("SELECT count() FROM t", url=again.url).data == b"100\n"
    again.stop()


def test_kill_9_loses_no_acknowledged_row(directory: Path) -> None:
    server = _serve(directory)
    url = _url(directory, server)
    http("CREATE TABLE t (block Int64, a Int64) ENGINE = ReplacingMergeTree ORDER BY (block, a)", url=url)
    acknowledged: list[int] = []
    numbers = iter(range(10**6))

    def write() -> None:
        for block in numbers:
            data = encode_ipc(pa.table({"block": [block] * 500, "a": range(500)})).to_pybytes()
            try:
                if http(data, url=url, query="INSERT INTO t FORMAT ArrowStream").status == 200:
                    acknowledged.append(block)
            except urllib3.exceptions.HTTPError:
                return

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 25:
        time.sleep(0.01)
    server.send_signal(signal.SIGKILL)
    for writer in writers:
        writer.join()
    assert _end(server)[0] == -signal.SIGKILL
    again = start_embedded(directory)
    client = connect(again.url)
    found = query_arrow(client, "SELECT block, uniqExact(a) AS n FROM t FINAL GROUP BY block").to_pylist()
    client.close()
    again.stop()
    assert len(acknowledged) >= 25
    assert set(acknowledged) <= {row["block"] for row in found}
    assert all(row["n"] == 500 for row in found)


def test_a_locked_directory_names_the_process(directory: Path) -> None:
    running = start_embedded(directory)
    pid = json.loads((directory / SERVER_FILE).read_text())["pid"]
    code, said = _end(_serve(directory))
    running.stop()
    assert code == 2
    assert f"is in use by process {pid} (lock file" in said and said.count("\n") == 1


def test_a_port_in_use_is_named(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = _end(_serve(directory, "--port", str(port)))
    assert code == 2
    assert f"port {port} on 127.0.0.1 cannot be used: Address already in use" in said and said.count("\n") == 1


def _a_table(directory: Path) -> Path:
    """A warehouse with one row in one table, stopped; the folder of its engine."""
    running = start_embedded(directory)
    http("CREATE DATABASE d", url=running.url)
    http("CREATE TABLE d.t (a Int64) ENGINE = MergeTree ORDER BY a", url=running.url)
    http("INSERT INTO d.t VALUES (1)", url=running.url)
    running.stop()
    return directory / ENGINE_FOLDER


@pytest.mark.parametrize(("file", "message"), [
    ("t.sql", r"cannot be opened: the engine could not read its tables; it may be damaged: restore"),
    ("data.bin", r"1 damaged parts, one of d\.t, were set aside as .*broken-on-start.*; restore a backup, or delete"),
])  # fmt: skip
def test_damage_is_said_and_no_row_dropped_in_silence(directory: Path, file: str, message: str) -> None:
    for damaged in _a_table(directory).rglob(file):
        damaged.write_bytes(b"xx")
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            start_embedded(directory)
    assert running_url(directory) is None


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"warehouse directory .*file.*: .*name another directory"):
        start_embedded(tmp_path / "file")


def test_a_password_is_asked_for(directory: Path) -> None:
    server = _serve(directory, "--request-bytes-max", "1000", PENSTOCK_WAREHOUSE_PASSWORD="secret")
    url = _url(directory, server)
    assert http("SELECT 1", url=url).status == 401
    assert http("SELECT 1", url=url, password="wrong", user="default").status == 403
    assert http("SELECT 1", url=url, password="secret", user="other").status == 403
    assert http("SELECT 1", url=url, password="secret").data == b"1\n"
    headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "secret"}
    assert http("SELECT 1", url=url, headers=headers).data == b"1\n"
    basic = urllib3.make_headers(basic_auth="default:secret")
    assert http("SELECT 1", url=url, headers=basic).data == b"1\n"
    assert b"REQUEST_TOO_LARGE" in http("SELECT " + "1" * 2000, url=url, headers=basic).data
    with pytest.raises(UserError, match=r"refuses the user or password; set PENSTOCK_WAREHOUSE_PASSWORD"):
        connect(url)
    client = connect(url.replace("http://", "http://default:secret@"))
    assert client.command("SELECT 1") == 1
    client.close()
    server.terminate()
    assert _end(server) == (0, "")


def test_others_may_only_be_let_in_with_a_password(directory: Path) -> None:
    code, said = _end(_serve(directory, "--host", "0.0.0.0", PENSTOCK_WAREHOUSE_PASSWORD=""))
    assert (code, said.strip()) == (
        2, "the warehouse may not listen on 0.0.0.0 without a password; set PENSTOCK_WAREHOUSE_PASSWORD"
    )  # fmt: skip


def test_importing_the_sinks_loads_no_engine() -> None:
    code = (
        "import sys, sinks, sinks.warehouse; heavy = {'chdb', 'uvicorn', 'starlette', 'pyarrow', 'numpy', 'clickhouse_connect'}"
        "; sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
