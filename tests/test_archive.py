"""The archive: every row of every topic is in the warehouse once, under its run, whatever is killed when; poison is kept and said."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

import dataflows.archive
from dataflows.archive import Archive, run_archive, starts
from schemas.codec import from_arrow, records_from_arrow
from schemas.codec_features import FEATURES, features_to_arrow, widen
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import FeatureRows
from schemas.tables import BARS, BEATS, QUOTES, TRADES, TableSpec
from schemas.tables_desk import CONTROL, DECISIONS, FILLS, RUNS
from schemas.tables_live import DEAD_LETTER, JOURNAL
from schemas.topics import TOPICS
from sinks.clickhouse import connect, query_arrow
from sinks.kafka import KafkaSink
from sinks.kafka_admin import PartitionState, TopicState
from sources.kafka_batch import BEGINNING
from tests.children import running
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_reading import messages
from tests.test_codec import STRATEGIES, SYMBOLS, rows_of
from tests.warehouse_running import http, warehouse_url

SAMPLES = (TRADES, QUOTES, BARS, DECISIONS, FILLS, JOURNAL)


def database(kafka: KafkaConfig) -> str:  # noqa: F811
    return "archive_" + "".join(c if c.isalnum() else "_" for c in kafka.prefix)


def archived(kafka: KafkaConfig, *specs: TableSpec, **options: Any) -> Any:  # noqa: F811
    """One pass over the topics of these tables."""
    return run_archive(kafka, warehouse_url(), tables=[s.name for s in specs], once=True, database=database(kafka), **options)


def stored(kafka: KafkaConfig, spec: TableSpec, run_id: str, order: str) -> pa.Table:  # noqa: F811
    client = connect(warehouse_url())
    try:
        return query_arrow(client, f"SELECT * EXCEPT run_id FROM {database(kafka)}.{spec.name} FINAL WHERE run_id = {{run:String}} ORDER BY {order}",
                           {"run": run_id})
    finally:
        client.close()


def counted(kafka: KafkaConfig, spec: TableSpec, run_id: str = "market") -> int:  # noqa: F811
    sql = f"SELECT count() FROM {database(kafka)}.{spec.name} FINAL WHERE run_id = '{run_id}'"
    return int(http(sql).data)


def produced(kafka: KafkaConfig, table: str, payloads: list[bytes], partition: int = 0, headers: Any = None) -> None:  # noqa: F811
    producer: Any = Producer({"bootstrap.servers": kafka.servers})
    for payload in payloads:
        producer.produce(kafka.prefix + table, payload, partition=partition, headers=headers)
    assert producer.flush(30) == 0


def trades(n: int, start: int = 0) -> Any:
    rows = TRADES.empty(n)
    rows["seq"] = np.arange(start, start + n)
    rows["ts_event_ns"] = rows["seq"] * 1_000_000 + 1_700_000_000_000_000_000
    rows["symbol"], rows["side"], rows["price"] = rows["seq"] % len(SYMBOLS), 1, 0.1 * rows["seq"]
    return rows


def test_rows_of_several_runs_come_back_bit_for_bit(kafka: KafkaConfig) -> None:  # noqa: F811
    given: dict[tuple[str, str], Any] = {}
    for number, run_id in enumerate(("", "run-1", "run-2")):
        with KafkaSink(kafka, run_id, "paper") as sink:
            for spec in SAMPLES:
                rows = rows_of(spec, 50, seed=number)
                for name in spec.key:  # rows are told apart by their key alone
                    if spec.field(name).kind in ("int", "time", "id"):
                        rows[name] = np.arange(50) + 100 * number
                if "symbol" in rows.dtype.names:  # no row of these tables speaks for all symbols
                    rows["symbol"] = np.arange(50) % len(SYMBOLS)
                for f in spec.fields:
                    if f.kind == "float" and TOPICS[spec.name].codec == "json":
                        rows[f.name] = 1.0
                sink.write(spec, rows[:30], SYMBOLS, STRATEGIES)
                sink.write(spec, rows[30:], SYMBOLS, STRATEGIES)
                given[run_id or "market", spec.name] = rows
    done = archived(kafka, *SAMPLES)
    assert done.rows == {s.name: 150 for s in SAMPLES} and done.dead_letters == 0 and done.lag == 0
    for (run_id, name), rows in given.items():
        spec = TOPICS[name].table
        order = next(k for k in ("seq", *spec.key) if k in spec.key and spec.field(k).kind in ("int", "time", "id"))
        back = from_arrow(spec, stored(kafka, spec, run_id, order), SYMBOLS, STRATEGIES)
        assert back.tobytes() == rows.tobytes(), (run_id, name)


def test_text_tables_and_features(kafka: KafkaConfig) -> None:  # noqa: F811
    run = {f.name: 5 if f.kind == "time" else f"{f.name} 'ü' \\ \n {{}}" for f in RUNS.fields}
    bars = BARS.empty(3)
    bars["symbol"], bars["ts_open_ns"], bars["close"] = [0, 1, 0], [1, 2, 3], [1.0, 2.0, 3.0]
    features = FeatureRows(60, ("rsi(14)", "ema(3)"), bars, np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, 4.0]]))
    with KafkaSink(kafka, "r-1", "paper") as sink:
        sink.write(RUNS, [run])
        sink.write_features(features, SYMBOLS)
    produced(kafka, "features", [json.dumps({
        "symbol": "A", "interval_ns": 60, "ts_open_ns": 9, "ts_event_ns": 9, "seq": 9, "open": None, "high": 1.0, "low": "-Infinity", "close": 1.5,
        "volume": 2.0, "feature_set": "x", "values": [None, 1.0],
    }).encode()], headers=[("codec", b"json"), ("run", b"r-2")])
    done = archived(kafka, RUNS, FEATURES)
    assert done.rows == {"runs": 1, "features": 4} and done.dead_letters == 0
    assert records_from_arrow(RUNS, stored(kafka, RUNS, "r-1", "state")) == [run]
    wide = widen(stored(kafka, FEATURES, "r-1", "ts_open_ns").cast(pa.schema(features_to_arrow_schema())))
    assert wide.to_pylist() == features_to_arrow(features, SYMBOLS).to_pylist()
    other = stored(kafka, FEATURES, "r-2", "seq").to_pylist()[0]
    assert np.isnan(other["open"]) and other["low"] == -np.inf and np.isnan(other["values"][0]) and other["values"][1] == 1.0


def features_to_arrow_schema() -> Any:
    from schemas.codec import arrow_schema
    return arrow_schema(FEATURES)


def test_trades_without_numbers_stay_apart_and_are_the_same_each_time(kafka: KafkaConfig) -> None:  # noqa: F811
    row = {"ts_event_ns": 1_700_000_000_000_000_000, "symbol": "A", "price": 1.5, "size": 2.0}
    produced(kafka, "trades", [json.dumps(row).encode()] * 3, 1)
    produced(kafka, "trades", [json.dumps(row).encode()] * 2, 2)
    several = pa.table({name: pa.array([value] * 4) for name, value in row.items()})
    from schemas.codec import encode_ipc
    produced(kafka, "trades", [encode_ipc(several).to_pybytes()] * 2, 3)
    produced(kafka, "beats", [b'{"ts_event_ns": 5, "symbol": ""}'] * 2, 0)
    assert archived(kafka, TRADES, BEATS).rows == {"trades": 13, "beats": 2}
    first = stored(kafka, TRADES, "market", "seq")
    assert first.num_rows == counted(kafka, TRADES) == 13 and counted(kafka, BEATS) == 2
    assert len(set(first["seq"].to_pylist())) == 13 and max(first["seq"].to_pylist()) < 0
    assert archived(kafka, TRADES, BEATS).rows == {}  # all of it is done
    assert archived(kafka, TRADES, BEATS, rewind=True).rows == {"trades": 13, "beats": 2}
    assert stored(kafka, TRADES, "market", "seq").equals(first) and counted(kafka, BEATS) == 2


def test_poison_becomes_dead_letters_which_are_archived_too(kafka: KafkaConfig) -> None:  # noqa: F811
    bad = [b"", b"what?", b'{"ts_event_ns": 1}', b"\xff\xff\xff\xff garbage", b'{"ts_event_ns": 1, "symbol": "A", "price": "abc", "size": 1}', b"[1]"]
    good = b'{"ts_event_ns": 1, "symbol": "A", "price": 1, "size": 1, "seq": 7}'
    produced(kafka, "trades", [bad[0], good, *bad[1:]], 2)
    produced(kafka, "runs", [b"{}", b"\x00"])
    produced(kafka, "features", [b"\xff\xff\xff\xff!", b"{", b'{"values": 3}'], headers=[("run", b"r")])
    produced(kafka, "fills", [b"{}"], headers=[("schema", b"fills/99")])
    with KafkaSink(kafka, "", "paper") as sink:  # so that the topic is there
        sink.write(DEAD_LETTER, [{"ts_seen_ns": 1, "topic": "t", "partition": 0, "offset": 1, "error": "e", "payload": ""}])
    specs = (TRADES, RUNS, FEATURES, FILLS, DEAD_LETTER)
    done = archived(kafka, *specs)
    assert (done.rows, done.dead_letters) == ({"trades": 1, "dead_letter": 1}, 12)
    assert len(messages(kafka, "dead_letter")) == 13
    again = archived(kafka, *specs)
    assert (again.rows, again.dead_letters) == ({"dead_letter": 12}, 0)
    letters = records_from_arrow(DEAD_LETTER, stored(kafka, DEAD_LETTER, "market", "topic, partition, offset"))
    from base64 import b64decode
    mine = [letter for letter in letters if letter["topic"] == kafka.prefix + "trades"]
    assert [(x["partition"], x["offset"], b64decode(x["payload"])) for x in mine] == [(2, o, p) for o, p in zip((0, 2, 3, 4, 5, 6), bad, strict=True)]
    for letter in mine:
        assert letter["error"].startswith(f"{kafka.prefix}trades partition 2 offset {letter['offset']}: ")
    assert "newer than" in next(x["error"] for x in letters if x["topic"] == kafka.prefix + "fills")
    assert archived(kafka, *specs, rewind=True).dead_letters == 12
    archived(kafka, *specs)
    assert counted(kafka, DEAD_LETTER) == 13  # a message is one dead letter, however often it is read


def test_it_goes_on_where_it_was_and_groups_know_their_own_place(kafka: KafkaConfig) -> None:  # noqa: F811
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, trades(100), SYMBOLS)
    assert archived(kafka, TRADES).rows == {"trades": 100}
    assert archived(kafka, TRADES).rows == {}
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, trades(50, 100), SYMBOLS)
    assert archived(kafka, TRADES).rows == {"trades": 50}
    assert archived(kafka, TRADES, group=f"{kafka.prefix}other").rows == {"trades": 150}
    assert counted(kafka, TRADES) == 150


def test_shares_of_the_partitions_are_all_of_them(kafka: KafkaConfig) -> None:  # noqa: F811
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(TRADES, trades(200), SYMBOLS)
        sink.write(CONTROL, CONTROL.empty(5), ("A",))
    done = [archived(kafka, TRADES, CONTROL, share=(i, 3), group=f"{kafka.prefix}shared").rows for i in range(3)]
    assert sum(d.get("trades", 0) for d in done) == 200 and sum(d.get("control", 0) for d in done) == 5
    assert sum("trades" in d for d in done) > 1 and counted(kafka, TRADES) == 200


class Killed(BaseException):
    """The process is gone: nothing that comes after this happened."""


STEPS = ("poll", "write", "flush", "letters", "commit", "committed")


class Dying:
    """Passes calls on to a part, and dies before or after one of them."""

    def __init__(self, part: Any, name: str, step: Callable[[str], None], after: str = "") -> None:
        self._part, self._name, self._step, self._after = part, name, step, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        labels = {("reader", "poll"): "poll", ("warehouse", "write"): "write", ("warehouse", "flush"): "flush", ("letters", "flush"): "letters",
                  ("offsets", "commit"): "commit"}
        label = labels.get((self._name, name))
        if label is None:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step(label)
            made = found(*args, **kwargs)
            if label == "commit":
                self._step("committed")
            return made

        return call


@pytest.mark.parametrize("label", STEPS)
def test_killed_at_any_step_it_loses_and_doubles_nothing(kafka: KafkaConfig, label: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(dataflows.archive, "MESSAGES_MAX", 7)
    monkeypatch.setattr(dataflows.archive, "FLUSH_S", 0.0)
    monkeypatch.setattr(dataflows.archive, "FLUSH_BEHIND_S", 0.0)
    with KafkaSink(kafka, "", "paper") as sink:
        for start in range(0, 120, 3):
            sink.write(TRADES, trades(3, start), SYMBOLS)
        sink.write(DEAD_LETTER, [{"ts_seen_ns": 1, "topic": "t", "partition": 0, "offset": 1, "error": "e", "payload": ""}])
    produced(kafka, "trades", [b"poison"], 1)
    lives = [2, 5]
    """At which call of the step the first and the second process die."""

    def die(at: int) -> Callable[[str], None]:
        seen = [0]

        def step(name: str) -> None:
            seen[0] += name == label
            if seen[0] == at:
                raise Killed
        return step

    def fragile(at: int) -> type[Archive]:
        step = die(at)

        def made(reader: Any, unpacker: Any, warehouse: Any, letters: Any, offsets: Any, *rest: Any) -> Archive:
            return Archive(Dying(reader, "reader", step), unpacker, Dying(warehouse, "warehouse", step), Dying(letters, "letters", step),
                           Dying(offsets, "offsets", step), *rest)
        return made  # type: ignore[return-value]

    for at in lives:
        monkeypatch.setattr(dataflows.archive, "Archive", fragile(at))
        with pytest.raises(Killed):
            archived(kafka, TRADES, DEAD_LETTER)
    monkeypatch.setattr(dataflows.archive, "Archive", Archive)
    archived(kafka, TRADES, DEAD_LETTER)
    archived(kafka, TRADES, DEAD_LETTER)
    rows = from_arrow(TRADES, stored(kafka, TRADES, "market", "seq"), SYMBOLS)
    assert rows.tobytes() == trades(120).tobytes()
    assert counted(kafka, DEAD_LETTER) == 2


def test_kill_9_of_the_command_loses_and_doubles_nothing(kafka: KafkaConfig, tmp_path: Path) -> None:  # noqa: F811
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    rows = trades(60_000)
    with KafkaSink(kafka, f"kill-{kafka.prefix}", "") as sink:
        for start in range(0, len(rows), 20):
            sink.write(TRADES, rows[start : start + 20], SYMBOLS)
    words = [sys.executable, "-m", "cli.main", "archive", "--config", str(config), "--warehouse", warehouse_url(), "--table", "trades"]
    for seconds in (1.5, 2.5, 4.0):
        with running(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):  # kill -9 at the end
            time.sleep(seconds)
    done = subprocess.run([*words, "--once", "--json"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["lag"] == 0
    sql = f"SELECT count(), uniqExact(seq) FROM penstock.trades FINAL WHERE run_id = 'kill-{kafka.prefix}'"
    assert http(sql).data.split() == [b"60000", b"60000"]


def test_sigterm_stores_what_was_read(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(dataflows.archive, "FLUSH_S", 3600.0)  # nothing is stored but by stopping
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, trades(100), SYMBOLS)
    polls = iter(range(100_000))
    seen: list[Any] = []

    def stopping() -> bool:
        return next(polls) > 20

    done = run_archive(kafka, warehouse_url(), tables=["trades"], database=database(kafka), stopping=stopping, progress=seen.append)
    assert done.rows == {"trades": 100} and done.commits == 1 and seen == [done] and counted(kafka, TRADES) == 100


def state(first: int, end: int) -> TopicState:
    return TopicState(TOPICS["trades"], "penstock.trades", (PartitionState(0, first, end, 1, 1), PartitionState(1, 0, 5, 1, 1)))


def test_messages_that_are_gone_are_an_error_unless_that_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    assert [p.offset for p in starts([state(10, 20)], {("trades", 0): 10}, False)] == [10, BEGINNING]
    assert [p.offset for p in starts([state(10, 20)], {}, False)] == [BEGINNING, BEGINNING]
    with pytest.raises(PenstockError, match=r"are gone.*: penstock.trades partition 0 offsets 7 to 9; --accept-loss"):
        starts([state(10, 20)], {("trades", 0): 7}, False)
    assert [p.offset for p in starts([state(10, 20)], {("trades", 0): 7, ("trades", 1): 5}, True)] == [10, 5]
    assert "gone" in caplog.text
    with pytest.raises(UserError, match="partition 0 ends at offset 20 and was archived up to 21: the topic was made anew; --rewind"):
        starts([state(0, 20)], {("trades", 0): 21}, True)


def test_a_missing_topic_and_a_warehouse_that_is_down_are_said_and_nothing_is_committed(kafka: KafkaConfig) -> None:  # noqa: F811
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, trades(10), SYMBOLS)
    with pytest.raises(UserError, match=rf"has no topics {kafka.prefix}fills, {kafka.prefix}orders; make them with `penstock topics create`"):
        archived(kafka, TRADES, FILLS, TOPICS["orders"].table)
    with pytest.raises(PenstockError, match="does not answer"):
        run_archive(kafka, "http://127.0.0.1:1", tables=["trades"], once=True)
    assert archived(kafka, TRADES).rows == {"trades": 10}


def test_the_command(kafka: KafkaConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    from cli.main import app
    with KafkaSink(kafka, f"cmd-{kafka.prefix}", "") as sink:
        sink.write(TRADES, trades(10), SYMBOLS)
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}, "warehouse": warehouse_url()}))
    app(["archive", "--config", str(config), "--table", "trades", "--once", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"rows": {"trades": 10}, "dead_letters": 0, "lag": 0, "commits": 1}
    app(["archive", "--config", str(config), "--table", "trades", "--once", "--rewind"], standalone_mode=False)
    assert "10 rows stored, 0 dead letters, 0 messages behind" in capsys.readouterr().out
    for words, said in ((("--table", "trade"), 'unknown topic "trade"; did you mean "trades"'), (("--process", "2/2"), "I below N"),
                        (("--warehouse", "none"), "keeps nothing")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            app(["archive", "--config", str(config), *words], standalone_mode=False)
