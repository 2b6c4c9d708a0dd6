"""The running pipeline on Kafka: one result whatever the polls, the workers and the stops, and a replay that proves it."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

import research.parity as parity_module
from operators.market.features import Features
from research.digests import Digests
from research.parity_runs import kafka_parity
from schemas.config_live import KafkaConfig
from schemas.errors import PenstockError, UserError
from schemas.frame import Frame
from schemas.ids import name_id
from schemas.tables import TRADES
from sinks.kafka import KafkaSink
from tests.live_runs import command, ingest, market, plan_for, ready, run


def digests(made: Any, frames: list[Frame]) -> dict[str, str]:
    found = Digests(made.strategy_names)
    for frame in frames:
        found.add(frame)
    return {**found.values(), **found.records()}


def test_a_run_is_its_replay_on_one_and_on_two_workers(kafka: KafkaConfig, tmp_path: Path) -> None:
    ready(kafka)
    command(kafka)
    ingest(kafka)
    made = plan_for(kafka, tmp_path)
    one, two = run(made, "one"), run(made, "two", workers=2)
    assert digests(made, one) == digests(made, two)
    assert sum(len(f.rows(TRADES)) for f in one) == sum(len(f.tables.get("trades", ())) for f in market().frames(10_000))
    for name in ("one", "two"):
        result = kafka_parity(kafka, name)
        assert result["ok"] and result["unpublished_frames"] == 0, result
        assert result["compared"]["fills"] > 0 and result["compared"]["features"] > 0 and result["compared"]["decisions"] > 5


def test_features_that_are_not_recorded_are_computed_and_go_no_further(kafka: KafkaConfig, tmp_path: Path) -> None:
    ready(kafka)
    command(kafka)
    ingest(kafka)
    with_them = run(plan_for(kafka, tmp_path), "with")
    made = plan_for(kafka, tmp_path, {"record_features": False})
    without = run(made, "without", workers=2)
    assert not any(frame.features for frame in without)
    assert digests(made, without)["ledger"] == digests(made, with_them)["ledger"]
    result = kafka_parity(kafka, "without")
    assert result["ok"] and result["compared"]["fills"] > 0 and not result["compared"].get("features"), result


def test_stopped_and_started_again_it_goes_on_where_it_was(kafka: KafkaConfig, tmp_path: Path) -> None:
    ready(kafka)
    command(kafka)
    ingest(kafka, codec="json")
    made = plan_for(kafka, tmp_path)
    expected = digests(made, run(made, "whole"))
    frames: list[Frame] = []
    for stop_after in (2, 1, 3, None):
        frames += run(made, "parts", stop_after=stop_after)
    assert [f.number for f in frames] == list(range(len(frames)))
    assert digests(made, frames) == expected
    assert kafka_parity(kafka, "parts")["ok"]


def test_without_its_recovery_store_a_run_is_formed_again_from_its_journal(kafka: KafkaConfig, tmp_path: Path) -> None:
    ready(kafka)
    command(kafka)
    ingest(kafka)
    first, second = plan_for(kafka, tmp_path / "a"), plan_for(kafka, tmp_path / "b")
    before = run(first, "r", stop_after=2)
    after = run(second, "r")
    assert [f.number for f in after[: len(before)]] == [f.number for f in before]
    assert digests(first, before) == digests(first, after[: len(before)])
    assert kafka_parity(kafka, "r")["ok"]


def test_a_change_in_a_feature_is_located(kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(kafka)
    ingest(kafka)
    run(plan_for(kafka, tmp_path))
    step = Features.step
    seen = {"bars": 0}

    def changed(self: Features, frame: Frame) -> Frame:
        out = step(self, frame)
        sets = []
        for found in out.features:
            values = found.values.copy()
            for k in range(len(values)):
                seen["bars"] += 1
                if seen["bars"] > 40:
                    values[k, 0] += 1e-9
            sets.append(replace(found, values=values))
        return replace(out, features=tuple(sets))

    monkeypatch.setattr(Features, "step", changed)
    result = kafka_parity(kafka, "r")
    found = result["difference"]
    assert not result["ok"] and (found["stage"], found["table"]) == ("features", "features")
    assert len(found["columns"]) == 1 and found["recorded"]["seq"] == found["replayed"]["seq"]
    monkeypatch.undo()
    assert result["compared"]["features"] > 41
    assert found["fed_by"]["journal"]["messages"] and "features" in found["fed_by"]["rows"] and "bars" in found["fed_by"]["rows"]


def test_a_change_in_a_limit_is_located(kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(kafka)
    command(kafka)
    ingest(kafka)
    run(plan_for(kafka, tmp_path))
    stricter = parity_module.account_chain

    def changed(made: Any, *args: Any) -> Any:
        chain = stricter(made, *args)
        chain.operators[-1].desk.policy["positions_max"] = 0
        return chain

    monkeypatch.setattr(parity_module, "account_chain", changed)
    result = kafka_parity(kafka, "r")
    found = result["difference"]
    assert not result["ok"] and (found["stage"], found["table"]) == ("gate", "decisions")
    assert (found["recorded"]["reason"], found["replayed"]["reason"]) == ("approved", "open_positions")
    assert "signals" in found["fed_by"]["rows"]


def test_a_run_does_not_go_on_with_another_plan(kafka: KafkaConfig, tmp_path: Path) -> None:
    ready(kafka)
    made = plan_for(kafka, tmp_path)
    run(made)
    other = replace(made, config=replace(made.config, conflict="netting" if made.config.conflict != "netting" else "independent"))
    with pytest.raises(UserError, match='run "r" began with another config conflict; start a new run with --run'):
        run(other)


def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_on(kafka: KafkaConfig, tmp_path: Path) -> None:
    from schemas.codec_json import decode_json_records
    from schemas.tables_live import DEAD_LETTER
    from sources.kafka_topics import payloads_of
    ready(kafka)
    good = b'{"ts_event_ns": 1700000000000000000, "symbol": "BTC/USDT", "price": 100.5, "size": 1}'
    producer: Any = Producer({"bootstrap.servers": kafka.servers})
    for payload in (good, b'{"ts_event_ns": 1, "symbol": "BTC/USDT", "price": "abc", "size": 1}', b"\x00rubbish", good):
        producer.produce(f"{kafka.prefix}trades", payload, partition=1)
    producer.flush(10)
    frames = run(plan_for(kafka, tmp_path))
    assert sum(len(f.rows(TRADES)) + len(f.tables.get("rejected", ())) for f in frames) >= 2
    dead = decode_json_records(DEAD_LETTER, payloads_of(kafka, "dead_letter", "r"))
    assert [(d["partition"], d["offset"]) for d in dead] == [(1, 1), (1, 2)]
    assert "price" in dead[0]["error"] and dead[0]["topic"] == f"{kafka.prefix}trades"
    assert kafka_parity(kafka, "r")["ok"]


def test_a_log_that_is_not_the_journals_is_refused(kafka: KafkaConfig, tmp_path: Path) -> None:
    from schemas.tables_live import JOURNAL
    from sources.journal import Entry, Range, journal_rows
    ready(kafka)
    ingest(kafka)
    with KafkaSink(kafka, "r", "paper") as sink:
        entry = Entry(0, (Range("trades", name_id(market().symbols[0]) % 4, 0, 1),), False, 0, 0, 99)
        sink.write(JOURNAL, journal_rows(entry, 5))
    with pytest.raises(PenstockError, match="frame 0 of run r was rows 0 to 99 and is now .*: the log is not the one that the journal"):
        run(plan_for(kafka, tmp_path))


def test_rows_that_are_ahead_are_held_within_a_bound(kafka: KafkaConfig, tmp_path: Path) -> None:
    """One partition lacks its rows: the others are not read further than the bound, and nothing is lost when it comes."""
    from dataflows.feeds import KafkaFeed
    from dataflows.live import LivePartition, Wiring
    from operators.market.sequence import COUNTER_BITS
    from schemas.codec import encode_ipc, to_arrow
    from schemas.messages import headers
    ready(kafka)
    n = 4000
    rows = TRADES.empty(n)
    rows["ts_event_ns"] = 1_700_000_000 * 10**9 + np.arange(n)
    rows["seq"], rows["price"], rows["size"] = 7 << COUNTER_BITS | np.arange(n), 1.0, 1.0
    producer: Any = Producer({"bootstrap.servers": kafka.servers})

    def send(part: Any, partition: int) -> None:
        for at in range(0, len(part), 50):
            payload = encode_ipc(to_arrow(TRADES, part[at: at + 50], ("A",))).to_pybytes()
            producer.produce(f"{kafka.prefix}trades", payload, partition=partition, headers=headers(TRADES, "arrow"))
        producer.flush(10)

    send(rows[100:], 1)
    made = plan_for(kafka, tmp_path)
    wiring = Wiring(made, "r", lambda: KafkaFeed(kafka, "r", "paper"), lambda: None, held_rows_max=300)  # type: ignore[arg-type, return-value]
    source = LivePartition(wiring, None)
    source.feed.input.poll_messages = 2  # type: ignore[attr-defined]
    seen: list[Any] = []
    held_max = 0
    for _ in range(400):
        seen += [f.rows(TRADES) for f in source.next_batch()]
        held_max = max(held_max, sum(len(a.rows) for a in source.sequencer.state.held))
    assert sum(map(len, seen)) == 0 and 300 < held_max <= 300 + 2 * 50 * 2
    send(rows[:100], 0)
    deadline = time.monotonic() + 60
    while sum(map(len, seen)) < n and time.monotonic() < deadline:
        seen += [f.rows(TRADES) for f in source.next_batch()]
    source.close()
    out = np.concatenate([r for r in seen if len(r)])
    assert out["ts_event_ns"].tolist() == rows["ts_event_ns"].tolist()
