"""The embedded warehouse speaks ClickHouse's HTTP protocol: what curl, clickhouse-connect and Grafana's plugin rely on."""

import json
import threading
from typing import Any

import clickhouse_connect
import lz4.frame
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.codec import encode_ipc
from sinks.clickhouse import connect, query_arrow
from sinks.warehouse_native import header_block, native_blocks
from tests.warehouse_running import http, warehouse_url


@pytest.fixture
def table() -> Any:
    """An empty table `t` (a Int64, s LowCardinality(String)) in a database of its own."""
    http("CREATE OR REPLACE TABLE t (a Int64, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
    yield "t"
    http("DROP TABLE t")


def _rows(name: str = "t") -> list[list[Any]]:
    text = http(f"SELECT * FROM {name} ORDER BY a FORMAT JSONCompactEachRow").data.decode()
    return [json.loads(line) for line in text.splitlines()]


def test_ping_and_root() -> None:
    assert http(method="GET", path="/ping").data == b"Ok.\n"
    assert http(method="GET").data == b"Ok.\n"
    assert http(method="GET", path="/play").status == 404


@pytest.mark.parametrize(("sql", "parameters", "expected"), [
    ("SELECT 1", {}, b"1\n"),
    ("", {"query": "SELECT 2 AS x FORMAT JSONEachRow"}, b'{"x":2}\n'),
    ("SELECT 1 + 1 AS x", {"default_format": "JSONEachRow"}, b'{"x":2}\n'),
    ("SELECT {x:Int32} + 1, {s:String}", {"param_x": "5", "param_s": "it's \\\\ {a}"}, b"6\tit\\'s \\\\ {a}\n"),
    ("SELECT currentDatabase()", {"database": "system"}, b"system\n"),
    ("SELECT getSetting('max_block_size')", {"max_block_size": "123"}, b"123\n"),
    ("SELECT 1 WHERE 0", {}, b""),
    ("SELECT 'ü' FORMAT TSV;", {}, "ü\n".encode()),
    ("1", {"query": "SELECT 41 +"}, b"42\n"),
])  # fmt: skip
def test_queries(sql: str, parameters: dict[str, str], expected: bytes) -> None:
    answer = http(sql, **parameters)
    assert (answer.status, answer.data) == (200, expected)


def test_headers() -> None:
    answer = http("SELECT 1 AS x FORMAT JSON", query_id="mine")
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-ClickHouse-Timezone"]
    assert "read_rows" in json.loads(answer.headers["X-ClickHouse-Summary"])
    assert json.loads(answer.data)["data"] == [{"x": 1}]


@pytest.mark.parametrize(("sql", "status", "code"), [
    ("SELECT nope", 404, "47"),
    ("SELECT * FROM nope", 404, "60"),
    ("SELEC 1", 400, "62"),
    ("SELECT 1; SELECT 2", 400, "62"),
    ("SELECT throwIf(1)", 500, "395"),
    ("SELECT 1 FORMAT Nope", 404, "73"),
    ("SELECT * FROM file('/etc/passwd', LineAsString)", 500, "497"),
    ("SELECT 1 INTO OUTFILE '/tmp/x'", 500, "497"),
    ("", 400, "62"),
    (b"SELECT '\xff'", 400, "62"),
    ("INSERT INTO nope FORMAT CSV\n1", 404, "60"),
])  # fmt: skip
def test_errors(sql: str | bytes, status: int, code: str) -> None:
    answer = http(sql)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code)
    assert answer.data.startswith(f"Code: {code}. DB::Exception: ".encode())


@pytest.mark.parametrize(("parameters", "status", "code"), [
    ({"database": "nope"}, 404, "81"), ({"nonsense": "1"}, 404, "115"), ({"max_threads": "x"}, 500, "27"),
    ({"bad name": "1"}, 404, "115"), ({"decompress": "1"}, 501, "48"), ({"client_protocol_version": "x"}, 400, "36"),
])  # fmt: skip
def test_bad_parameters(parameters: dict[str, str], status: int, code: str) -> None:
    answer = http("SELECT 1", **parameters)
    assert answer.headers["X-ClickHouse-Exception-Code"] == code
    assert answer.status == status or code == "27"


def test_an_error_in_the_middle_of_a_stream_ends_the_connection() -> None:
    with pytest.raises(Exception, match=r"(?i)incomplete|reset|closed|invalid|broken"):
        http("SELECT throwIf(number = 3000000, 'late') FROM numbers(4000000) SETTINGS max_threads = 1, max_block_size = 65536")


