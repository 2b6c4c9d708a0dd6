"""The writer of an ingest: numbers without gaps, partitions by symbol, and nothing lost or twice after a crash at any moment."""

import json
import os
import random
import signal
import sys
import time
from itertools import count

import numpy as np
import pytest
from confluent_kafka import Producer

from dataflows.ingest import ingest_tape
from schemas.errors import UserError
from schemas.messages import encode, headers
from schemas.tables import ALL_SYMBOLS, BEATS, TRADES
from schemas.topics import TABLES
from sinks import ingest_writer
from sinks.ingest_tails import COUNTER_BITS
from sinks.ingest_writer import Writer, writer_id
from sinks.kafka import partition_of
from sources.ingest_pace import with_beats
from sources.simulator import simulate
from tests.children import running
from tests.ingest_topics import PARTITIONS, expected, make_topics, messages_on, on_topics
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_reading import messages

S = 10**9
TAPE = simulate(5, 0.03, 11, quotes=True)


@pytest.mark.parametrize("codec", ["json", "arrow"])
def test_a_tape_on_topics_is_the_tape(kafka, codec):  # noqa: F811
    make_topics(kafka)
    done = ingest_tape(TAPE, kafka, "w", codec=codec)
    assert on_topics(kafka, writer_id("w"), TAPE.symbols) == expected(with_beats(TAPE, S))
    assert done["resumed_from"] == 0 and done["rows"]["trades"] > 100 and done["rows"]["beats"] > 100 and done["already_there"] == 0
    first = messages(kafka, "trades")[0]
    assert dict(first.headers()) == {"codec": codec.encode(), "schema": b"trades/1"}
    if codec == "json":
        assert json.loads(first.value())["symbol"] == first.key().decode()


def test_written_again_it_changes_nothing(kafka):  # noqa: F811
    make_topics(kafka)
    ingest_tape(TAPE, kafka, "w", codec="arrow")
    before = sum(len(messages(kafka, t)) for t in ("trades", "quotes", "beats"))
    done = ingest_tape(TAPE, kafka, "w", codec="json")
    assert sum(done["rows"].values()) == 0 and done["already_there"] == done["resumed_from"] == len(expected(with_beats(TAPE, S)))
    assert sum(len(messages(kafka, t)) for t in ("trades", "quotes", "beats")) == before


def prefixes(kafka, name, chance, codec):  # noqa: F811
    """What a crash leaves: of every partition a prefix of some length, and no checkpoint."""
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 3})
    for table in TAPE.kinds:
        rows = np.concatenate([f.tables[table] for f in with_beats(TAPE, S) if table in f.tables])
        where = np.array([partition_of(TAPE.symbols[c] if c >= 0 else "", PARTITIONS) for c in rows["symbol"]])
        rows["seq"] += writer_id(name) << COUNTER_BITS
        for p in range(PARTITIONS):
            mine = rows[where == p][: chance.randrange(0, 1 + int((where == p).sum()))]
            for cut in np.array_split(mine, 3):
                for payload in encode(TABLES[table], cut, codec, TAPE.symbols) if len(cut) else ():
                    producer.produce(kafka.prefix + table, payload, partition=p, headers=headers(TABLES[table], codec))
    assert producer.flush(20) == 0


@pytest.mark.parametrize("seed", range(4))
def test_after_any_crash_the_rest_is_written_once(kafka, seed):  # noqa: F811
    make_topics(kafka)
    prefixes(kafka, "w", random.Random(seed), ["json", "arrow"][seed % 2])
    done = ingest_tape(TAPE, kafka, "w", codec=["json", "arrow"][seed // 2])
    assert on_topics(kafka, writer_id("w"), TAPE.symbols) == expected(with_beats(TAPE, S))
    assert done["already_there"] > 0 and done["already_there"] + sum(done["rows"].values()) == len(expected(with_beats(TAPE, S)))


def test_writers_do_not_see_each_other(kafka):  # noqa: F811
    make_topics(kafka)
    for name in ("a", "b"):
        assert ingest_tape(TAPE, kafka, name)["resumed_from"] == 0
    stranger = Producer({"bootstrap.servers": kafka.servers, "log_level": 3})
    for value in (b"garbage", b'{"symbol": "SIM000"}', b'{"seq": "x"}', None, b"\xff\xff\xff\xff\x00"):
        stranger.produce(kafka.prefix + "trades", value, partition=0)
    stranger.flush(10)
    assert ingest_tape(TAPE, kafka, "a")["already_there"] == len(expected(with_beats(TAPE, S)))


def test_a_name_that_wrote_other_data_is_refused(kafka):  # noqa: F811
    make_topics(kafka)
    ingest_tape(TAPE, kafka, "w")
    for other, beat_ns in ((simulate(5, 0.03, 12), S), (TAPE, 2 * S)):
        with pytest.raises(UserError, match='"w" has written other data'):
            ingest_tape(other, kafka, "w", beat_ns=beat_ns)


def test_a_missing_topic_is_named(kafka):  # noqa: F811
    with pytest.raises(UserError, match="penstock topics create"):
        ingest_tape(TAPE, type(kafka)(kafka.servers, kafka.prefix, {"allow.auto.create.topics": "false"}), "w")


def trades(n, first=0):
    rows = TRADES.empty(n)
    rows["ts_event_ns"] = np.arange(first, first + n) * S
    rows["symbol"] = np.arange(n) % 3
    rows["trade_id"] = np.arange(first, first + n)
    return rows


NAMES = ("X", "Y", "Z")


def test_a_live_writer_goes_on_behind_its_highest_number(kafka):  # noqa: F811
    make_topics(kafka)
    for k in range(3):
        with Writer(kafka, "live", ["trades"]) as writer:
            assert writer.resumed_from == 100 * k and writer.filled == 0
            writer.write(TRADES, trades(100, 100 * k), NAMES)
    found = on_topics(kafka, writer_id("live"), NAMES)
    assert sorted(found) == list(range(300))


@pytest.mark.parametrize("seed", range(3))
def test_numbers_that_never_arrived_are_filled_with_beats(kafka, seed):  # noqa: F811
    """Partitions lose different ends, as when the process is killed with messages on their way."""
    make_topics(kafka)
    with Writer(kafka, "live", ["trades"]) as writer:
        writer.write(TRADES, trades(200), NAMES)
    chance = random.Random(seed)
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 3})
    rows, there = trades(500, 200), set(range(200))
    rows["seq"] = np.arange(200, 700)
    for code, name in enumerate(NAMES):
        mine = rows[rows["symbol"] == code][: chance.randrange(10, 160)]
        there |= set(mine["seq"].tolist())
        mine["seq"] += writer_id("live") << COUNTER_BITS
        for payload in encode(TRADES, mine, "json", NAMES):
            producer.produce(kafka.prefix + "trades", payload, partition=partition_of(name, PARTITIONS))
    producer.flush(10)
    highest = max(there)
    with Writer(kafka, "live", ["trades"]) as writer:
        assert writer.resumed_from == highest + 1
        assert writer.filled == highest + 1 - len(there) > 0
        writer.write(TRADES, trades(5, 1000), NAMES)
    found = on_topics(kafka, writer_id("live"), NAMES)
    assert sorted(found) == list(range(highest + 6))
    assert {n for n, row in found.items() if row[0] == "beats"} == set(range(highest + 1)) - there
    with Writer(kafka, "live", ["trades"]) as writer:
        assert (writer.resumed_from, writer.filled) == (highest + 6, 0)


