"""The ClickHouse sink: what goes in comes out bit for bit, once; what could not be stored is said, never dropped."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas import ddl
from schemas.codec import from_arrow, has_text, names_in, records_from_arrow
from schemas.codec_features import FEATURES, features_to_arrow, widen
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows, Frame
from schemas.tables import BARS, TRADES, TableSpec
from schemas.tables_desk import RUNS
from schemas.topics import TABLES
from sinks.clickhouse import ClickHouseSink, connect, create_tables, query_arrow, warehouse_error
from sinks.warehouse import start_embedded
from tests.test_codec import STRATEGIES, SYMBOLS, rows_of
from tests.warehouse_running import http, warehouse_url

DATABASE = "sink_tests"


@pytest.fixture
def client() -> Iterator[Any]:
    client = connect(warehouse_url())
    create_tables(client, DATABASE)
    yield client
    client.close()


def _sink(run_id: str, **options: Any) -> ClickHouseSink:
    return ClickHouseSink(warehouse_url(), run_id, database=DATABASE, **options)


def _read(client: Any, spec: TableSpec, run_id: str, order: str) -> Any:
    return query_arrow(
        client, f"SELECT * EXCEPT run_id FROM {DATABASE}.{spec.name} FINAL WHERE run_id = {{run:String}} ORDER BY {order}",
        {"run": run_id},
    )  # fmt: skip


def _trades(n: int, start: int = 0) -> Any:
    rows = TRADES.empty(n)
    rows["seq"] = np.arange(start, start + n)
    rows["ts_event_ns"] = rows["seq"] * 1_000_000 + 1_700_000_000_000_000_000
    rows["symbol"], rows["side"], rows["price"] = rows["seq"] % 3, 1, 0.1 * rows["seq"]
    return rows


@pytest.mark.parametrize("spec", [s for s in TABLES.values() if not has_text(s) and s is not FEATURES], ids=lambda s: s.name)
def test_every_table_comes_back_bit_for_bit(client: Any, spec: TableSpec) -> None:
    rows = rows_of(spec, 40, seed=7)
    order = next(n for n in ("seq", "block_no", spec.key[0]) if n in [f.name for f in spec.fields])
    rows[order] = np.arange(40)
    for name in spec.key:  # rows are told apart by their key alone
        if spec.field(name).kind in ("int", "time", "id"):
            rows[name] = np.arange(40)
    with _sink("every") as sink:
        sink.write(spec, rows[:0], SYMBOLS, STRATEGIES)
        sink.write(spec, rows, SYMBOLS, STRATEGIES)
    back = from_arrow(spec, _read(client, spec, "every", order), SYMBOLS, STRATEGIES)
    assert back.tobytes() == rows.tobytes()


def test_runs_and_features(client: Any) -> None:
    record = {f.name: 5 if f.kind == "time" else f"{f.name} 'ü' \\ \n {{}}" for f in RUNS.fields}
    bars = BARS.empty(3)
    bars["symbol"], bars["ts_open_ns"], bars["close"] = [0, 1, 0], [1, 2, 3], [1.0, 2.0, 3.0]
    features = FeatureRows(60, ("rsi(14)", "ema(3)"), bars, np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, 4.0]]))
    with _sink("mixed") as sink:
        sink.write(RUNS, [record])
        sink.write_frame(Frame("x", 0, 0, SYMBOLS, {"bars": bars}, (features,)), STRATEGIES)
        sink.write_features(features, SYMBOLS)
    assert records_from_arrow(RUNS, _read(client, RUNS, "mixed", "state")) == [record]
    back = widen(_read(client, FEATURES, "mixed", "ts_open_ns"))
    assert back.to_pylist() == features_to_arrow(features, SYMBOLS).to_pylist()
    assert _read(client, BARS, "mixed", "ts_open_ns").num_rows == 3


def test_times_are_readable(client: Any) -> None:
    with _sink("times") as sink:
        sink.write(TRADES, _trades(1), SYMBOLS)
    sql = f"SELECT toString(ts_event) AS t FROM {DATABASE}.trades WHERE run_id = 'times'"
    assert query_arrow(client, sql).to_pylist() == [{"t": "2023-11-14 22:13:20.000000000"}]


def test_batches_are_cut_and_names_may_grow(client: Any) -> None:
    rows = _trades(1000)
    rows["symbol"] = np.repeat([0, 1, 2, 3], 250)
    with _sink("grow", batch_rows=300) as sink:
        for start in range(0, 1000, 125):
            names = SYMBOLS[: rows["symbol"][start : start + 125].max() + 1]
            sink.write(TRADES, rows[start : start + 125], names)
        sink.write(TRADES, _trades(700, 1000), ("other", "ETHUSDT", "third"))
        assert sink.rows_stored <= 1700
        sink.flush()
        assert sink.rows_stored == 1700
        sink.flush()
    table = _read(client, TRADES, "grow", "seq")
    symbols = names_in(table)
    assert set(symbols) == {*SYMBOLS, "other", "third"}
    back = from_arrow(TRADES, table, symbols)
    assert [symbols[c] for c in back["symbol"][:1000:250]] == list(SYMBOLS)
    assert [symbols[c] for c in back["symbol"][1001:1004]] == [("other", "ETHUSDT", "third")[c % 3] for c in range(1001, 1004)]


def test_writing_twice_stores_once(client: Any) -> None:
    for _ in range(2):
        with _sink("twice") as sink:
            sink.write(TRADES, _trades(500), SYMBOLS)
    assert _read(client, TRADES, "twice", "seq").num_rows == 500


class _Proxy:
    """A relay to the warehouse that can lose the answer of an insert after it was stored."""

    def __init__(self, lose: int) -> None:
        self.lost = 0
        self._lose = lose
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._target = int(warehouse_url().rsplit(":", 1)[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._target)) as server:
                self._one(client, server)

    def _one(self, client: socket.socket, server: socket.socket) -> None:
        client.settimeout(5)
        head = b""
        while b"\r\n\r\n" not in head and (part := client.recv(65536)):
            head += part
        if not head:
            return
        header, _, body = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in header.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        while len(body) < length:
            body += client.recv(65536)
        server.sendall(header.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + b"\r\n\r\n" + body)
        answer = b""
        while part := server.recv(65536):
            answer += part
        if b"ArrowStream" in header and self.lost < self._lose:
            self.lost += 1
            return
        client.sendall(answer)

    def close(self) -> None:
        self._server.close()
        self._thread.join(0.1)


def test_a_lost_answer_is_asked_again_and_stored_once(client: Any) -> None:
    proxy = _Proxy(lose=3)
    with ClickHouseSink(proxy.url, "lost", database=DATABASE, backoff_s=0.01) as sink:
        sink.write(TRADES, _trades(500), SYMBOLS)
    proxy.close()
    assert proxy.lost == 3
    found = query_arrow(client, f"SELECT count() AS n FROM {DATABASE}.trades WHERE run_id = 'lost'")
    assert found.to_pylist() == [{"n": 500}]  # without FINAL: the repeats were not even written


def test_a_warehouse_that_is_away_for_a_moment_costs_nothing(tmp_path: Path) -> None:
    first = start_embedded(tmp_path)
    port = int(first.url.rsplit(":", 1)[1])
    sink = ClickHouseSink(first.url, "away", backoff_s=0.3, attempts=8)
    sink.write(TRADES, _trades(10), SYMBOLS)
    sink.flush()
    first.stop()
    sink.write(TRADES, _trades(10, 10), SYMBOLS)
    flushed = threading.Thread(target=sink.flush)
    flushed.start()
    time.sleep(0.1)
    second = start_embedded(tmp_path, port=port)
    flushed.join()
    sink.close()
    assert http("SELECT count() FROM penstock.trades", url=second.url).data == b"20\n"
    second.stop()


def test_a_warehouse_that_stays_away_is_said_with_what_was_not_stored(tmp_path: Path) -> None:
    running = start_embedded(tmp_path)
    sink = ClickHouseSink(running.url, "gone", backoff_s=0.001, attempts=3)
    running.stop()
    sink.write(TRADES, _trades(10), SYMBOLS)
    expected = r"does not answer: .*Connection refused.*penstock warehouse serve.*\(10 rows were not stored\)"
    with pytest.raises(PenstockError, match=expected):
        sink.flush()
    with pytest.raises(PenstockError, match="does not answer"):
        sink.write(TRADES, _trades(1), SYMBOLS)
    with pytest.raises(PenstockError, match="does not answer"):
        sink.close()
    sink.close()


def test_a_refusal_is_not_asked_again(client: Any) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}_b")
    client.command(f"CREATE OR REPLACE TABLE {DATABASE}_b.trades (run_id String) ENGINE = Memory")
    sink = ClickHouseSink(warehouse_url(), "r", database=f"{DATABASE}_b", create=False)
    sink.write(TRADES, _trades(2), SYMBOLS)
    with pytest.raises(PenstockError, match=r"refused: Code: 16\..*NO_SUCH_COLUMN.*\(2 rows were not stored\)"):
        sink.close()


def test_a_row_without_a_name_is_refused(client: Any) -> None:
    sink = _sink("bad")
    rows = _trades(3)
    sink.write(TRADES, rows, SYMBOLS[:1])
    with pytest.raises(PenstockError, match=r"trades could not be stored: ValueError: trades\.symbol.*code 1"):
        sink.close()
    with pytest.raises(PenstockError):
        sink.write(TRADES, rows, SYMBOLS)


def test_a_slow_warehouse_slows_the_writer(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = _sink("slow", batch_rows=10, queue_batches=1)
    gate = threading.Event()
    monkeypatch.setattr(sink, "_retried", lambda action: (gate.wait(), action()))
    written: list[int] = []

    def write() -> None:
        for k in range(10):
            sink.write(TRADES, _trades(10, 10 * k), SYMBOLS)
            written.append(k)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.3)
    assert len(written) <= 3  # one leaving, one waiting, one in hand
    gate.set()
    writer.join()
    sink.close()
    assert _read(client, TRADES, "slow", "seq").num_rows == 100


@pytest.mark.parametrize("url", ["localhost:8123", "ftp://x", "http://", "http://x:99999", ""])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UserError, match="is not a warehouse URL; write it like"):
        connect(url)


def test_errors_never_show_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(PenstockError) as caught:
        connect(f"http://me:hunter2@127.0.0.1:{port}")
    assert "hunter2" not in str(caught.value)


def test_every_table_is_made(client: Any) -> None:
    found = query_arrow(client, "SELECT name FROM system.tables WHERE database = {d:String}", {"d": DATABASE})
    assert {row["name"] for row in found.to_pylist()} == set(TABLES)
    assert ddl.DATABASE == "penstock"


@pytest.mark.parametrize(("code", "said", "message"), [
    (243, "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)", "is full: .*free space"),
    (1001, "Code: 1001. DB::Exception: write failed: No space left on device (STD_EXCEPTION)", "is full: .*free space"),
    (516, "Code: 516. DB::Exception: default: Authentication failed (AUTHENTICATION_FAILED)", "refuses the user or password"),
    (60, "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)", r"refused: Code: 60\. .*UNKNOWN_TABLE"),
])  # fmt: skip
def test_failures_say_what_to_do(code: int, said: str, message: str) -> None:
    error = DatabaseError(f"Received ClickHouse exception, code: {code}, server response: {said} (for url http://x)", code=code)
    found = warehouse_error("http://me:hunter2@x:1", error)
    assert re.search(message, str(found)) and "\n" not in str(found) and "http://x:1" in str(found)