def test_reading_by_get_writing_by_post_only() -> None:
    assert http(method="GET", query="SELECT 7").data == b"7\n"
    for parameters in ({"method": "GET"}, {"readonly": "1"}):
        answer = http(query="CREATE TABLE never (a Int8) ENGINE = Memory", **parameters)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123"])
def test_a_web_page_cannot_reach_it(host: str) -> None:
    assert http("SELECT 1", headers={"Host": host}).status == 500
    assert b"ACCESS_DENIED" in http("SELECT 1", headers={"Origin": "http://evil.example"}).data


@pytest.mark.parametrize("encoding", ["", "gzip", "lz4", "zstd"])
def test_inserts_with_data_in_the_body(table: str, encoding: str) -> None:
    import gzip

    data = encode_ipc(pa.table({"a": [1, 2], "s": pa.array(["x", "ü"]).dictionary_encode()})).to_pybytes()
    pack = {"": bytes, "gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstandard.ZstdCompressor().compress}
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = http(pack[encoding](data), query="INSERT INTO t FORMAT ArrowStream", headers=headers)
    assert (answer.status, answer.data) == (200, b"")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert _rows() == [["1", "x"], ["2", "ü"]] or _rows() == [[1, "x"], [2, "ü"]]


@pytest.mark.parametrize("sql", [
    b"INSERT INTO t VALUES (1, 'x'), (2, 'y')",
    b"INSERT INTO t (a, s) FORMAT Values (1, 'x'), (2, 'y')",
    b"INSERT INTO t FORMAT CSV\n1,x\n2,y\n",
    b'INSERT INTO t FORMAT JSONEachRow {"a": 1, "s": "x"} {"a": 2, "s": "y"}',
    b"INSERT INTO t (s, a) SETTINGS max_block_size=1 FORMAT TSV\nx\t1\ny\t2",
    b"INSERT INTO t SELECT number + 1, if(number = 1, 'y', 'x') FROM numbers(2)",
])  # fmt: skip
def test_inserts_with_data_in_the_statement(table: str, sql: bytes) -> None:
    assert http(sql).status == 200
    assert [row[1] for row in _rows()] == ["x", "y"]


def test_native_goes_out_and_comes_back(table: str) -> None:
    http("INSERT INTO t SELECT number, toString(number % 7) FROM numbers(200000)")
    native = http("SELECT * FROM t ORDER BY a FORMAT Native").data
    http("CREATE OR REPLACE TABLE u AS t")
    assert http(native, query="INSERT INTO u FORMAT Native").status == 200
    sums = [http(f"SELECT count(), sum(a), sum(cityHash64(s)) FROM {name}").data for name in ("t", "u")]
    assert sums[0] == sums[1]
    http("DROP TABLE u")


def test_a_broken_insert_stores_nothing(table: str) -> None:
    data = encode_ipc(pa.table({"a": [1, 2], "s": ["x", "y"]})).to_pybytes()
    for body in (data[: len(data) // 2], b"nonsense"):
        assert http(body, query="INSERT INTO t FORMAT ArrowStream").status >= 400
    assert http(lz4.frame.compress(data)[:-9], query="INSERT INTO t FORMAT ArrowStream",
                headers={"Content-Encoding": "lz4"}).status == 400  # fmt: skip
    assert _rows() == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "lz4"])
def test_answers_are_packed_only_when_asked(encoding: str) -> None:
    sql = "SELECT number FROM numbers(100000)"
    headers = {"Accept-Encoding": encoding}
    plain = http(sql, headers=headers)
    assert "Content-Encoding" not in plain.headers
    packed = http(sql, headers=headers, enable_http_compression="1")
    assert packed.headers["Content-Encoding"] == encoding and len(packed.data) < len(plain.data)


def test_sessions_keep_what_they_made_and_others_do_not_see_it() -> None:
    assert http("CREATE TEMPORARY TABLE mine (a Int8)", session_id="s1").status == 200
    assert http("SELECT count() FROM mine", session_id="s1", max_threads="3").data == b"0\n"
    assert http("SELECT getSetting('max_threads') = 3", session_id="s1").data == b"0\n"
    assert http("SELECT count() FROM mine", session_id="s2").status == 404
    assert http("SELECT count() FROM mine").status == 404


def test_a_session_runs_one_statement_at_a_time() -> None:
    codes = set()

    def ask(statement: str) -> None:
        codes.add(http(statement, session_id="busy").headers.get("X-ClickHouse-Exception-Code"))

    http("SELECT 1", session_id="busy")  # there is a server, and the session
    long = threading.Thread(target=ask, args=("SELECT sleep(2)",))
    long.start()
    while long.is_alive() and "373" not in codes:
        ask("SELECT 1")
    long.join()
    assert "373" in codes  # whichever of the two came second


def test_clickhouse_connect_works_unchanged(table: str) -> None:
    host, port = warehouse_url().removeprefix("http://").split(":")
    for compress in (False, "lz4", "zstd", "gzip"):
        client = clickhouse_connect.get_client(host=host, port=int(port), compress=compress)
        client.command("TRUNCATE TABLE t")
        client.insert("t", [[1, "x"], [2, "y"]], column_names=["a", "s"])
        client.insert_arrow("t", pa.table({"a": [3], "s": ["z"]}))
        assert client.query("SELECT * FROM t WHERE a > {low:Int64} ORDER BY a", {"low": 1}).result_rows == [(2, "y"), (3, "z")]
        assert client.query("SELECT * FROM t WHERE a > 10").result_rows == []
        assert client.query_arrow("SELECT sum(a) AS n FROM t").to_pylist() == [{"n": 6}]
        with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
            assert sum(len(block) for block in stream) == 300_000
        with pytest.raises(DatabaseError, match=r"(?s)47.*UNKNOWN_IDENTIFIER"):
            client.query("SELECT nope")
        assert client.ping()
        client.close()


def test_native_of_a_client_revision_is_what_clickhouse_go_reads() -> None:
    sql = "SELECT toUInt8(1) AS a, 'x' AS s, toLowCardinality('y') AS l, [toNullable(2)] AS n"
    columns = [("a", "UInt8"), ("s", "String"), ("l", "LowCardinality(String)"), ("n", "Array(Nullable(UInt8))")]
    got = http(sql, client_protocol_version="54460", default_format="Native").data
    assert got.startswith(header_block(columns, 54460))
    buffers = http(sql + " FORMAT Buffers").data
    assert got == header_block(columns, 54460) + b"".join(native_blocks(buffers, columns, 54460))
    plain = http(sql + " FORMAT Native").data
    block = got[len(header_block(columns, 54460)) :]
    info, flags = b"\x01\x00\x02\xff\xff\xff\xff\x00", (b"UInt8\x00", b"String\x00")
    assert block.startswith(info + b"\x04\x01\x01a\x05" + flags[0] + b"\x01\x01s\x06" + flags[1] + b"\x01x")
    assert len(block) == len(plain) + len(info) + len(columns)
    empty = http("SELECT 1 AS x WHERE 0", client_protocol_version="54460", default_format="Native").data
    assert empty == header_block([("x", "UInt8")], 54460)
    assert b"name" in http("SHOW TABLES FORMAT Native", client_protocol_version="54460").data
    many = http("SELECT number FROM numbers(200000)", client_protocol_version="54460", default_format="Native").data
    assert len(many) > 1_600_000


def test_readers_see_whole_inserts_while_others_write() -> None:
    http("CREATE OR REPLACE TABLE w (a Int64, b Int64) ENGINE = MergeTree ORDER BY a")
    rows, blocks = 5_000, 12
    errors: list[str] = []

    def write(writer: int) -> None:
        for k in range(blocks):
            data = encode_ipc(pa.table({"a": range(rows), "b": [writer * blocks + k] * rows})).to_pybytes()
            answer = http(data, query="INSERT INTO w FORMAT ArrowStream")
            if answer.status != 200:
                errors.append(answer.data.decode())

    writers = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for writer in writers:
        writer.start()
    seen = [0]
    client = connect(warehouse_url())
    while any(writer.is_alive() for writer in writers):
        found = query_arrow(client, "SELECT count() AS n, uniqExact(b) AS blocks FROM w").to_pylist()[0]
        assert found["n"] == found["blocks"] * rows >= seen[-1]
        seen.append(found["n"])
    assert not errors
    assert query_arrow(client, "SELECT count() AS n FROM w").to_pylist() == [{"n": rows * blocks * 2}]
    client.close()
    http("DROP TABLE w")