def test_a_checkpoint_saves_the_reading(kafka, monkeypatch):  # noqa: F811
    make_topics(kafka)
    asked = []
    with Writer(kafka, "live", ["trades"], told=asked.append) as writer:
        writer.write(TRADES, trades(300), NAMES)
    with Writer(kafka, "live", ["trades"], told=asked.append) as writer:
        beat = BEATS.empty(1)
        beat["symbol"] = ALL_SYMBOLS
        monkeypatch.setattr(ingest_writer, "CHECKPOINT_S", -1.0)
        for _ in range(50):
            writer.write(BEATS, beat, ())
            writer.flush()
        writer._tend()
        assert all(not p.acked for parts in writer._parts.values() for p in parts)
    assert asked == [0, 0]


def test_no_more_is_on_its_way_than_a_start_looks_back(kafka, monkeypatch):  # noqa: F811
    make_topics(kafka)
    monkeypatch.setattr(ingest_writer, "IN_FLIGHT", 50)
    most = 0
    with Writer(kafka, "live", ["trades"], linger_ms=20) as writer:
        for k in range(40):
            writer.write(TRADES, trades(10, 10 * k), NAMES)
            most = max(most, writer._next - writer._lowest_in_flight())
    assert 0 < most <= 50
    assert sorted(on_topics(kafka, writer_id("live"), NAMES)) == list(range(400))


@pytest.mark.skipif("PENSTOCK_TEST_KAFKA" not in os.environ, reason="needs a broker that outlives a process: set PENSTOCK_TEST_KAFKA")
@pytest.mark.parametrize("codec", ["json", "arrow"])
def test_killed_again_and_again_it_loses_and_doubles_nothing(kafka, codec, tmp_path):  # noqa: F811
    make_topics(kafka)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    command = [sys.executable, "-m", "cli.main", "ingest", "--simulate", "6:1.5:5", "--codec", codec, "--writer", "w",
               "--config", str(config), "--linger-ms", "20", "--json", "--pace"]
    chance = random.Random(codec)
    tape = simulate(6, 1.5, 5)
    wanted = expected(with_beats(tape, S))
    for attempt in count():
        with running([*command, "100x" if attempt < 3 else "max"]) as child:
            if attempt < 3:
                seen = messages_on(kafka, "trades", "beats")
                while child.poll() is None and messages_on(kafka, "trades", "beats") <= seen:
                    time.sleep(0.01)
                time.sleep(chance.random() * 1.5)
                os.kill(child.pid, signal.SIGKILL)
            said, errors = child.communicate()
        if child.returncode != -signal.SIGKILL:
            assert child.returncode == 0, errors
            break
    assert attempt == 3
    assert on_topics(kafka, writer_id("w"), tape.symbols, ("trades", "beats")) == wanted
    summary = json.loads(said)
    assert summary["already_there"] + sum(summary["rows"].values()) == len(wanted)
    assert summary["resumed_from"] > 0 and sum(summary["rows"].values()) > 0


@pytest.mark.skipif("PENSTOCK_TEST_KAFKA" not in os.environ, reason="needs a broker that outlives a process: set PENSTOCK_TEST_KAFKA")
def test_asked_to_end_it_flushes_and_says_what_it_did(kafka, tmp_path):  # noqa: F811
    make_topics(kafka)
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    command = [sys.executable, "-m", "cli.main", "ingest", "--simulate", "3:2:5", "--pace", "60x", "--config", str(config)]
    with running(command) as child:
        while child.poll() is None and not messages_on(kafka, "beats"):
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        said, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert said.startswith("stopped: ") and " written as simulate-" in said
    assert int(said.split(" beats")[0].split()[-1].replace(",", "")) == len(messages(kafka, "beats"))
