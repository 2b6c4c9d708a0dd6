"""The scan of a statement sees its words, and nothing inside quotes, names, comments or data."""

import pytest

from sinks.warehouse_http import QueryError, chosen_encoding, content_type, query_error, unpacked
from sinks.warehouse_sql import literal, scan


@pytest.mark.parametrize(("sql", "verb", "form", "data"), [
    (b"select 1", "SELECT", None, None),
    (b" -- insert\n/* format X */ select 'format Y' from `format` format JSON ;", "SELECT", "JSON", None),
    (b"SELECT 1 FORMAT Native SETTINGS max_threads = 1", "SELECT", "Native", None),
    (b"INSERT INTO t FORMAT Native\n\x01\x02", "INSERT", "Native", b"\x01\x02"),
    (b"insert into t (`rsi(14) format`, b) settings a=1 format  CSV \r\n1,2", "INSERT", "CSV", b"1,2"),
    (b"INSERT INTO t FORMAT JSONEachRow {\"a\": 1}", "INSERT", "JSONEachRow", b"{\"a\": 1}"),
    (b"INSERT INTO t FORMAT CSV\n\n1", "INSERT", "CSV", b"\n1"),
    (b"INSERT INTO t FORMAT Arrow", "INSERT", "Arrow", b""),
    (b"INSERT INTO t VALUES (1), (2) -- format", "INSERT", None, None),
    (b"INSERT INTO t SELECT 1 FORMAT Null", "INSERT", "Null", None),
    (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", "INSERT", "CSV", None),
    (b"SELECT 'unfinished", "SELECT", None, None),
    (b"", "", None, None),
])  # fmt: skip
def test_scan(sql: bytes, verb: str, form: str | None, data: bytes | None) -> None:
    found = scan(sql)
    assert (found.verb, found.format) == (verb, form)
    assert (None if found.data_at is None else sql[found.data_at :]) == data


@pytest.mark.parametrize("sql", [
    "select * from file('/etc/passwd')", "select * from `file` ('/etc/passwd')", "SELECT * FROM URL /*x*/ ('http://a')",
    "create table t (a Int8) engine = File(CSV)", "select 1 into outfile 'x'", "insert into t from infile 'x' format CSV",
    "create table t (a Int8) engine=MergeTree order by a settings disk = disk(type=local, path='/')",
    "backup table t to File('x')", "create dictionary d (a Int8) primary key a source(http(url 'x'))",
    "select * from s3Cluster('c', 'x')", "insert into function file('x') select 1",
])  # fmt: skip
def test_what_reaches_outside(sql: str) -> None:
    assert scan(sql.encode()).outside


@pytest.mark.parametrize("sql", [
    "select url, file from t where url in ('file(1)')", "select count() from trades", "select 'into outfile'",
    "create table t (url String, `disk` Int8) engine = Memory", "select max(file) from t -- file(1)",
])  # fmt: skip
def test_what_does_not(sql: str) -> None:
    assert scan(sql.encode()).outside is None


def test_literal() -> None:
    assert literal("a'b\\c") == r"'a\'b\\c'"


def test_errors_keep_clickhouse_words() -> None:
    error = query_error(RuntimeError("Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)"))
    assert (error.code, error.status) == (60, 404)
    assert str(error) == "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)"
    assert query_error(ValueError("what")).status == 500
    full = query_error(RuntimeError("Code: 1001. DB::Exception: write: No space left on device. (STD_EXCEPTION)"))
    assert full.status == 507


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_body_is_bounded_and_whole(encoding: str) -> None:
    from sinks.warehouse_http import packed

    data = b"penstock" * 100_000
    body = b"".join(packed(iter([data[:100], data[100:]]), encoding))
    assert len(body) < len(data) / 10
    assert unpacked(body, encoding, len(data)) == data
    with pytest.raises(QueryError, match=r"larger than 1000 bytes.*REQUEST_TOO_LARGE"):
        unpacked(body, encoding, 1000)
    with pytest.raises(QueryError, match="damaged"):
        unpacked(b"\x00nonsense" * 10, encoding, 1000)
    with pytest.raises(QueryError, match="cut short"):
        unpacked(body[: len(body) // 2], encoding, len(data))


def test_unknown_encodings_and_choices() -> None:
    with pytest.raises(QueryError, match="br is not supported"):
        unpacked(b"x", "br", 10)
    assert chosen_encoding("gzip, lz4;q=0.5, br") == "lz4"
    assert chosen_encoding("br") == chosen_encoding("") == ""
    assert content_type("JSONEachRow").startswith("application/x-ndjson")
    assert content_type("Native") == "application/octet-stream"
