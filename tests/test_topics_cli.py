"""`penstock topics`: made once, compared ever after; what is there is listed, described and shown; mistakes say what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from cli.main import app
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.frame import FeatureRows
from schemas.tables import BARS, TRADES
from schemas.tables_desk import CONTROL, FILLS
from schemas.topics import TOPICS
from sinks.kafka import KafkaSink
from sinks.kafka_admin import KafkaAdmin, wanted_settings
from sources.kafka_tail import plain_rows
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.test_codec import SYMBOLS, rows_of

REAL = pytest.mark.skipif("PENSTOCK_TEST_KAFKA" not in os.environ, reason="librdkafka's mock does not make or describe topics")


def run(kafka: KafkaConfig, tmp_path: Path, *words: str) -> tuple[int, str, str]:  # noqa: F811
    """The command as a process; exit code, standard output, standard error."""
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix, "options": dict(kafka.options)}}))
    done = subprocess.run([sys.executable, "-m", "cli.main", "topics", *words, "--config", str(config)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[1], env={**os.environ, "COLUMNS": "200"})
    return done.returncode, done.stdout, done.stderr


def called(capsys: pytest.CaptureFixture[str], kafka: KafkaConfig, tmp_path: Path, *words: str) -> str:  # noqa: F811
    """The command in this process: its standard output."""
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    app(["topics", *words, "--config", str(config)], standalone_mode=False)
    return capsys.readouterr().out


@REAL
def test_create_makes_every_topic_as_the_table_says_and_again_changes_nothing(kafka: KafkaConfig, capsys: Any, tmp_path: Path) -> None:  # noqa: F811
    made = json.loads(called(capsys, kafka, tmp_path, "create", "--partitions", "trades=3", "--json"))
    assert sorted(made["created"]) == sorted(kafka.prefix + name for name in TOPICS) and made["existing"] == made["differences"] == []
    states = {s.topic.table.name: s for s in KafkaAdmin(kafka).states()}
    assert {n: len(s.partitions) for n, s in states.items()} == {**{n: t.partitions for n, t in TOPICS.items()}, "trades": 3}
    for state in states.values():
        assert {k: state.settings[k] for k in wanted_settings(state.topic)} == wanted_settings(state.topic)
    again = json.loads(called(capsys, kafka, tmp_path, "create", "--partitions", "trades=3", "--json"))
    assert again["created"] == again["differences"] == [] and len(again["existing"]) == len(TOPICS)
    with pytest.raises(UserError, match=r"trades has 3 partitions, 16 wanted: it is empty; .*keep it with --partitions trades=3, or delete"):
        KafkaAdmin(kafka).create()
    with KafkaSink(kafka, "", "") as sink:
        sink.write(TRADES, rows_of(TRADES, 5, seed=1), SYMBOLS)
    with pytest.raises(UserError, match=r"it holds \d messages, those of a symbol in partition hash\(symbol\) mod 3; another number would"):
        KafkaAdmin(kafka).create()
    KafkaAdmin(kafka).delete(list(TOPICS))


@REAL
def test_a_topic_that_differs_is_said_and_mended_when_asked(kafka: KafkaConfig, capsys: Any, tmp_path: Path) -> None:  # noqa: F811
    producer: Any = Producer({"bootstrap.servers": kafka.servers})
    producer.produce(kafka.prefix + "fills", b"{}")  # the broker makes it, with its own retention
    assert producer.flush(10) == 0
    said = called(capsys, kafka, tmp_path, "create")
    assert f"{len(TOPICS) - 1} topics made, 1 were there, 0 updated" in said
    assert f"{kafka.prefix}fills: retention.ms is 604800000, wanted -1" in said.replace("\n", " ") and "--update" in said
    assert "1 updated" in called(capsys, kafka, tmp_path, "create", "--update")
    assert json.loads(called(capsys, kafka, tmp_path, "create", "--json"))["differences"] == []
    KafkaAdmin(kafka).delete(list(TOPICS))


@REAL
def test_more_replicas_than_brokers(kafka: KafkaConfig, tmp_path: Path) -> None:  # noqa: F811
    code, _, said = run(kafka, tmp_path, "create", "--replication", "3")
    assert code == 2 and "--replication 3: the cluster has 1 broker" in said


def test_list_counts_and_says_what_is_missing(kafka: KafkaConfig, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("sinks.kafka_admin.REQUEST_S_MAX", 2.0)
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(CONTROL, CONTROL.empty(7), ("A",))
    found = {t["table"]: t for t in json.loads(called(capsys, kafka, tmp_path, "list", "--json"))["topics"]}
    assert set(found) == set(TOPICS)
    assert (found["control"]["messages"], found["control"]["partitions"], found["control"]["exists"]) == (7, 4, True)
    assert not found["fills"]["exists"] and found["fills"]["messages"] == 0
    said = called(capsys, kafka, tmp_path, "list")
    assert "missing" in said and "penstock topics create makes those that are missing" in said


def test_describe_has_the_schema_and_the_offsets(kafka: KafkaConfig, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("sinks.kafka_admin.REQUEST_S_MAX", 2.0)
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(CONTROL, CONTROL.empty(7), ("A",))
    found = json.loads(called(capsys, kafka, tmp_path, "describe", kafka.prefix + "control", "--json"))
    assert found["topic"] == kafka.prefix + "control" and found["messages"] == 7
    assert [(p["first"], p["end"]) for p in found["partitions"] if p["messages"]] == [(0, 7)]
    assert found["schema"]["properties"]["command"]["enum"] == ["enable", "disable", "reduce", "halt"]
    said = called(capsys, kafka, tmp_path, "describe", "trades")
    assert "optional, -1" in said and "is not on" in said and "penstock topics create makes it" in said.replace("\n", " ")


def test_tail_shows_json_rows_of_either_codec(kafka: KafkaConfig, capsys: Any, tmp_path: Path) -> None:  # noqa: F811
    trades = TRADES.empty(30)
    trades["seq"], trades["symbol"], trades["price"] = np.arange(30), np.arange(30) % 3, [np.nan, 1.5, np.inf] * 10
    fills = FILLS.empty(2)
    fills["fill_no"], fills["price"], fills["order_id"] = [1, 2], [150_000_000, -1], [255, 2**63]
    with KafkaSink(kafka, "run-9", "paper") as sink:
        for start in range(0, 30, 5):  # messages of one time keep the order of their partitions
            sink.write(TRADES, trades[start : start + 5], SYMBOLS)
            sink.flush()
        sink.write(FILLS, fills, SYMBOLS, ("s",))
        sink.write(CONTROL, CONTROL.empty(1), ("A",))
    found = [json.loads(line) for line in called(capsys, kafka, tmp_path, "tail", "trades", "-n", "30", "--json").splitlines()]
    assert sorted(f["row"]["seq"] for f in found) == list(range(30)) and {f["run"] for f in found} == {"run-9"}
    by_seq = {f["row"]["seq"]: f["row"] for f in found}
    assert [by_seq[i]["price"] for i in range(3)] == [None, 1.5, "Infinity"] and by_seq[4]["symbol"] == SYMBOLS[1]
    assert [f["timestamp_ms"] for f in found] == sorted(f["timestamp_ms"] for f in found)
    assert len(called(capsys, kafka, tmp_path, "tail", "trades", "-n", "4").splitlines()) == 4
    lines = called(capsys, kafka, tmp_path, "tail", "fills").splitlines()
    rows = [json.loads(line.partition(" run-9 ")[2]) for line in lines]
    assert [(r["fill_no"], r["price"], r["order_id"]) for r in rows] == [(1, "1.50000000", "00000000000000ff"), (2, "-0.00000001", "8" + 15 * "0")]
    assert '"command": "enable"' in called(capsys, kafka, tmp_path, "tail", "control", "-n", "1")
    assert called(capsys, kafka, tmp_path, "tail", "control", "-n", "0") == ""


def test_tail_shows_features_and_what_cannot_be_read(kafka: KafkaConfig, capsys: Any, tmp_path: Path) -> None:  # noqa: F811
    features = FeatureRows(60, ("rsi(14)", "ema(3)"), BARS.empty(1), np.array([[np.nan, 2.0]]))
    with KafkaSink(kafka, "r", "paper") as sink:
        sink.write_features(features, ("A",))
    producer: Any = Producer({"bootstrap.servers": kafka.servers})
    for bad in (b"what?", b"[1]", b'{"a"', b""):
        producer.produce(kafka.prefix + "features", bad, partition=1)
    assert producer.flush(10) == 0
    found = [json.loads(line) for line in called(capsys, kafka, tmp_path, "tail", "features", "--json").splitlines()]
    assert [f["row"]["values"] for f in found if "row" in f] == [[None, 2.0]]
    bad = sorted((f["offset"], f["payload"], f["error"]) for f in found if "error" in f)
    assert [payload for _, payload, _ in bad] == ["d2hhdD8=", "WzFd", "eyJh" + "Ig==", ""] and all(error for *_, error in bad)


def test_plain_rows_refuses_what_is_no_row() -> None:
    for payload, headers, said in (
        (b'{"a": 1}', [("schema", b"fills/1")], "on the topic of trades"), (b"\xffxx", [], "Arrow"), (b"[]", [("codec", b"json")], "list, not an object"),
        (b"{" * 9, [], "not JSON"), (b"{}", [("codec", b"xml")], "not one of arrow, json"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            plain_rows(TRADES, payload, headers)


def test_mistakes_are_one_line_and_exit_2(kafka: KafkaConfig, tmp_path: Path) -> None:  # noqa: F811
    for words, said in (
        (("tail", "trade"), 'unknown topic "trade"; did you mean "trades"?'),
        (("tail", "trades"), f"has no topic {kafka.prefix}trades; make it with `penstock topics create`"),
        (("tail", "trades", "-n", "-3"), "-n -3 is negative"),
        (("create", "--partitions", "trades"), '--partitions "trades" is not a topic and a number'),
        (("create", "--partitions", "trade=3"), 'unknown topic "trade"'),
        (("create", "--partitions", "trades=0"), "at least one partition"),
        (("create", "--replication", "0"), "at least one replica"),
    ):  # fmt: skip
        code, out, err = run(kafka, tmp_path, *words)
        assert (code, out) == (2, "") and said in err and len(err.strip().splitlines()) == 1, (words, err)


def test_no_kafka_is_said(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("account: paper\n")
    with pytest.raises(UserError, match="has no section kafka; give --servers"):
        app(["topics", "list", "--config", str(config)], standalone_mode=False)
    with pytest.raises(UserError, match="no configuration was given; give --servers"):
        app(["topics", "list"], standalone_mode=False)
    config.write_text("kafka: {options: {sasl.password: '${UNSET_FOR_SURE}'}}\n")
    with pytest.raises(UserError, match=r"kafka\.options\.sasl\.password wants \$\{UNSET_FOR_SURE\}"):
        app(["topics", "list", "--config", str(config)], standalone_mode=False)
